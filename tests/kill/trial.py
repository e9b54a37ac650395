"""A trial: the commands of a work with kills on their way, and a comparison with what nobody killed."""

import csv
import io
import random
import re
import shutil
import time
from bisect import bisect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load

from tests.kill.record import Place, go_on, read, twice
from tests.kill.start import Cold, Command, Time, Warm
from tests.kill.works import Work

MADE = (
    "**/stages/*/part-*.jsonl",
    "**/reference-*/*.safetensors",
    "**/sizes-*/*.safetensors",
    "**/tower-*/*.safetensors",
)
"""Files that are made once: one that is there at a kill is the same one at the end."""
CHECKPOINT_STEPS = 2
BEYOND = 1.3
"""Times are drawn up to so many times what a command has before it; beyond its end it is let go."""
RECOVERY = 12
"""Changes from a start on in which a run that was killed takes up what is there."""

Files = dict[str, bytes]


class Difference(AssertionError):
    """A killed run left something else than one that nobody killed, or did something again."""


class Whole(NamedTuple):
    """What nobody killed."""

    files: Files
    history: dict[Place, list[str]]
    """Keys of the samples by epoch and batch."""
    seconds: list[list[float]]
    """When each command noted what it did, and when it ended."""
    changes: list[int]
    """Of the directory, by each command."""


@dataclass
class Tally:
    """What was done."""

    trials: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    """Kills by what had been touched last, or was about to be."""
    kept: int = 0
    """Finished parts that lay there at a kill."""
    again: int = 0
    """The most batches that one start trained on again."""

    @property
    def kills(self) -> int:
        return self.stages.total()


