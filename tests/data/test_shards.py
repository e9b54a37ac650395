"""Shards are written whole or not at all, read at random, and damaged ones are named."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import webdataset
from torch.utils.data import DataLoader

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.manifest import ManifestError, hash_file, hash_json, read_manifest
from rlaifv_pl.data.shard_writer import finished_manifest
from rlaifv_pl.data.shards import Shard, ShardWriter, load_shards
from tests.data.samples import pair, picture, write_tar

FIRST = "shard-000000.tar"
SECOND = "shard-000001.tar"


def write(directory, samples, recipe="r", **options):
    with ShardWriter(directory, recipe={"name": recipe}, **options) as writer:
        for sample in samples:
            writer.write(sample)
    return writer.manifest


def pairs(number):
    return [pair(f"k_{index}", images=(picture(colour=index),)) for index in range(number)]


def test_samples_come_back_in_any_order(tmp_path):
    samples = pairs(5)
    manifest = write(tmp_path, samples, samples_per_shard=2)
    shards = load_shards(str(tmp_path))
    assert [shards[index] for index in (4, 0, 3, 1, 2, -1)] == [samples[i] for i in (4, 0, 3, 1, 2, 4)]
    assert list(shards.keys()) == [sample.key for sample in samples]
    assert shards.lengths == [2, 2, 1] and len(shards) == 5 == manifest.samples
    assert shards.where(3) == f"{tmp_path / SECOND}, sample 'k_3'"
    with pytest.raises(IndexError):
        shards[5]


def test_directories_follow_each_other_as_given(tmp_path):
    write(tmp_path / "b", [pair("x")])
    write(tmp_path / "a", [pair("y"), pair("z")])
    shards = load_shards([str(tmp_path / "b"), tmp_path / "a"])
    assert list(shards.keys()) == ["x", "y", "z"]


def test_webdataset_reads_our_shards(tmp_path):
    samples = [pair("one"), pair("two", images=(picture(), picture("PNG")))]
    write(tmp_path, samples)
    read = list(webdataset.WebDataset(str(tmp_path / FIRST), shardshuffle=False))
    assert [sample["__key__"] for sample in read] == ["one", "two"]
    assert read[0]["jpg"] == samples[0].images[0]
    assert (read[1]["0.jpg"], read[1]["1.png"]) == samples[1].images
    assert json.loads(read[1]["json"])["chosen"] == "Two cats."


def sharing():
    """Of the first shard's seven images three are distinct; the second has one of them again."""
    one, two, three = picture(), picture("PNG"), picture(colour=7)
    shown = [(one,), (two, one), (one, one), (three,), (one,)]
    samples = [pair(f"k{number}", images=images) for number, images in enumerate(shown)]
    samples[2] = replace(samples[2], rejected_images=(two, one))
    return samples


def test_an_image_is_stored_once_a_shard(tmp_path):
    samples = sharing()
    write(tmp_path / "shared", samples, samples_per_shard=4, link_duplicate_images=True)
    write(tmp_path / "whole", samples, samples_per_shard=4)
    with tarfile.open(tmp_path / "shared" / FIRST) as tar:
        links = {info.name: info.linkname for info in tar if info.islnk()}
        tar.extractall(tmp_path / "out", filter="data")
    assert links == {
        "k1.1.jpg": "k0.jpg", "k2.0.jpg": "k0.jpg", "k2.1.jpg": "k0.jpg", "k2.rejected.0.png": "k1.0.png",
        "k2.rejected.1.jpg": "k0.jpg",
    }  # fmt: skip
    saved = 4 * len(picture()) + len(picture("PNG"))
    assert read_manifest(tmp_path / "shared").schema_version == 2
    assert read_manifest(tmp_path / "whole").schema_version == 1
    assert (tmp_path / "shared" / SECOND).read_bytes() == (tmp_path / "whole" / SECOND).read_bytes()
    assert Shard(tmp_path / "shared" / FIRST).shared == (5, saved)
    assert (tmp_path / "out" / "k2.rejected.0.png").read_bytes() == picture("PNG")
    for directory in ("shared", "whole"):
        assert list(load_shards(tmp_path / directory)) == samples


def test_webdataset_yields_every_image_unless_links_were_asked_for(tmp_path):
    """Two samples of one image: links are skipped by webdataset, which is why they are an option."""
    seen = {}
    for linked in (False, True):
        write(tmp_path / str(linked), [pair("one"), pair("two")], link_duplicate_images=linked)
        tar = str(tmp_path / str(linked) / FIRST)
        seen[linked] = [sample.get("jpg") for sample in webdataset.WebDataset(tar, shardshuffle=False)]
    assert seen == {False: [picture(), picture()], True: [picture(), None]}


