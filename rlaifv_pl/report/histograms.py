"""Distributions of gaps and lengths, for all samples of some shards, shown or not."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlaifv_pl.records import Sample
from rlaifv_pl.report.pairs import gap, words

BINS = 24
"""Maximum number of bins of a histogram."""


class ValueCounts:
    """Collects numbers of the pairs of some shards."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {"gap": [], "chosen": [], "rejected": []}

    def add(self, sample: Sample) -> None:
        """Note a sample's gap and the words of its sides, if it has them."""
        if (found := gap(sample)) is not None:
            self.values["gap"].append(found)
        if sample.chosen is not None and sample.rejected is not None:
            self.values["chosen"].append(words(sample.chosen))
            self.values["rejected"].append(words(sample.rejected))


def distributions(spreads: Sequence[ValueCounts]) -> dict[str, Any]:
    """Histograms of `gap` and `words`: edges for all shards together, counts and means for each of them.

    `{gap: {edges, sets: [{gap: {counts, mean}}]}, words: {edges, sets: [{chosen: ..., rejected: ...}]}}`; edges are
    empty where there is nothing to count.
    """
    return {"gap": _histograms(spreads, ("gap",)), "words": _histograms(spreads, ("chosen", "rejected"))}


def _histograms(spreads: Sequence[ValueCounts], names: tuple[str, ...]) -> dict[str, Any]:
    edges = bin_edges([value for spread in spreads for name in names for value in spread.values[name]])
    sets = [{name: _counted(spread.values[name], edges) for name in names} for spread in spreads]
    return {"edges": edges, "sets": sets}


def bin_edges(values: Sequence[float]) -> list[float]:
    """Edges of bins of equal width: one for each whole number where there are few of them.

    >>> bin_edges([1, 2, 4])
    [0.5, 1.5, 2.5, 3.5, 4.5]
    """
    if not values:
        return []
    low, high = min(values), max(values)
    if all(value == int(value) for value in values):
        width = int((high - low) // BINS) + 1
        count = int((high - low) // width) + 1
        return [low - 0.5 + width * number for number in range(count + 1)]
    return np.linspace(low, high, BINS + 1).tolist() if high > low else [low - 0.5, low + 0.5]


def _counted(values: Sequence[float], edges: Sequence[float]) -> dict[str, Any]:
    counts = np.histogram(values, edges)[0].tolist() if values else [0] * max(0, len(edges) - 1)
    return {"counts": counts, "mean": float(np.mean(values)) if values else None}
