"""The samples with the longest texts, tried before any other."""

import heapq
from collections.abc import Sequence
from itertools import chain

from rlaifv_pl.data.loader import Collate
from rlaifv_pl.data.shards import ShardSet

TRIED = 32
"""Samples that are tried: one that is too long for a model is among them, unless its images make it so."""


def longest(samples: ShardSet, count: int = TRIED) -> Sequence[int]:
    """Return the numbers of the samples with the longest texts, the longest first; no sample is read."""
    sizes = list(chain.from_iterable(shard.text_sizes() for shard in samples.shards))
    return heapq.nlargest(count, range(len(sizes)), key=sizes.__getitem__)


def try_longest(samples: ShardSet, collate: Collate) -> None:
    """Make batches of the longest samples, so that one which cannot be trained on ends a run at its start.

    Raises:
        BadSample: if bad samples are not to be left out.
    """
    for number in longest(samples):
        collate([samples[number]])
