"""Rows that need no model, for actors to make: quickly, or with a death or a fault on the way."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from rlaifv_pl.feedback.chunks import Row, Rows
from rlaifv_pl.feedback.engines.engine import EngineError


def squares(some: range) -> Iterator[dict]:
    """One row a number."""
    return ({"square": number**2} for number in some)


def killed_once(note: Path, some: range) -> Iterator[dict]:
    """The process that is to make number 5 dies of it, the first time, in the middle of the part."""
    for number in some:
        if number == 5 and not note.exists():
            note.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        yield {"square": number**2}


def as_they_are(rows: Rows, some: range) -> Iterable[Row]:
    """Other rows, by a function of the tests."""
    return rows(some)


def refused(some: range) -> Iterator[dict]:
    """A model that cannot be asked."""
    raise EngineError(f"no answer about {some.start}")
    yield {}


def slow(note: Path, some: range) -> Iterator[dict]:
    """Each part tells that it was begun, and takes a while from the third on."""
    with open(note, "a") as file:
        file.write(f"{some.start}\n")
    if some.start >= 4:
        time.sleep(60)
    return squares(some)
