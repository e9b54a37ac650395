"""Ways to do the same work, timed against each other."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Way = Callable[[int], object]
"""Does the work of the repeat with that number."""


@dataclass(frozen=True)
class Figures:
    """Of one way."""

    seconds: float
    """Median of the repeats, of one thread's CPU time."""
    ratio: float
    """How many times as fast as the peer: median of the ratios inside a repeat."""
    quartiles: tuple[float, float]
    """Of the ratios."""


@dataclass(frozen=True)
class Race:
    """What was timed, and what was found."""

    what: str
    peer: str
    """The way that others are compared with."""
    checked: str
    """In what the ways were found equal before they were timed."""
    ways: dict[str, Figures]


def race(what: str, ways: dict[str, Way], repeats: int, peer: str, checked: str) -> Race:
    """Time all ways in each repeat, in an order drawn anew, after one run of each that is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(0)
    for repeat in range(repeats):
        for name in random.Random(repeat).sample(list(ways), len(ways)):
            # CPU time, since others may use the machine.
            started = time.process_time()
            ways[name](repeat)
            seconds[name].append(time.process_time() - started)
    figures = {name: _figures(seconds[peer], own) for name, own in seconds.items()}
    return Race(what, peer, checked, figures)


def _figures(peer: list[float], own: list[float]) -> Figures:
    # Inside a repeat, where load on the machine weighs most alike on all ways.
    low, middle, high = np.quantile([a / b for a, b in zip(peer, own, strict=True)], [0.25, 0.5, 0.75])
    return Figures(statistics.median(own), float(middle), (float(low), float(high)))
