"""Answers that were paid for once: a file of JSON values by the hash of what was asked."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

BUSY_SECONDS = 60.0
CHUNK = 500


class Memory:
    """Values by key in one SQLite file; several processes may use it, and a kill loses no finished `put`.

    Args:
        path: of the file; made when it is first needed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values that are known, by key."""
        known: dict[str, Any] = {}
        for first in range(0, len(keys), CHUNK):
            some = keys[first : first + CHUNK]
            marks = ", ".join("?" * len(some))
            rows = self._file.execute(f"SELECT key, value FROM answers WHERE key IN ({marks})", some)
            known |= {key: json.loads(value) for key, value in rows}
        return known

    def put(self, answers: Mapping[str, Any]) -> None:
        """Keep values, all of them or none; what is known already stays as it is."""
        rows = [(key, json.dumps(value)) for key, value in answers.items()]
        with self._file:
            self._file.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)

    @cached_property
    def _file(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(self.path, timeout=BUSY_SECONDS, check_same_thread=False)
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        return file
