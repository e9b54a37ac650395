"""The samples with the longest texts, tried before any other."""

import heapq
from collections.abc import Sequence
from itertools import chain
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.collate import OnBadSample
from rlaifv_pl.data.shards import ShardSet

TRIED = 32
"""Samples that are tried: one that is too long for a model is among them, unless its images make it so."""


def longest(samples: ShardSet, count: int = TRIED) -> Sequence[int]:
    """Return the numbers of the samples with the longest texts, the longest first; no sample is read."""
    sizes = list(chain.from_iterable(shard.text_sizes() for shard in samples.shards))
    return heapq.nlargest(count, range(len(sizes)), key=sizes.__getitem__)


def try_longest(samples: ShardSet, module: Any, on_bad_sample: OnBadSample) -> None:
    """Make batches of the longest samples, so that one which cannot be trained on ends a run at its start.

    What is to be left out is left out and counted later, when its turn comes.

    Raises:
        BadSample: if bad samples are not to be left out.
    """
    collate = module.collator(on_bad_sample)
    for number in longest(samples):
        try:
            collate([samples[number]])
        except BadSample:
            if on_bad_sample == "raise":
                raise
