"""Long work in parts: each part's result is a file that is there whole or not at all.

A stage goes through its records slice by slice. Killed anywhere, it goes on at the first slice that
has no file; several processes share the slices out between them and leave the same files as one.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rlaifv_pl.data.atomic import atomic_file, writing
from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.launcher import this_process

Row = Mapping[str, Any]
"""One record of a part, as JSON."""
Rows = Callable[[range], Iterable[Row]]
"""From the numbers of some records to what a part holds of them."""

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 3600.0
"""How long one process waits for a sign of life of the others."""


class Makers(Protocol):
    """Who makes the parts of a stage."""

    @property
    def leads(self) -> bool:
        """Whether this process shows how far they are, and writes what comes of them."""

    def numbers(self, parts: "Parts") -> range:
        """The parts that this process makes, or has made."""

    def make(self, parts: "Parts", rows: Rows) -> Iterator[int]:
        """Make those of `numbers` that are missing; yields, part by part, the records in it."""


@dataclass(frozen=True, slots=True)
class Share:
    """Which of several processes this is: it makes every `of`-th part, from the `rank`-th on."""

    rank: int = 0
    of: int = 1

    @classmethod
    def of_launcher(cls) -> "Share":
        """The share of this process among those that a launcher started; all of the work without one.

        Raises:
            LauncherError: as `this_process`.
        """
        process = this_process()
        return cls(process.rank, process.world_size)

    @property
    def leads(self) -> bool:
        """Of the first process."""
        return self.rank == 0

    def numbers(self, parts: "Parts") -> range:
        """As `Makers.numbers`."""
        return range(self.rank, len(parts.slices), self.of)

    def make(self, parts: "Parts", rows: Rows) -> Iterator[int]:
        """As `Makers.make`, in this process, one after the other."""
        return parts.make(rows, self)


class Parts:
    """The files of one stage.

    Args:
        root: directory of all stages of one piece of work.
        stage: its name.
        recipe: all that decides the result, as JSON. Another recipe has other files, so that nothing
            stale is ever taken for done.
        count: of the records that the stage goes through.
        size: records a part.
    """

    def __init__(self, root: Path, stage: str, recipe: Mapping[str, Any], count: int, size: int) -> None:
        self.stage = stage
        self.hash = hash_json({"stage": stage, "recipe": recipe, "count": count, "size": size})
        self.directory = root / f"{stage}-{self.hash[:12]}"
        self.slices = [range(first, min(first + size, count)) for first in range(0, count, size)]

    def is_made(self, number: int) -> bool:
        """Whether a part is there."""
        return self._path(number).is_file()

    def make(self, rows: Rows, share: Share | None = None) -> Iterator[int]:
        """Make the missing parts of this process's share; yields after each the records in it."""
        for number in (share or Share()).numbers(self):
            self.make_one(number, rows)
            yield len(self.slices[number])

    def make_one(self, number: int, rows: Rows) -> None:
        """Make a part unless it is there."""
        if self.is_made(number):
            return
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows(self.slices[number])]
        with atomic_file(self._path(number)) as file:
            file.write("".join(lines).encode())

    def read(self, number: int) -> list[dict[str, Any]]:
        """The rows of a part."""
        return [json.loads(line) for line in self._path(number).read_bytes().splitlines()]

    def drop(self, number: int) -> None:
        """Have a part made anew the next time."""
        self._path(number).unlink()

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of all parts, in order."""
        for number in range(len(self.slices)):
            yield from self.read(number)

    def wait(self, seconds: float) -> None:
        """Wait until the other processes have made their parts.

        Raises:
            TimeoutError: a part is still missing after that many seconds without a new one.
        """
        missing, deadline = self._missing(), time.monotonic() + seconds
        while missing:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self.directory}: {len(missing)} parts of other processes are missing (the first is "
                    f"{self._path(missing[0]).name}), and none came in {seconds:g} seconds. Look at the other "
                    "processes' messages; the same command goes on from what is there."
                )
            time.sleep(POLL_SECONDS)
            if len(left := self._missing()) < len(missing):
                missing, deadline = left, time.monotonic() + seconds

    def _missing(self) -> list[int]:
        return [number for number in range(len(self.slices)) if not self.is_made(number)]

    def _path(self, number: int) -> Path:
        return self.directory / f"part-{number:06d}.jsonl"


def wait_for(is_there: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until another process has left something.

    Raises:
        TimeoutError: it did not in that many seconds.
    """
    deadline = time.monotonic() + seconds
    while not is_there():
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"Waited {seconds:g} seconds for {what}. Look at the other processes' messages."
            )
        time.sleep(POLL_SECONDS)
