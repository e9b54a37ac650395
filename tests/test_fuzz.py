"""The short form of `python -m tests.fuzz`, and that it can fail."""

import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlaifv_pl.data.images import open_image
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.data.shards import Shard
from tests.fuzz import run
from tests.fuzz.__main__ import main
from tests.fuzz.run import KINDS, Fuzzer

SEED, CASES = 5, 60

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="memory is measured as Linux tells of it"
)


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Fuzzer:
    return Fuzzer(SEED, tmp_path_factory.mktemp("fuzz"))


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of a case of shards, without its damage."""
    monkeypatch.setattr(Fuzzer, "_damage", lambda *_: None)
    return [name for name, _ in KINDS].index("picture")


@pytest.mark.slow
def test_no_case_is_a_breach(fuzzer: Fuzzer):
    """Every kind at least twice."""
    found = [fuzzer.run(number) for number in range(CASES)]
    assert not [outcome for outcome in found if outcome.is_breach]
    assert min(Counter(outcome.kind for outcome in found)[name] for name, _ in KINDS) == 2
    assert {outcome.said.split()[0] for outcome in found} == {"whole", "skipped", "refused"}


def test_a_case_is_decided_by_seed_and_number(fuzzer: Fuzzer, tmp_path: Path):
    first, again, other = fuzzer.run(0), fuzzer.run(0), Fuzzer(SEED + 1, tmp_path).run(0)
    assert first == again != other


def test_sound_data_comes_whole(fuzzer: Fuzzer, untouched: int):
    assert fuzzer.run(untouched).said == "whole"


def _swapped(read):
    """Each sample with the images of its neighbour, where both have one."""
    return lambda shard, index: replace(
        read(shard, index), images=read(shard, (index + 1) % len(shard)).images
    )


def _lost(read):
    return lambda shard, index: replace(read(shard, index), chosen="It is something else.")


def _unnamed(read):
    def fail(shard, index):
        if "/case/" in shard.path:
            raise KeyError(index)
        return read(shard, index)

    return fail


def _greedy(read):
    return lambda shard, index: (np.empty(2**31, np.uint8), read(shard, index))[1]


def _filling(read):
    """Once a pass: it is the memory that must be noticed first, and not the time that it takes to fill it."""
    return lambda shard, index: (
        b"x" * (2**28 * (shard.path.endswith("00.tar") and not index)),
        read(shard, index),
    )[1]


def _endless(read):
    def hang(shard, index):
        while True:
            pass

    return hang


def _writing(read):
    def write(shard, index):
        Path(shard.path).with_name("index").write_text("x")
        return read(shard, index)

    return write


def _changing(read):
    def touch(shard, index):
        os.utime(shard.path, ns=(0, time.time_ns()))
        return read(shard, index)

    return touch


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        (_swapped, "shows what belongs to"),
        (_lost, "was not damaged, but comes as"),
        (_unnamed, "KeyError"),
        (_greedy, "MiB of VmPeak"),
        (_filling, "MiB of VmHWM"),
        (_endless, "SIGXCPU"),
        (_writing, r"changed ['case/shards/index']"),
        (_changing, "changed ['case/shards/shard-000000.tar'"),
    ],
)
def test_a_reader_at_fault_is_a_breach(fuzzer: Fuzzer, untouched: int, monkeypatch, reader, said: str):
    monkeypatch.setattr(Shard, "read", reader(Shard.read))
    monkeypatch.setattr(run, "CPU_SECONDS", 2)
    monkeypatch.setattr(run, "RESIDENT", 2**27)
    outcome = fuzzer.run(untouched)
    assert outcome.is_breach and said in outcome.said


def test_batches_with_the_images_of_others_are_a_breach(fuzzer: Fuzzer, untouched: int, monkeypatch):
    """Here the samples are right, and the collator shows all of a batch the same image."""
    first = []

    def same(images, where):
        first[:] = first or [open_image(images[0], where)]
        return first * len(images)

    monkeypatch.setattr("rlaifv_pl.data.collate.open_images", same)
    outcome = fuzzer.run(untouched)
    assert outcome.is_breach and "is shown the image of" in outcome.said


def test_a_change_that_verify_does_not_see_is_a_breach(fuzzer: Fuzzer, monkeypatch):
    def flip(fuzzer, case, kind, group):
        path = case.shards / "shard-000000.tar"
        path.write_bytes(path.read_bytes().replace(b"It is", b"It as", 1))
        case.touched.add("*")

    monkeypatch.setattr(Fuzzer, "_damage", flip)
    assert not fuzzer.run(0).is_breach
    hashes = {info.name: info.sha256 for info in read_manifest(fuzzer.home / "pristine").shards}
    monkeypatch.setattr("rlaifv_pl.cli.shards.hash_file", lambda path: hashes[path.name])
    outcome = fuzzer.run(0)
    assert outcome.is_breach and "verify did not see it" in outcome.said


def test_a_breach_is_told_with_the_command_that_repeats_it(monkeypatch, capsys):
    monkeypatch.setattr(Shard, "read", _unnamed(Shard.read))
    monkeypatch.setattr(Fuzzer, "_damage", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        main(cases=1, seed=4)
    printed = capsys.readouterr().out
    assert end.value.code == 1
    assert "KeyError" in printed and "again: python -m tests.fuzz --seed 4 --only 0" in printed
    assert "1 cases, 1 breaches" in printed
