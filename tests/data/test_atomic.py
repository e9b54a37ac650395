"""Files whole or not at all, whatever the system says while they are written."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from rlaifv_pl.data.atomic import REMEDIES, WriteError, atomic_file, explain_disk_error, writing
from rlaifv_pl.data.shards import ShardWriter, load_shards
from rlaifv_pl.data.sidecar import SidecarError, Sidecars
from rlaifv_pl.feedback.chunks import Chunks
from rlaifv_pl.feedback.engines.response_cache import CacheFileError, ResponseCache
from tests.data.samples import pair, picture
from tests.disk import Disk, longest_file, mounted


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", "1m") as made:
        yield made


def broken(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """A call of the system that fails from now on."""

    def fails(*_args, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(f"rlaifv_pl.data.atomic.{call}", fails, raising=False)


@pytest.mark.parametrize("call", ["open", "os.fsync", "os.replace"])
@pytest.mark.parametrize("number", REMEDIES)
def test_what_the_system_refuses_is_named_and_the_old_file_stays(tmp_path, monkeypatch, call, number):
    path = tmp_path / "file"
    path.write_text("old")
    with monkeypatch.context() as patch:
        broken(patch, call, number)
        with pytest.raises(WriteError) as caught, atomic_file(path, 3_000_000) as file:
            file.write(b"new")
    said = str(caught.value)
    assert said.startswith(f"{path} cannot be written: {os.strerror(number)}") and REMEDIES[number] in said
    assert ("at least 3.0 MB needed, " in said) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert [name.read_text() for name in tmp_path.iterdir()] == ["old"]
    with atomic_file(path) as file:
        file.write(b"new")
    assert path.read_text() == "new"


def test_errors_of_something_else_pass_as_they_are(tmp_path):
    for error in (
        ValueError("no"),
        OSError(errno.ENOENT, "gone"),
        PermissionError(errno.EACCES, "no", "/a/b"),
    ):
        with pytest.raises(type(error)) as caught, atomic_file(tmp_path / "file"):
            raise error
        assert caught.value is error and not list(tmp_path.iterdir())


def test_the_first_file_that_could_not_be_written_is_told_of(tmp_path):
    """What follows from it on the way out is not the news."""
    with pytest.raises(Exception) as caught:
        try:
            with writing(tmp_path / "first"):
                raise OSError(errno.ENOSPC, "full")
        finally:
            with writing(tmp_path / "second"):
                raise OSError(errno.ENOSPC, "full")
    assert explain_disk_error(caught.value).filename == str(tmp_path / "first")


def test_libraries_hide_what_the_system_says(tmp_path):
    """The serialiser of torch says something of positions, those in Rust have errors of their own."""
    tokenizer = Tokenizer(WordLevel({f"word{number}": number for number in range(9999)}, "word0"))
    writers = {
        "tensors": lambda path: save_file({"a": torch.ones(99_999)}, path),
        "words": lambda path: tokenizer.save(str(path)),
        "torch": lambda path: torch.save(torch.ones(99_999), path.open("wb")),
    }
    for name, write in writers.items():
        with (
            longest_file(50_000),
            pytest.raises(WriteError, match=f"{name} cannot be written: File too large"),
            writing(tmp_path / name),
        ):
            write(tmp_path / name)


def test_shards_on_a_full_disk(disk: Disk):
    """The same command again, once there is room, makes what it would have made."""
    directory = disk.path / "shards"

    def write() -> None:
        with ShardWriter(directory, recipe={}, samples_per_shard=20) as writer:
            for number in range(50):
                writer.write(pair(f"k{number}", images=(picture(colour=number),)))

    with ShardWriter(disk.path / "other", recipe={}) as writer:
        writer.write(pair("a"))
    disk.leave(120_000)
    with pytest.raises(
        WriteError, match=r"shard-00000\d.tar cannot be written: No space .* free\)\. Make room"
    ):
        write()
    left = {path.name for path in directory.iterdir()}
    assert (
        "UNFINISHED" in left
        and "manifest.json" not in left
        and not any(name.endswith(".part") for name in left)
    )
    assert len(load_shards(disk.path / "other")) == 1
    disk.empty()
    write()
    assert len(load_shards(directory)) == 50


def test_parts_of_a_stage_on_a_full_disk(disk: Disk):
    made, parts = [], Chunks(disk.path, "think", {}, count=4, size=1)

    def think(some: range) -> list[dict]:
        made.append(some.start)
        return [{"text": "x" * 30_000}]

    disk.leave(80_000)
    with pytest.raises(WriteError, match=r"part-000002.jsonl cannot be written: No space left"):
        list(parts.make(think))
    assert [parts.is_made(number) for number in range(4)] == [True, True, False, False]
    disk.empty()
    assert list(parts.make(think)) == [1, 1, 1, 1] and made == [0, 1, 2, 2, 3]
    assert len(list(parts.directory.iterdir())) == 4


@pytest.fixture
def sidecars(disk: Disk) -> Sidecars:
    with ShardWriter(disk.path / "shards", recipe={}, samples_per_shard=1) as writer:
        for number in range(2):
            writer.write(pair(f"k{number}"))
    return Sidecars(load_shards(disk.path / "shards"), "results", {})


def test_sidecars_on_a_full_disk(disk: Disk, sidecars: Sidecars):
    value = [{"row": torch.ones(10_000)}]
    disk.leave(60_000)
    sidecars.write(0, value)
    with pytest.raises(SidecarError, match=r"No space left on device \(at least 40.* kB needed, .* free\)"):
        sidecars.write(1, value)
    assert sidecars.missing() == [1] and len(list(sidecars.path(0).parent.iterdir())) == 1
    disk.empty()
    sidecars.write(1, value)
    assert sidecars.missing() == []


def test_sidecars_where_nobody_may_write(disk: Disk, sidecars: Sidecars):
    disk.protect()
    with pytest.raises(SidecarError, match=r"Read-only file system\. .*--data\.cache_dir"):
        sidecars.write(0, [{"row": torch.ones(1)}])


def test_a_memory_of_answers_on_a_full_disk(disk: Disk):
    """What it took it keeps, and goes on with."""
    memory, kept = ResponseCache(disk.path / "answers.sqlite"), {}
    memory.put({"first": 1})
    disk.leave(40_000)
    with pytest.raises(CacheFileError, match=r"full.*look at the processes that use it and at the disk"):
        for number in range(40):
            memory.put({f"k{number}": "x" * 3000})
            kept[f"k{number}"] = "x" * 3000
    assert 0 < len(kept) < 20
    disk.empty()
    again = ResponseCache(disk.path / "answers.sqlite")
    assert again.get(["first", *kept]) == {"first": 1} | kept
    again.put({"last": 2})
    assert again.get(["last"]) == {"last": 2}
