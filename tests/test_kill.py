"""Short forms of `python -m tests.kill`, and that it finds what it is for.

Rounds have moments of their own in tests/rounds/test_killed.py.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kill.start import Command, Failed, Time
from tests.kill.trial import Bench, Difference
from tests.kill.works import WORKS, Work


def bench(warm, what: str, directory: Path) -> tuple[Bench, dict[str, Work]]:
    directory.mkdir()
    works = WORKS[what](directory)
    return Bench(warm, directory), works


@pytest.mark.slow
@pytest.mark.parametrize(("what", "name"), [("fit", "dpo, cached"), ("feedback", "feedback")])
def test_killed_runs_leave_what_unkilled_ones_leave(what, name, warm, tmp_path):
    trials, works = bench(warm, what, tmp_path / "here")
    # Once against real processes: a copy of the server that imported everything is one of them.
    whole = trials.whole(works[name], cold=what == "fit")
    rng = random.Random(7)
    trials.at_random(works[name], whole, rng, most=1)
    trials.at_change(works[name], whole, rng, number=sum(whole.changes) // 2)
    assert trials.tally.trials == 2 and trials.tally.kills >= 1 and trials.tally.kept
    if what == "fit":  # Each of 24 pairs in both epochs: none came twice.
        assert sum(map(len, whole.history.values())) == 2 * 24


@pytest.mark.slow
def test_another_number_of_processes_goes_on_with_the_same_samples(warm, tmp_path):
    trials, works = bench(warm, "fit", tmp_path / "here")
    (command,), one_or_two = works["dpo, one process or two"].commands, works["dpo, one process or two"]
    whole, processes = trials.whole(one_or_two, cold=False), iter((2, 1))
    again = one_or_two.again
    numbers = []

    def turns(command: Command, rng: random.Random) -> Command:
        """As drawn, but first two and then one."""
        wanted = next(processes)
        drawn = again(command, rng)
        while drawn.processes != wanted:
            drawn = again(command, rng)
        numbers.append(drawn.processes)
        return drawn

    trials.at_change(one_or_two._replace(again=turns), whole, random.Random(0), whole.changes[0] // 3)
    assert command.processes == 1 and numbers == [2, 1] and trials.tally.kills == 2
    assert len(whole.history) == 12 and {len(keys) for keys in whole.history.values()} == {4}


class Scripted:
    """Starts that do what a script says: it is given the directory and the number of the start."""

    def __init__(self, notes: Path, script: Callable[[Path, int], dict]) -> None:
        self.notes, self.script, self.number = notes, script, 0
        notes.mkdir()

    def start(self, command: Command, when: Time | None = None, moment: str = "never:") -> bool:
        self.noted = self.notes / f"{self.number:05d}"
        keys = self.script(self.directory, self.number)
        lines = [
            json.dumps({"seconds": 0, "epoch": 0, "batch": batch, "keys": some})
            for batch, some in keys.items()
        ]
        Path(f"{self.noted}-0.jsonl").write_text("\n".join(lines))
        self.number += 1
        return when is None


def equal(_directory: Path, _number: int) -> dict:
    return {0: ["a"], 1: ["b"]}


def other_bytes(directory: Path, number: int) -> dict:
    (directory / "file").write_bytes(bytes([number // 2]))
    return equal(directory, number)


def made_again(directory: Path, number: int) -> dict:
    part = directory / "stages" / "generate" / "part-000000.jsonl"
    part.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    part.write_text("{}")
    return equal(directory, number)


def lost_samples(directory: Path, number: int) -> dict:
    return {0: ["a"], 1: ["c" if number else "b"]}


def far_back(directory: Path, number: int) -> dict:
    return {batch: [str(batch)] for batch in range(9)}


def left_behind(directory: Path, number: int) -> dict:
    if number == 1:
        (directory / "file.part").touch()
    return equal(directory, number)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (other_bytes, r"\['file'\] differ"),
        (made_again, "made again after a kill: .*part-000000"),
        (lost_samples, r"other samples in \(epoch, batch\) \[\(0, 1\)\]"),
        (far_back, "9 batches were trained on again, expected at most 2"),
        (left_behind, "left behind: .*file.part"),
        (equal, None),
    ],
)
def test_a_difference_is_an_error(script, message, tmp_path):
    directory = tmp_path / "here"
    directory.mkdir()
    (directory / "file").touch()
    trials = Bench(Scripted(tmp_path / "notes", script), directory)
    work = Work([Command("train", [])], ("file",))
    whole = trials.whole(work, cold=False)._replace(seconds=[[0.1, 1.0]])
    if message is None:
        trials.at_random(work, whole, random.Random(1), most=1)
        assert trials.tally.kills == trials.tally.trials == 1
    else:
        with pytest.raises(Difference, match=message):
            trials.at_random(work, whole, random.Random(1), most=1)


def test_samples_that_come_twice_are_an_error(tmp_path):
    (tmp_path / "here").mkdir()
    trials = Bench(Scripted(tmp_path / "notes", lambda *_: {0: ["a"], 1: ["a"]}), tmp_path / "here")
    (tmp_path / "here.given" / "file").touch()
    with pytest.raises(Difference, match="came twice"):
        trials.whole(Work([Command("train", [])], ("file",)), cold=False)


def test_a_start_that_fails_says_why(warm, tmp_path):
    warm.directory = tmp_path
    with pytest.raises(Failed, match=r"exit code 2:\n(.|\n)*error: .*nonsense"):
        warm.start(Command("train", ["fit", "--nonsense", "1"]))
