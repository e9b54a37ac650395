"""The terminal: one console for whatever is said on stderr, so that a line never stands between a bar's frames."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as _bar

stderr = Console(stderr=True)
"""For messages and bars. A bar knows of what is printed by its own console alone, and draws itself anew below it."""
SECONDS = 30.0
"""Between the lines that stand for a bar where stderr is no terminal but, say, a log file."""

Item = TypeVar("Item")


def track(items: Iterable[Item], title: str, total: int, *, is_shown: bool = True) -> Iterator[Item]:
    """Show how far a long work is: as a bar on a terminal, in lines anywhere else.

    Args:
        items: whose number is known.
        title: of the work.
        total: number of the items.
        is_shown: false for the processes that work along.
    """
    if not is_shown:
        yield from items
    elif stderr.is_terminal:
        yield from _bar(items, title, total, console=stderr)
    else:
        pace = Pace()
        for done, item in enumerate(items):
            pace.tell(title, done, total)
            yield item


class Pace:
    """Says from time to time how far a work is."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = SECONDS if seconds is None else seconds
        self._began = self._told = time.monotonic()

    def tell(self, title: str, done: int, total: int, more: str = "") -> None:
        """Print a line, unless the last one was printed a moment ago.

        Args:
            title: of the work.
            done, total: items that are done, of all.
            more: what else there is to say.
        """
        now = time.monotonic()
        if done and now - self._told >= self._seconds:
            self._told, spent = now, now - self._began
            left = spent / done * (total - done)
            line = f"{title}: {done} of {total}, {spent:.0f} s, about {left:.0f} s left{more}"
            stderr.print(line, markup=False, highlight=False, soft_wrap=True)
