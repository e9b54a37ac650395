"""Long work in chunks: each chunk of a stage's records is one file, whole or absent.

Killed anywhere, a stage continues at the first chunk without a file. Several processes share the chunks and leave the
same files as one.

A row that is `UNFINISHED`, because a model's answer to it could not be used, makes its chunk unfinished: the next start
computes those rows again and keeps the others.
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
"""A record of a chunk, as JSON."""
Rows = Callable[[Sequence[int]], Iterable[Row]]
"""Maps the numbers of some records of one chunk to their rows."""

UNFINISHED = "unfinished"
"""Key of a row; true if the next start has to compute the row again."""

POLL_SECONDS = 0.2
WAIT_SECONDS = 3600.0
"""Longest wait for another process to write a file."""


class Executor(Protocol):
    """Runs a stage: computes its missing chunks."""

    @property
    def is_main_process(self) -> bool:
        """True for the process that shows progress and writes the result."""

    def numbers(self, chunks: "Chunks") -> range:
        """Return the numbers of the chunks that this process is responsible for."""

    def make(self, chunks: "Chunks", rows: Rows) -> Iterator[int]:
        """Make the missing chunks among `numbers`; yield the number of records of each."""


@dataclass(frozen=True, slots=True)
class RankShare:
    """The chunks of one of several processes: every `world_size`-th, from the `rank`-th on."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_launcher(cls) -> "RankShare":
        """Return the share of this process among those that a launcher started; without a launcher, all chunks.

        Raises:
            LauncherError: the launcher's variables contradict each other.
        """
        process = this_process()
        return cls(process.rank, process.world_size)

    @property
    def is_main_process(self) -> bool:
        """True for rank 0."""
        return self.rank == 0

    def numbers(self, chunks: "Chunks") -> range:
        """Return the numbers of this rank's chunks."""
        return range(self.rank, len(chunks.slices), self.world_size)

    def make(self, chunks: "Chunks", rows: Rows) -> Iterator[int]:
        """Make this rank's missing chunks in this process; yield the number of records of each."""
        return chunks.make(rows, self)


class Chunks:
    """The files of one stage.

    Args:
        root: directory of all stages.
        stage: name of the stage.
        recipe: everything that decides the result, as JSON. Another recipe has other files, so that a stale result is
            never reused.
        count: number of records of the stage.
        size: records per chunk.
    """

    def __init__(self, root: Path, stage: str, recipe: Mapping[str, Any], count: int, size: int) -> None:
        self.stage = stage
        self.hash = hash_json({"stage": stage, "recipe": recipe, "count": count, "size": size})
        self.directory = root / f"{stage}-{self.hash[:12]}"
        self.slices = [range(first, min(first + size, count)) for first in range(0, count, size)]

    def is_made(self, number: int) -> bool:
        """Return whether a chunk has a file, finished or not."""
        return self.is_finished(number) or self._path(number, finished=False).is_file()

    def is_finished(self, number: int) -> bool:
        """Return whether a chunk has a file without unfinished rows."""
        return self._path(number).is_file()

    def make(self, rows: Rows, share: RankShare | None = None) -> Iterator[int]:
        """Make the missing chunks of this process's share; yield the number of records of each.

        Unfinished rows of earlier starts belong to the main process, whatever their chunk: it alone can know that they
        have been tried again.
        """
        share = share or RankShare()
        own = share.numbers(self)
        for number in own:
            if share.is_main_process or not self.is_made(number):
                self.make_one(number, rows)
            yield len(self.slices[number])
        for number in range(len(self.slices)):
            if share.is_main_process and number not in own and self.is_made(number):
                self.make_one(number, rows)

    def make_one(self, number: int, rows: Rows) -> None:
        """Make a chunk, or its unfinished rows; a finished chunk is kept."""
        if self.is_finished(number):
            return
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        records = self.slices[number]
        if not self.is_made(number):
            self._write(number, rows(records))
            return
        current: dict[int, Row] = dict(zip(records, self.read(number), strict=True))
        unfinished = [record for record in records if current[record].get(UNFINISHED)]
        current.update(zip(unfinished, rows(unfinished), strict=True))
        self._write(number, current.values())

    def read(self, number: int) -> list[dict[str, Any]]:
        """Return the rows of a chunk."""
        for finished in (True, False):
            with suppress(FileNotFoundError):
                return _read(self._path(number, finished=finished))
        # Another process has finished it between the two looks.
        return _read(self._path(number))

    def drop(self, number: int) -> None:
        """Delete a chunk, so that all of it is made again."""
        for path in (self._path(number), self._path(number, finished=False)):
            path.unlink(missing_ok=True)

    def stamp(self, number: int) -> int | None:
        """Return the time of an unfinished chunk's file in nanoseconds, or None without one."""
        with suppress(FileNotFoundError):
            return self._path(number, finished=False).stat().st_mtime_ns
        return None

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of all chunks, in order."""
        for number in range(len(self.slices)):
            yield from self.read(number)

    def wait(self, seconds: float) -> None:
        """Wait until the other processes have made their chunks.

        Raises:
            TimeoutError: a chunk is missing, and no new one came in that many seconds.
        """
        missing, deadline = self._missing(), time.monotonic() + seconds
        while missing:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self.directory}: {len(missing)} parts of other processes are missing (the first is "
                    f"{self._path(missing[0]).name}), and none came in {seconds:g} seconds. Look at the other "
                    "processes' messages; the same command continues from what is there."
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


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def wait_for(is_there: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait until another process has written a file.

    Args:
        is_there: returns whether it is there.
        what: name of the file, for the error.
        seconds: longest wait.

    Raises:
        TimeoutError: it is not there after that many seconds.
    """
    deadline = time.monotonic() + seconds
    while not is_there():
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"Waited {seconds:g} seconds for {what}. Look at the other processes' messages."
            )
        time.sleep(POLL_SECONDS)
