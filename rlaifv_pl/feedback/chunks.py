"""Long work in parts: each part's result is a file that is there whole or not at all.

A stage goes through its records slice by slice. Killed anywhere, it goes on at the first slice that
has no file; several processes share the slices out between them and leave the same files as one.

A row that is `UNFINISHED`, because a model's answer to it could not be used, makes its part unfinished: the next start
makes those rows anew, and keeps the others.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rlaifv_pl.data.atomic import atomic_file, writing
from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.launcher import this_process

Row = Mapping[str, Any]
"""One record of a part, as JSON."""
Rows = Callable[[Sequence[int]], Iterable[Row]]
"""From the numbers of some records of one part to what it holds of them."""

UNFINISHED = "unfinished"
"""Key of a row that is true where the row is to be made anew at the next start."""

POLL_SECONDS = 0.2
WAIT_SECONDS = 3600.0
"""How long one process waits for a sign of life of the others."""


class Executor(Protocol):
    """Who makes the parts of a stage."""

    @property
    def leads(self) -> bool:
        """Whether this process shows how far they are, and writes what comes of them."""

    def numbers(self, parts: "Chunks") -> range:
        """The parts that this process makes, or has made."""

    def make(self, parts: "Chunks", rows: Rows) -> Iterator[int]:
        """Make those of `numbers` that are missing; yields, part by part, the records in it."""


@dataclass(frozen=True, slots=True)
class RankShare:
    """Which of several processes this is: it makes every `of`-th part, from the `rank`-th on."""

    rank: int = 0
    of: int = 1

    @classmethod
    def of_launcher(cls) -> "RankShare":
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

    def numbers(self, parts: "Chunks") -> range:
        """As `Executor.numbers`."""
        return range(self.rank, len(parts.slices), self.of)

    def make(self, parts: "Chunks", rows: Rows) -> Iterator[int]:
        """As `Executor.make`, in this process, one after the other."""
        return parts.make(rows, self)


class Chunks:
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
        """Whether a part is there, finished or not."""
        return self.is_finished(number) or self._path(number, finished=False).is_file()

    def is_finished(self, number: int) -> bool:
        """Whether a part is there, and none of its rows is to be made anew."""
        return self._path(number).is_file()

    def make(self, rows: Rows, share: RankShare | None = None) -> Iterator[int]:
        """Make the missing parts of this process's share; yields after each the records in it.

        The unfinished rows of earlier starts are the first process's, whosever share they are in: it alone can know
        when they have been tried again.
        """
        share = share or RankShare()
        own = share.numbers(self)
        for number in own:
            if share.leads or not self.is_made(number):
                self.make_one(number, rows)
            yield len(self.slices[number])
        for number in range(len(self.slices)):
            if share.leads and number not in own and self.is_made(number):
                self.make_one(number, rows)

    def make_one(self, number: int, rows: Rows) -> None:
        """Make a part, or what is unfinished of it, unless it is there."""
        if self.is_finished(number):
            return
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        records = self.slices[number]
        if not self.is_made(number):
            self._write(number, rows(records))
            return
        earlier = dict(zip(records, self.read(number), strict=True))
        left = [record for record in records if earlier[record].get(UNFINISHED)]
        made = dict(zip(left, rows(left), strict=True))
        self._write(number, [made.get(record, earlier[record]) for record in records])

    def read(self, number: int) -> list[dict[str, Any]]:
        """The rows of a part."""
        for path in (self._path(number), self._path(number, finished=False)):
            with suppress(FileNotFoundError):
                return [json.loads(line) for line in path.read_bytes().splitlines()]
        # What was unfinished a moment ago has been finished since.
        return [json.loads(line) for line in self._path(number).read_bytes().splitlines()]

    def drop(self, number: int) -> None:
        """Have a part made anew the next time, all of it."""
        for path in (self._path(number), self._path(number, finished=False)):
            path.unlink(missing_ok=True)

    def stamp(self, number: int) -> int | None:
        """What changes when an unfinished part is made anew; None where there is none."""
        with suppress(FileNotFoundError):
            return self._path(number, finished=False).stat().st_mtime_ns
        return None

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

    def _write(self, number: int, rows: Iterable[Row]) -> None:
        rows = list(rows)
        finished = not any(row.get(UNFINISHED) for row in rows)
        lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows]
        with atomic_file(self._path(number, finished=finished)) as file:
            file.write("".join(lines).encode())
        if finished:
            self._path(number, finished=False).unlink(missing_ok=True)

    def _path(self, number: int, *, finished: bool = True) -> Path:
        return self.directory / f"part-{number:06d}{'' if finished else f'.{UNFINISHED}'}.jsonl"


def wait_for(is_there: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
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