def test_a_refused_sample_leaves_no_image_to_link_to(tmp_path):
    with ShardWriter(tmp_path, recipe={}, link_duplicate_images=True) as writer:
        with pytest.raises(BadSample):
            writer.write(pair("a", chosen=""))
        writer.write(pair("b"))
    assert load_shards(tmp_path)[0].images == (picture(),) and writer.manifest.schema_version == 1


def test_the_same_samples_give_the_same_bytes(tmp_path):
    manifests = [write(tmp_path / name, pairs(3), samples_per_shard=2) for name in ("a", "b")]
    assert manifests[0] == manifests[1]
    assert (tmp_path / "a" / FIRST).read_bytes() == (tmp_path / "b" / FIRST).read_bytes()


def test_the_manifest_tells_what_happened(tmp_path):
    with ShardWriter(tmp_path, recipe={"beta": 0.1}, round=2, parents=["p"]) as writer:
        writer.write(pair())
        writer.drop(Reason.EMPTY_ANSWER)
        writer.drop("length_balance", 2)
    manifest = read_manifest(tmp_path)
    assert manifest == writer.manifest and manifest.hash == writer.manifest.hash
    assert manifest.drops == {"empty_answer": 1, "length_balance": 2}
    assert manifest.kinds == {"preference": 1}
    assert (manifest.round, manifest.parents, manifest.recipe) == (2, ("p",), {"beta": 0.1})
    assert sorted(os.listdir(tmp_path)) == ["manifest.json", FIRST]


def test_notes_are_kept_and_are_no_part_of_the_identity(tmp_path):
    for name in ("plain", "noted"):
        with ShardWriter(tmp_path / name, recipe={}) as writer:
            writer.write(pair())
            if name == "noted":
                writer.note("codes", {"count": 1})
                writer.note("codes", {"count": 2})
    plain, noted = (read_manifest(tmp_path / name) for name in ("plain", "noted"))
    assert (plain.notes, noted.notes) == ({}, {"codes": {"count": 2}})
    assert plain.hash == noted.hash


def test_a_manifest_from_before_there_were_notes_is_read_and_keeps_its_hash(tmp_path):
    manifest = write(tmp_path, pairs(1))
    path = tmp_path / "manifest.json"
    document = json.loads(path.read_text())
    del document["notes"]
    path.write_text(json.dumps(document))
    assert read_manifest(tmp_path) == manifest
    assert read_manifest(tmp_path).hash == hash_json(document)


def test_a_refused_sample_leaves_no_trace(tmp_path):
    with ShardWriter(tmp_path, recipe={}) as writer:
        writer.write(pair("a"))
        for bad in (pair("b", chosen=""), pair("a"), pair("A")):
            with pytest.raises(BadSample):
                writer.write(bad)
        writer.write(pair("c"))
    assert list(load_shards(tmp_path).keys()) == ["a", "c"]


def test_duplicate_keys_are_refused_across_shards(tmp_path):
    with (
        pytest.raises(BadSample, match="already holds a sample") as raised,
        ShardWriter(tmp_path, recipe={}, samples_per_shard=1) as writer,
    ):
        writer.write(pair("a"))
        writer.write(pair("a"))
    assert raised.value.reason is Reason.DUPLICATE_KEY


def test_an_exception_leaves_no_manifest_and_the_next_attempt_starts_over(tmp_path):
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, recipe={}, samples_per_shard=2) as writer:
        for sample in pairs(3):
            writer.write(sample)
        raise KeyboardInterrupt
    assert sorted(os.listdir(tmp_path)) == ["UNFINISHED", FIRST]
    with pytest.raises(ManifestError, match=r"unfinished or were moved without it\. Run the command"):
        load_shards(tmp_path)
    write(tmp_path, pairs(1))
    assert len(load_shards(tmp_path)) == 1
    assert sorted(os.listdir(tmp_path)) == ["manifest.json", FIRST]


def test_finished_shards_are_replaced_by_their_own_recipe_only(tmp_path, caplog):
    write(tmp_path, pairs(3), samples_per_shard=1)
    with pytest.raises(FileExistsError, match="finished shards of another recipe"):
        write(tmp_path, pairs(1), recipe="other")
    assert len(load_shards(tmp_path)) == 3
    write(tmp_path, pairs(2))
    assert "same recipe" in caplog.text
    write(tmp_path, pairs(1), recipe="other", overwrite=True)
    assert len(load_shards(tmp_path)) == 1
    assert sorted(os.listdir(tmp_path)) == ["manifest.json", FIRST]


