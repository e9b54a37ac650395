"""Answers that were paid for once: a file of JSON values by the hash of what was asked."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from rlaifv_pl.errors import UserError

BUSY_SECONDS = 60.0
CHUNK = 500

COLUMNS = [("key", "TEXT"), ("value", "TEXT")]


class CacheFileError(UserError, RuntimeError):
    """The cache file is damaged, is another kind of file, or cannot be used; the message says what to do."""


class ResponseCache:
    """Values by key in one SQLite file; several processes may use it, and a kill loses no finished `put`.

    Args:
        path: of the file; made when it is first needed. On a disk that several machines share, its
            file locks must work. `:memory:` for no file: values last as long as the object.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._alone = Lock()

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values that are known, by key.

        Raises:
            CacheFileError: the file cannot be read.
        """
        known: dict[str, Any] = {}
        with self._used():
            for first in range(0, len(keys), CHUNK):
                some = keys[first : first + CHUNK]
                marks = ", ".join("?" * len(some))
                rows = self._file.execute(f"SELECT key, value FROM answers WHERE key IN ({marks})", some)
                known |= {key: json.loads(value) for key, value in rows}
        return known

    def put(self, answers: Mapping[str, Any]) -> None:
        """Keep values, all of them or none; what is known already stays as it is.

        Raises:
            CacheFileError: the file cannot be written.
            TypeError, ValueError: a value is no JSON.
        """
        rows = [(key, json.dumps(value, allow_nan=False)) for key, value in answers.items()]
        with self._used(), self._file:
            self._file.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)

    @contextmanager
    def _used(self) -> Iterator[None]:
        """One thread at a time, and what is wrong with the file in words."""
        try:
            with self._alone:
                yield
        except (sqlite3.Error, OSError, ValueError) as error:
            raise CacheFileError(
                f"{self.path} cannot be used as a cache of answers ({error}). If it is another program's file, give "
                "another path. If it is damaged, move it away: it is made anew, and what it held is asked again. If "
                "it is locked or not writable, look at the processes that use it and at the disk."
            ) from error

    @cached_property
    def _file(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level="IMMEDIATE", check_same_thread=False
        )
        # The default journal, not the write-ahead one, which several machines cannot share. A power
        # cut may lose the last answers; a kill does not.
        file.execute("PRAGMA synchronous=NORMAL")
        with file:
            file.execute("BEGIN IMMEDIATE")
            if not file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                file.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        columns = [row[1:3] for row in file.execute("PRAGMA table_info(answers)")]
        if columns != COLUMNS:
            raise ValueError("it is a database of something else")
        return file
