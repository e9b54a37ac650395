"""Remote shards: whatever a server does, the right bytes lie in the cache, or an error says what came instead."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import fsspec
import pytest

from rlaifv_pl.data.manifest import ManifestError
from rlaifv_pl.data.remote_directory import RemoteDirectory, RemoteError, RetryPolicy, redact
from rlaifv_pl.data.shard_cache import CACHE_VARIABLE, default_cache, local_copy
from rlaifv_pl.data.shards import ShardWriter, load_shards
from tests.data import file_server as serve
from tests.data.file_server import FileServer
from tests.data.samples import pair, picture

FIRST = "shard-000000.tar"
HASTY = RetryPolicy(attempts=3, connect=2.0, stall=0.3, pause=0.01)


def write(directory: Path, count: int = 3, first: int = 0, size: tuple[int, int] = (24, 16)) -> Path:
    """Shards of one sample each."""
    with ShardWriter(directory, recipe={"first": first, "count": count}, samples_per_shard=1) as writer:
        for number in range(first, first + count):
            writer.write(pair(f"k{number}", images=(picture("PNG", size=size, compress_level=0),)))
    return directory


def assert_equal(copy: Path, original: Path) -> None:
    names = sorted(path.name for path in original.iterdir())
    assert sorted(os.listdir(copy)) == names, "nothing half, and nothing else"
    assert all((copy / name).read_bytes() == (original / name).read_bytes() for name in names)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def pairs(tmp_path):
    return write(tmp_path / "origin" / "pairs")


@pytest.fixture
def server(tmp_path, pairs):
    with FileServer(tmp_path / "origin") as server:
        yield server


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_a_copy_is_made_once_and_reads_like_the_original(server, pairs, cache):
    copy = local_copy(server.url("pairs"), cache)
    assert copy.parent == cache and copy.name.startswith("pairs-")
    assert_equal(copy, pairs)
    assert local_copy(server.url("pairs/"), cache) == copy
    assert server.gets == {"manifest.json": 2, FIRST: 1, "shard-000001.tar": 1, "shard-000002.tar": 1}
    shards = load_shards([server.url("pairs"), str(pairs)], cache)
    assert [sample.key for sample in map(shards.__getitem__, range(6))] == ["k0", "k1", "k2"] * 2


def test_local_shards_are_read_where_they_lie(pairs, cache):
    for path in (pairs, str(pairs), f"file://{pairs}"):
        assert local_copy(path, cache) == pairs
    assert not cache.exists()


@pytest.mark.parametrize("knows_ranges", [True, False])
@pytest.mark.parametrize(
    "faults",
    [
        [serve.cut(4000), serve.cut(0), None],
        [serve.stall, None],
        [serve.status(500), serve.status(503, Retry_After="0"), None],
        [serve.status(429), None],
        [serve.cut(4000), serve.status(416), None],
        [serve.announces(100), None],
        [serve.announces(10**15), None],
        [serve.sends(lambda data: data[:-1] + b"x"), None],
        [serve.sends(lambda data: data + b"x"), None],
        [serve.sends(lambda data: data[:5000]), serve.sends(lambda data: data[:5000]), None],
    ],
    ids=["cut", "stall", "5xx", "429", "416", "short", "long", "other", "more", "fewer"],
)
def test_what_breaks_in_passing_is_mended(server, pairs, cache, faults, knows_ranges):
    server.knows_ranges = knows_ranges
    server.on(FIRST, *faults)
    assert_equal(local_copy(server.url("pairs"), cache, HASTY), pairs)
    assert server.gets[FIRST] == len(faults)


def test_a_long_file_may_break_more_often_than_a_short_one(tmp_path, server, cache):
    """In pieces of 1.6 MB: each brings it further from where the last one ended, and so is no reason to give up."""
    large = write(tmp_path / "origin" / "large", count=1, size=(1400, 1333))
    server.on(FIRST, serve.cut(1_600_000))
    assert_equal(local_copy(server.url("large"), cache, RetryPolicy(attempts=2, pause=0.01)), large)
    assert len(server.resumed) == server.gets[FIRST] - 1 >= 2
    steps = [later - before for before, later in zip([0, *server.resumed], server.resumed, strict=False)]
    assert all(2**16 <= step <= 1_600_000 for step in steps), steps


LASTING = [
    ([serve.cut(0)], r"the connection was cut, after 0 of 10240 bytes \(3 attempts\)", 3),
    ([serve.cut(100), serve.cut(0)], r"after \d+ of 10240 bytes \(3 attempts\)\. Look at the network", 3),
    (
        [serve.stall],
        r"nothing came in time \(2 seconds to connect, 0\.3 between bytes\), after 3000 of 10240",
        3,
    ),
    ([serve.trickle], r"\d+ bytes came in 0 seconds, after \d+ of 10240 bytes \(3 attempts\)", 3),
    ([serve.status(500)], r"the server answers 500, after 0 of 10240 bytes \(3 attempts\)", 3),
    (
        [serve.status(429, Retry_After="0")],
        r"the server answers 429, after 0 of 10240 bytes \(3 attempts\)",
        3,
    ),
    ([serve.status(404)], r"there is no such file\. Name the directory", 1),
    ([serve.status(403)], r"the server answers 403\. Look at the credentials", 1),
    ([serve.status(410)], r"the server answers 410\. Look at the URL", 1),
    ([serve.to(f"/pairs/{FIRST}")], r"from one address to the next without end", 10),
    ([serve.announces(100)], r"expected 10240 bytes, the server has 100 \(2 attempts\)\. It was replaced", 2),
    ([serve.sends(lambda data: data[::-1])], r"expected SHA-256 \w{64}, got \w{64} of 10240 bytes", 2),
    ([serve.endless], r"expected 10240 bytes, more came \(2 attempts\)", 2),
]


@pytest.mark.parametrize(("faults", "words", "requests"), LASTING)
def test_what_lasts_ends_in_an_error_that_says_what_came(server, cache, faults, words, requests):
    server.on(FIRST, *faults)
    with pytest.raises(RemoteError, match=rf"^http://127\.0\.0\.1:\d+/pairs/{FIRST}: .*({words})"):
        local_copy(server.url("pairs"), cache, HASTY)
    assert server.gets[FIRST] == requests
    (copy,) = (path for path in cache.iterdir() if path.is_dir())
    assert not {FIRST, "manifest.json"} & {*os.listdir(copy)}, "nothing is taken for finished"
    assert sum(path.stat().st_size for path in copy.iterdir()) <= 3 * 10240
    assert server.excess < 2**26
    server.plan = lambda name, time: None
    assert_equal(local_copy(server.url("pairs"), cache, HASTY), server.root / "pairs")


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ([serve.status(404)], r"manifest\.json: there is no such file\. Name the directory that holds"),
        ([serve.sends(lambda data: b"<html></html>")], r"13 bytes that do not end like one"),
        ([serve.endless], r"more came"),
        ([serve.to("/pairs/manifest.json")], r"without end"),
    ],
)
def test_a_manifest_that_cannot_be_had_is_named(server, cache, monkeypatch, faults, words):
    monkeypatch.setattr("rlaifv_pl.data.shard_cache.LARGEST_MANIFEST", 2**20)
    server.on("manifest.json", *faults)
    with pytest.raises(RemoteError, match=words):
        local_copy(server.url("pairs"), cache, HASTY)
    assert not cache.exists()


def test_a_manifest_that_was_cut_is_asked_for_again(server, pairs, cache):
    server.on("manifest.json", serve.sends(lambda data: data[:200]), None)
    assert_equal(local_copy(server.url("pairs"), cache, HASTY), pairs)


def test_shards_that_change_get_another_directory(tmp_path, server, pairs, cache):
    before = local_copy(server.url("pairs"), cache)
    kept = {path: path.read_bytes() for path in before.iterdir()}
    for path in pairs.iterdir():
        path.unlink()
    write(pairs, first=7)
    after = local_copy(server.url("pairs"), cache)
    assert_equal(after, pairs)
    assert after != before and all(path.read_bytes() == data for path, data in kept.items())
    os.replace(pairs / FIRST, pairs / "shard-000001.tar")
    (after / "shard-000001.tar").unlink()
    with pytest.raises(RemoteError, match=r"shard-000001\.tar: expected SHA-256 .*It was replaced after"):
        local_copy(server.url("pairs"), cache, HASTY)


def test_a_copy_that_lost_a_shard_is_made_whole(server, pairs, cache):
    copy = local_copy(server.url("pairs"), cache)
    (copy / FIRST).unlink()
    os.truncate(copy / "shard-000001.tar", 700)
    assert_equal(local_copy(server.url("pairs"), cache), pairs)
    assert server.gets["shard-000002.tar"] == 1


def edit(directory: Path, **changes) -> None:
    path = directory / "manifest.json"
    document = json.loads(path.read_text())
    document["shards"][0] |= changes
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": name}
        for name in (
            "../../x.tar",
            "/tmp/x.tar",
            "..",
            ".tar",
            "manifest.json",
            "a\\..\\x.tar",
            "shard-000001.tar",
        )
    ]
    + [
        {"name": "x?.tar"},
        {"bytes": -1},
        {"bytes": "5"},
        {"bytes": 1.5},
        {"sha256": "../x"},
        {"samples": None},
    ],
)
def test_no_manifest_leads_out_of_the_cache(tmp_path, server, pairs, cache, changes):
    edit(pairs, **changes)
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        local_copy(server.url("pairs"), cache)
    assert set(server.gets) == {"manifest.json"} and not cache.exists()


@pytest.mark.parametrize("directory", ["..", "%2e%2e", "..%2f..", "a/..%2f%2e%2e", "a%00b", "%20", ""])
def test_no_url_leads_out_of_the_cache(directory, tmp_path):
    name = RemoteDirectory(f"http://127.0.0.1:9/x/{directory}", RetryPolicy()).name
    assert name and set(name) <= {*"abx-", *"shards"}, name


def test_a_disk_that_is_too_full_is_noticed_before_anything_is_fetched(server, pairs, cache):
    edit(pairs, bytes=10**18)
    with pytest.raises(RemoteError, match=r"needs 1\.0 EB more, and .* free at .*data\.cache_dir"):
        local_copy(server.url("pairs"), cache)
    assert set(server.gets) == {"manifest.json"}


def test_a_cache_that_cannot_be_written_is_named(server, cache):
    cache.write_text("in the way")
    with pytest.raises(RemoteError, match=r"cannot be copied to .*cache/pairs-\w+ \(.*another cache"):
        local_copy(server.url("pairs"), cache)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    for name in (CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache/rlaifv_pl"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache() == Path("/xdg/rlaifv_pl")
    monkeypatch.setenv(CACHE_VARIABLE, "/mine")
    assert default_cache() == Path("/mine")


FETCH = "import sys; from rlaifv_pl.data.shard_cache import local_copy; print(local_copy(*sys.argv[1:]))"


def fetching(url: str, cache: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", FETCH, url, str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_fetch_once(server, pairs, cache):
    server.on(FIRST, serve.slow(1.5))
    processes = [fetching(server.url("pairs"), cache) for _ in range(2)]
    said = [process.communicate(timeout=30) for process in processes]
    (copy,) = {Path(out.strip()) for out, _ in said}
    assert_equal(copy, pairs)
    assert server.gets[FIRST] == server.gets["shard-000001.tar"] == 1 and server.gets["manifest.json"] == 2
    assert sum("another process is fetching" in error for _, error in said) == 1


def test_killed_in_mid_transfer_and_run_again_has_the_right_bytes(server, pairs, cache):
    server.on(FIRST, serve.slow(60), None)
    process = fetching(server.url("pairs"), cache)
    deadline = time.monotonic() + 20
    while not any(path.stat().st_size for path in cache.glob(f"*/{FIRST}.part")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (part,) = cache.glob(f"*/{FIRST}.part")
    part.write_bytes((pairs / FIRST).read_bytes()[: part.stat().st_size])
    assert not list(cache.glob("*/manifest.json")), "unfinished, so that nobody reads it"
    copy = local_copy(server.url("pairs"), cache)
    assert_equal(copy, pairs)
    assert server.resumed, "what came before the kill was not in vain"


def test_what_a_kill_left_torn_is_fetched_anew(server, pairs, cache):
    """Bytes that were never written, though the length says so, as after the machine went down."""
    copy = local_copy(server.url("pairs"), cache)
    (copy / "manifest.json").unlink()
    os.replace(copy / FIRST, copy / f"{FIRST}.part")
    os.truncate(copy / f"{FIRST}.part", 0)
    os.truncate(copy / f"{FIRST}.part", 6000)
    assert_equal(local_copy(server.url("pairs"), cache, HASTY), pairs)
    assert server.resumed == [6000] and server.gets[FIRST] == 3


@pytest.mark.parametrize(
    "fault", [None, serve.status(500), serve.status(404), serve.status(403), serve.cut(9)]
)
def test_secrets_are_sent_and_never_shown(server, pairs, cache, capfd, caplog, fault):
    caplog.set_level("DEBUG")
    url = f"http://me:hunter2@{server.place}/pairs?token=hunter3&sig=hunter%2F4"
    server.on(FIRST, fault)
    shown = ""
    if fault is None:
        copy = local_copy(url, cache)
        assert_equal(copy, pairs)
        assert local_copy(url.replace("hunter3", "hunter5"), cache) == copy, "a new token is no new place"
    else:
        with pytest.raises(RemoteError) as raised:
            local_copy(url, cache, HASTY)
        shown = "".join(_shown(raised.value))
        assert "/pairs/shard-000000.tar?***" in shown and "//***@127" in shown
    path, authorization = server.requests[0]
    assert path == "/pairs/manifest.json?token=hunter3&sig=hunter%2F4" and authorization
    written = [path.read_bytes() for path in cache.rglob("*.json")] + [
        str(path).encode() for path in cache.rglob("*")
    ]
    said = capfd.readouterr()
    everything = shown + said.out + said.err + caplog.text + repr(written)
    assert "hunter" not in everything and "bWU6" not in everything


def test_credentials_may_come_from_a_file(server, pairs, cache, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert_equal(local_copy(server.url("pairs"), cache), pairs)
    assert {authorization for _, authorization in server.requests} == {"Basic bWU6aHVudGVyMg=="}


def _shown(error: BaseException) -> list[str]:
    return traceback.format_exception(error)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/a@b/dir", "s3://bucket/a@b/dir"),
        ("https://u:p@ss?w@host/dir", "https://***@host/dir"),
        ("zip://x::https://u:p@host/a.zip?sig=1", "zip://x::https://***@host/a.zip?***"),
        ("said 'https://host/a?b=c' of it", "said 'https://host/a?***' of it"),
        ("what? nothing", "what? nothing"),
        ("https://host/dir#token", "https://host/dir?***"),
    ],
)
def test_what_is_shown_of_a_url(url, shown):
    assert redact(url) == shown


def test_any_filesystem_of_fsspec_will_do(tmp_path, pairs, cache):
    memory = fsspec.filesystem("memory")
    memory.put(str(pairs), "/anywhere/mine", recursive=True)
    try:
        copy = local_copy("memory://anywhere/mine", cache)
        assert_equal(copy, pairs)
        assert copy.name.startswith("mine-")
        memory.rm("/anywhere/mine/shard-000001.tar")
        (copy / "shard-000001.tar").unlink()
        with pytest.raises(
            RemoteError, match=r"memory://anywhere/mine/shard-000001.tar: there is no such file"
        ):
            local_copy("memory://anywhere/mine", cache)
    finally:
        memory.rm("/anywhere", recursive=True)


def test_a_chain_of_urls_is_one_too(tmp_path, server, pairs, cache):
    shutil.make_archive(str(tmp_path / "origin" / "all"), "zip", pairs.parent, "pairs")
    assert_equal(local_copy(f"zip://pairs::{server.url('all.zip')}", cache), pairs)


@pytest.mark.parametrize(
    ("url", "words"),
    [("gopher9://host/dir", r"gopher9://host/dir cannot be read: .*gopher9"), ("http://", r"http://.*")],
)
def test_a_url_of_no_known_kind_is_named(cache, url, words):
    with pytest.raises(RemoteError, match=words):
        local_copy(url, cache, HASTY)


def test_a_server_that_is_not_there_is_named(cache):
    with FileServer(cache) as server:
        url = server.url("pairs")
    with pytest.raises(RemoteError, match=r"pairs/manifest\.json: .*\(3 attempts\)\. Look at the network"):
        local_copy(url, cache, HASTY)


def test_shards_in_s3(server, pairs, cache, monkeypatch):
    pytest.importorskip("s3fs", reason="s3:// needs s3fs, an extra")
    for name, value in {
        "AWS_ENDPOINT_URL": server.url().rstrip("/"),
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    assert_equal(local_copy("s3://pairs", cache), pairs)