def test_tars_of_someone_else_are_not_touched(tmp_path):
    (tmp_path / FIRST).write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="tars without a manifest"):
        write(tmp_path, pairs(1))
    assert (tmp_path / FIRST).read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / FIRST).unlink(), "is missing, but its manifest lists it"),
        (lambda d: os.truncate(d / FIRST, 600), "has 600 bytes, its manifest says 10240"),
        (lambda d: (d / "manifest.json").write_text("{}"), "is no manifest of shards"),
        (lambda d: (d / "manifest.json").write_text("oops"), "is no manifest of shards"),
        (lambda d: _edit_manifest(d, schema_version=99), "has schema version 99, this program reads"),
        (lambda d: _edit_manifest(d, shards=[_shard_entry("../x.tar")]), "plain file name, got '../x.tar'"),
        (lambda d: _edit_manifest(d, shards=[_shard_entry("..")]), "plain file name, got '..'"),
        (lambda d: _edit_manifest(d, shards=[_shard_entry("")]), "plain file name, got ''"),
        (lambda d: _edit_manifest(d, shards=[_shard_entry("x" * 5000)]), "plain file name, got 'xxx"),
        (lambda d: _edit_manifest(d, shards=[_shard_entry(7)]), "plain file name, got 7"),
        (
            lambda d: _edit_manifest(d, shards=[_shard_entry("a.tar") | {"samples": "1"}]),
            "samples of a.tar must",
        ),
        (
            lambda d: _edit_manifest(d, shards=[_shard_entry("a.tar") | {"samples": -1}]),
            "samples of a.tar must",
        ),
        (lambda d: _edit_manifest(d, shards=[_shard_entry("a.tar") | {"bytes": 1.0}]), "bytes of a.tar must"),
        (
            lambda d: _edit_manifest(d, shards=[_shard_entry("a.tar") | {"sha256": None}]),
            "sha256 of a.tar must",
        ),
        (lambda d: _edit_manifest(d, shards=[_shard_entry("a.tar")] * 2), "a.tar is listed twice"),
        (lambda d: _edit_manifest(d, schema_version=True), "has schema version True"),
        (lambda d: _edit_manifest(d, kinds={"sft": "many"}), "kinds must be counts"),
        (lambda d: _edit_manifest(d, recipe=None), "recipe is None"),
        (lambda d: _edit_manifest(d, parents=[None]), "parents must be hashes"),
        (lambda d: (d / "manifest.json").write_text("[" * 10**5), "is no manifest of shards"),
        (
            lambda d: (d / "manifest.json").write_text('{"schema_version": ' + "1" * 4000 + "}"),
            "schema version 111",
        ),
    ],
)
def test_a_damaged_directory_is_refused_with_a_remedy(tmp_path, damage, message):
    write(tmp_path, pairs(1))
    damage(tmp_path)
    with pytest.raises(ManifestError, match=message):
        load_shards(tmp_path)


def _edit_manifest(directory, **changes):
    document = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps(document | changes))


def _shard_entry(name):
    return {"name": name, "bytes": 1, "sha256": "", "samples": 1}


def test_a_manifest_with_another_count_is_refused(tmp_path):
    write(tmp_path, pairs(2))
    entry = json.loads((tmp_path / "manifest.json").read_text())["shards"][0]
    _edit_manifest(tmp_path, shards=[entry | {"samples": 3}])
    with pytest.raises(BadSample, match="manifest says 3 samples, the tar holds 2"):
        load_shards(tmp_path)


def test_a_sample_of_gigabytes_is_refused_unread(tmp_path):
    """A tar may hold a hole that takes no room on the disk."""
    path = write_tar(tmp_path / "x.tar", [("a.json", b""), ("b.json", b'{"prompt": "Hi?"}')])
    data, size = bytearray(path.read_bytes()), 2**31
    data[124:136] = b"%011o\0" % size
    data[148:156] = b"%06o\0 " % (sum(data[:512]) - sum(data[148:156]) + 8 * 32)
    with open(path, "wb") as file:
        file.write(data[:512])
        file.seek(size, os.SEEK_CUR)
        file.write(data[512:])
    shard = Shard(path)
    with pytest.raises(BadSample, match=rf"x.tar, sample 'a': its members have {size} bytes") as raised:
        shard.read(0)
    assert raised.value.reason is Reason.HUGE_SAMPLE
    assert shard.read(1).prompt == "Hi?"


def test_a_dotted_key_is_read_as_the_library_reads_it_and_refused(tmp_path):
    """'a.b.json' is member 'b.json' of sample 'a': not a member that a sample has."""
    shard = Shard(write_tar(tmp_path / "x.tar", [("a.b.json", b"{}"), ("a.json", b'{"prompt": "Hi?"}')]))
    assert list(shard.keys()) == ["a"]
    with pytest.raises(BadSample, match=r"x.tar, sample 'a': a sample has no member 'b.json'"):
        shard.read(0)