class Bench:
    """A directory in which a work is done again and again, from the same beginning.

    Args:
        starts: of commands.
        directory: what they work in, and always the same: paths stand in configs and manifests.
    """

    def __init__(self, starts: Warm | Cold, directory: Path) -> None:
        self.starts, self.directory, self.tally = starts, directory, Tally()
        self._given = shutil.copytree(directory, directory.with_name(directory.name + ".given"))
        starts.directory = directory

    def whole(self, work: Work, cold: bool = True) -> Whole:
        """Do it without kills, and by real processes once more unless they are what it is done by.

        Raises:
            Difference: they leave different files.
        """
        self._clear()
        history, seconds, changes = {}, [], []
        for command in work.commands:
            started = time.monotonic()
            self.starts.start(command)
            notes = read(self.starts.noted)
            seconds.append([*notes.seconds, time.monotonic() - started])
            go_on(history, notes.batches)
            changes.append(len(notes.changes))
        made = Whole(self._files(work), history, seconds, changes)
        if not made.files:
            raise Difference("the commands left nothing to compare")
        if again := twice(history):
            raise Difference(f"samples of an epoch came twice: {again[:5]}")
        if cold and not isinstance(self.starts, Cold):
            self._clear()
            for command in work.commands:
                Cold().start(command)
            _compare(made.files, self._files(work), is_close=False)
        return made

    def at_random(self, work: Work, whole: Whole, rng: random.Random, most: int) -> None:
        """Kill every command at random times until it ends before, at most so many times in all."""
        limit, trial = self.tally.kills + most, _Trial(self, work)
        for command, left in zip(work.commands, whole.seconds, strict=True):
            is_over = False
            while not is_over:
                drawn = rng.uniform(0, BEYOND * left[-1])
                spared = drawn > left[-1] or self.tally.kills >= limit
                when = None if spared else _time(left, drawn)
                is_over = trial.start(work.again(command, rng), when)
                left = _left(left, when)
        trial.compare(whole)

    def at_change(self, work: Work, whole: Whole, rng: random.Random, number: int) -> None:
        """Kill before a change of the directory, counted over all commands, and again as the run takes up what is
        there."""
        trial = _Trial(self, work)
        for command, count in zip(work.commands, whole.changes, strict=True):
            if 0 < number <= count and not trial.start(command, moment=f"change:{number}"):
                moment = f"change:{rng.randint(1, RECOVERY)}"
                if not trial.start(work.again(command, rng), moment=moment):
                    trial.start(work.again(command, rng))
            elif not 0 < number <= count:
                trial.start(command)
            number -= count
        trial.compare(whole)

    def _clear(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.copytree(self._given, self.directory)

    def _files(self, work: Work) -> Files:
        found = [path for pattern in work.outcome for path in sorted(self.directory.glob(pattern))]
        return {str(path.relative_to(self.directory)): path.read_bytes() for path in found}


class _Trial:
    """One way of a work through its kills."""

    def __init__(self, bench: Bench, work: Work) -> None:
        self.bench, self.work = bench, work
        self.history: dict[Place, list[str]] = {}
        self.made: dict[Path, tuple[int, int]] = {}
        bench._clear()

    def start(self, command: Command, when: Time | None = None, moment: str = "") -> bool:
        """Whether the command ended."""
        how = {"moment": moment} if moment else {}
        is_over = self.bench.starts.start(command, when, **how)
        notes, tally = read(self.bench.starts.noted), self.bench.tally
        again = go_on(self.history, notes.batches)
        tally.again = max(tally.again, again)
        if again > (most := CHECKPOINT_STEPS * _accumulated(command)):
            raise Difference(f"{again} batches were trained on again, expected at most {most}")
        if lost := [path for path, was in self.made.items() if _identity(path) != was]:
            raise Difference(f"made again after a kill: {lost[:5]}")
        if not is_over:
            tally.stages[notes.stage] += 1
            self.made = {
                path: _identity(path) for pattern in MADE for path in self.bench.directory.glob(pattern)
            }
            tally.kept += len(self.made)
        return is_over

    def compare(self, whole: Whole) -> None:
        """
        Raises:
            Difference: it did not end as the whole one did.
        """
        self.bench.tally.trials += 1
        _compare(whole.files, self.bench._files(self.work), self.work.is_elastic)
        if self.history != whole.history:
            wrong = sorted(
                place
                for place in {*whole.history, *self.history}
                if whole.history.get(place) != self.history.get(place)
            )
            raise Difference(f"other samples in (epoch, batch) {wrong[:5]}")
        if left := [str(path) for path in self.bench.directory.rglob("*.part")]:
            raise Difference(f"left behind: {left}")


def _time(seconds: list[float], drawn: float) -> Time:
    """A time of a command, told by what it had done: the machine may be slower by now.

    Args:
        seconds: at which it noted its lines, and ended.
        drawn: less than the last of them.
    """
    line = bisect(seconds[:-1], drawn)
    return Time(drawn - seconds[line - 1] if line else drawn, line)


def _left(seconds: list[float], killed: Time | None) -> list[float]:
    """What a command that was killed has before it: it begins again, and goes on where it was."""
    done = killed.line if killed else 0
    return [seconds[0] + time - seconds[done] for time in seconds[done:]]


def _accumulated(command: Command) -> int:
    config = Path(next((name for name in command.arguments if name.endswith(".yaml")), ""))
    found = re.search(r"accumulate_grad_batches: (\d+)", config.read_text()) if config.is_file() else None
    return int(found[1]) if found else 1


def _identity(path: Path) -> tuple[int, int] | None:
    status = path.stat() if path.exists() else None
    return status and (status.st_ino, status.st_mtime_ns)


def _compare(expected: Files, found: Files, is_close: bool) -> None:
    same: Callable[[str], bool] = lambda name: expected[name] == found[name]  # noqa: E731
    if is_close:
        same = lambda name: _are_close(name, expected[name], found[name])  # noqa: E731
    names = {*expected, *found}
    if wrong := sorted(name for name in names if name not in expected or name not in found or not same(name)):
        raise Difference(f"{wrong} differ")


def _are_close(name: str, expected: bytes, found: bytes) -> bool:
    """Whether figures differ by rounding alone."""
    if name.endswith(".csv"):
        rows = [list(csv.DictReader(io.StringIO(data.decode()))) for data in (expected, found)]
        tables = [
            torch.tensor([[float(value or 0) for value in row.values()] for row in table]) for table in rows
        ]
        return [list(row) for row in rows[0]] == [list(row) for row in rows[1]] and _near(*tables, 1e-4)
    one, two = load(expected), load(found)
    return one.keys() == two.keys() and all(_near(one[key].float(), two[key].float(), 1e-6) for key in one)


def _near(one: torch.Tensor, two: torch.Tensor, absolute: float) -> bool:
    return one.shape == two.shape and torch.allclose(one, two, rtol=1e-4, atol=absolute)