def test_a_shard_replaced_during_use_is_noticed(tmp_path):
    write(tmp_path, pairs(2))
    shards = load_shards(tmp_path)
    replacement = Path(write_tar(tmp_path / "new", [("k_0.json", b"{}"), ("k_1.json", b"{}")]))
    replacement.replace(tmp_path / FIRST)
    with pytest.raises(ManifestError, match="replaced while it was in use"):
        shards[0]


def test_rewritten_shards_are_read_anew(tmp_path):
    write(tmp_path, [pair("a", chosen="Old.")])
    assert load_shards(tmp_path)[0].chosen == "Old."
    write(tmp_path, [pair("a", chosen="New.")])
    assert load_shards(tmp_path)[0].chosen == "New."


def test_workers_read_what_the_main_process_reads(tmp_path):
    samples = pairs(6)
    write(tmp_path, samples, samples_per_shard=2)
    shards = load_shards(tmp_path)
    assert shards[0] == samples[0]  # opened before the workers start
    loader = DataLoader(shards, batch_size=None, num_workers=2)
    assert list(loader) == samples
    assert pickle.loads(pickle.dumps(shards))[5] == samples[5]


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.jpg").write_bytes(picture())
    readme = (Path(__file__).parents[2] / "shards" / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    exec(example, {})
    assert capsys.readouterr().out == "One.\n"


KILLED_WRITER = """
import os, signal, sys
from rlaifv_pl.data.shards import ShardWriter
from tests.data.samples import pair
with ShardWriter(sys.argv[1], recipe={"name": "r"}, samples_per_shard=2) as writer:
    for index in range(5):
        if index == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        writer.write(pair(f"k_{index}"))
"""


def test_a_killed_writer_run_again_ends_with_the_same_bytes(tmp_path):
    samples = [pair(f"k_{index}") for index in range(5)]
    undisturbed = write(tmp_path / "whole", samples, samples_per_shard=2)
    command = [sys.executable, "-c", KILLED_WRITER, str(tmp_path / "killed"), "3"]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == -signal.SIGKILL
    assert sorted(os.listdir(tmp_path / "killed")) == ["UNFINISHED", FIRST, f"{SECOND}.part"]
    with pytest.raises(ManifestError, match="unfinished"):
        load_shards(tmp_path / "killed")
    assert write(tmp_path / "killed", samples, samples_per_shard=2) == undisturbed
    assert sorted(os.listdir(tmp_path / "killed")) == sorted(os.listdir(tmp_path / "whole"))


KILLED = 9


def is_killed_before_change(number, directory):
    """Replace the shards of a directory in a process that ends before one of its changes; whether it came to that."""
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, KILLED)
        return status == KILLED
    left = number

    def end(event, args):
        nonlocal left
        is_change = event in ("os.rename", "os.remove", "os.link") or (
            event == "open" and "w" in str(args[1])
        )
        if is_change and str(args[0]).startswith(str(directory)):
            left -= 1
            if left < 0:
                os._exit(KILLED)

    try:
        sys.addaudithook(end)
        write(directory, pairs(5)[::-1], recipe="new", samples_per_shard=2, overwrite=True)
        os._exit(0)
    finally:
        os._exit(1)


def no_link(source, target):
    raise OSError("this file system has no hard links")


@pytest.mark.parametrize("has_links", [True, False])
def test_shards_that_are_replaced_are_the_old_or_the_new_ones_at_every_moment(
    tmp_path, monkeypatch, has_links
):
    if not has_links:
        monkeypatch.setattr(os, "link", no_link)
    old, new = pairs(3), pairs(5)[::-1]
    undisturbed = write(tmp_path / "whole", new, recipe="new", samples_per_shard=2)
    names = sorted(os.listdir(tmp_path / "whole"))
    seen, number, is_killed = [], 0, True
    while is_killed:
        directory = tmp_path / str(number)
        write(directory, old, recipe="old", samples_per_shard=1)
        is_killed = is_killed_before_change(number, directory)
        samples = list(load_shards(directory))
        assert samples in (old, new)
        shards = read_manifest(directory).shards
        assert [hash_file(directory / shard.name) for shard in shards] == [shard.sha256 for shard in shards]
        assert (finished_manifest(directory) is None) == (directory / "UNFINISHED").exists()
        seen.append(samples == new)
        assert write(directory, new, recipe="new", samples_per_shard=2, overwrite=True) == undisturbed
        assert sorted(os.listdir(directory)) == names and list(load_shards(directory)) == new
        number += 1
    assert seen == sorted(seen) and {False, True} == {*seen} and number > 15
