"""Order in which an epoch visits its samples, and the batches of all ranks.

The order is fixed by seed, epoch and the samples alone. Batches are cut from it one after the other, so the
number of samples consumed is the whole position: equal on all ranks, independent of workers, and still right
when the size of batches or the number of ranks changes in mid-epoch.
"""

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

BLOCK = 8
"""Samples of like length that stay neighbours."""

GlobalBatch = list[list[int]]
"""Sample indices of each rank in one batch of all ranks."""


class SampleSizes(NamedTuple):
    """Tokens of each sample, and which samples share a prompt."""

    tokens: np.ndarray
    """(n,) tokens of each sample as they are laid out; with padding, of its row."""
    prompt: np.ndarray
    """(n,) equal numbers for samples of the same prompt and images."""
    is_padded: bool
    """Whether each sample takes as many tokens as the longest of its batch."""


class BatchBudget(NamedTuple):
    """Limits of a device and batch; None for no limit."""

    samples: int | None = None
    tokens: int | None = None


def epoch_order(lengths: Sequence[int], seed: int, epoch: int, window: int) -> np.ndarray:
    """Return (n,) sample indices: shards shuffled, then samples shuffled inside windows of shards.

    Args:
        lengths: samples of each shard; indices count through the shards in their given order.
        seed: seed of the run.
        epoch: from 0.
        window: shards that are open at a time; more mixes better and seeks more.
    """
    rng = np.random.default_rng([seed, epoch])
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(int)
    shards = rng.permutation(len(lengths))
    parts = []
    for first in range(0, len(shards), window):
        inside = [np.arange(starts[shard], starts[shard + 1]) for shard in shards[first : first + window]]
        parts.append(rng.permutation(np.concatenate(inside)))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=int)


def group_by_prompt(order: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """Return the (n,) order with all samples of a prompt at the place of its first one.

    >>> group_by_prompt(np.array([3, 0, 2, 1]), prompt=np.array([7, 8, 8, 7])).tolist()
    [3, 0, 2, 1]
    >>> group_by_prompt(np.array([3, 2, 0, 1]), prompt=np.array([7, 8, 8, 7])).tolist()
    [3, 0, 2, 1]
    """
    return order[np.argsort(_first_places(prompt[order]), kind="stable")]


def sort_by_length(order: np.ndarray, sizes: SampleSizes, bucket: int, seed: int) -> np.ndarray:
    """Return the (n,) order with samples of like length as neighbours, inside buckets of it.

    A bucket is sorted, cut into blocks, and the blocks are shuffled, so that lengths neither rise nor fall
    over the epoch. Neighbours of one prompt stay neighbours.

    Args:
        order: (n,) sample indices.
        sizes: sizes of all samples.
        bucket: samples that are sorted at a time.
        seed: seed of the shuffle.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for first in range(0, len(order), bucket):
        part = order[first : first + bucket]
        place = _first_places(sizes.prompt[part])
        part = part[np.lexsort((place, _longest(sizes.tokens[part], place)))]
        # By the place of the prompt's first sample, so that no block ends between two of its samples.
        block = _first_places(sizes.prompt[part]) // BLOCK
        parts.append(part[np.argsort(rng.permutation(block.max() + 1)[block], kind="stable")])
    return np.concatenate(parts) if parts else order


def _first_places(values: np.ndarray) -> np.ndarray:
    """Return (n,) the index of each value's first occurrence."""
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    return first[which]


def _longest(tokens: np.ndarray, place: np.ndarray) -> np.ndarray:
    longest = np.zeros(len(place), dtype=tokens.dtype)
    np.maximum.at(longest, place, tokens)
    return longest[place]


def pack_batches(
    order: np.ndarray, ranks: int, budget: BatchBudget, sizes: SampleSizes | None = None
) -> list[GlobalBatch]:
    """Pack samples into batches of all ranks: each goes to the rank with fewest tokens; the first that fits nowhere
    begins the next batch. Neighbours of one prompt go to one rank while its budget lasts.

    A last batch that cannot give every rank a sample is left out; `pack_all_batches` includes it.

    Args:
        order: (n,) sample indices.
        ranks: number of processes.
        budget: limits of a rank.
        sizes: sizes of all samples; without it, they count as equally large and no two share a prompt.
    """
    if sizes is None:
        sizes = SampleSizes(np.ones(len(order), dtype=int), np.arange(len(order)), is_padded=False)
    else:
        # An unusable sample has no tokens; counted as none, such samples would go to one rank without end.
        sizes = sizes._replace(tokens=sizes.tokens[order].clip(min=1), prompt=sizes.prompt[order])
    batch = _BatchBuilder(ranks, budget, sizes.is_padded)
    batches = []
    for index, size, prompt in zip(order.tolist(), sizes.tokens.tolist(), sizes.prompt.tolist(), strict=True):
        if not batch.add(index, size, prompt):
            batches.append(batch.indices)
            batch = _BatchBuilder(ranks, budget, sizes.is_padded)
            batch.add(index, size, prompt)
    if all(batch.indices):
        return [*batches, batch.indices]
    if count_samples(batch.indices) < ranks:
        return batches
    # A prompt of several samples left a rank without any: pack these again, each by itself.
    places = {index: place for place, index in enumerate(order.tolist())}
    rest = np.concatenate(batch.indices).astype(int)
    tokens = sizes.tokens[[places[index] for index in rest.tolist()]]
    alone = SampleSizes(tokens, np.arange(len(rest)), sizes.is_padded)
    last = pack_batches(np.arange(len(rest)), ranks, budget, alone)
    return batches + [[rest[part].tolist() for part in repacked] for repacked in last]


class _BatchBuilder:
    """One batch of all ranks while it is filled."""

    def __init__(self, ranks: int, budget: BatchBudget, is_padded: bool) -> None:
        self.budget, self.is_padded = budget, is_padded
        self.indices: GlobalBatch = [[] for _ in range(ranks)]
        self._tokens, self._longest = [0] * ranks, [0] * ranks
        self._last_rank = 0
        self._last_prompt: int | None = None
        self._by_load = [(0, rank) for rank in range(ranks)]
        """Heap of (tokens, rank); an entry is stale once its rank has got more."""

    def add(self, index: int, size: int, prompt: int) -> bool:
        """Add a sample to the rank of the same prompt's last one, or to the least loaded; return False if none fits."""
        is_neighbour = prompt == self._last_prompt and self._fits(self._last_rank, size)
        rank = self._last_rank if is_neighbour else self._least_loaded(size)
        if rank is None:
            return False
        self.indices[rank].append(index)
        self._tokens[rank] += size
        self._longest[rank] = max(self._longest[rank], size)
        self._last_rank, self._last_prompt = rank, prompt
        heappush(self._by_load, (self._tokens[rank], rank))
        return True

    def _least_loaded(self, size: int) -> int | None:
        full: list[tuple[int, int]] = []
        least: int | None = None
        while self._by_load and least is None:
            load, rank = heappop(self._by_load)
            if load != self._tokens[rank]:
                continue
            if self._fits(rank, size):
                least = rank
            elif self.budget.samples is None or len(self.indices[rank]) < self.budget.samples:
                full.append((load, rank))  # A shorter sample may fit.
        for entry in full:
            heappush(self._by_load, entry)
        return least

    def _fits(self, rank: int, size: int) -> bool:
        """Return whether a sample fits the rank's budget; one by itself always does."""
        count = len(self.indices[rank]) + 1
        tokens = count * max(self._longest[rank], size) if self.is_padded else self._tokens[rank] + size
        fits = (self.budget.samples is None or count <= self.budget.samples) and (
            self.budget.tokens is None or tokens <= self.budget.tokens
        )
        return fits or count == 1


def split_batches(order: Sequence[int], ranks: int, size: int) -> list[GlobalBatch]:
    """Cut every sample into batches of all ranks; the last one may leave ranks without any.

    >>> split_batches([0, 1, 2, 3, 4], ranks=2, size=2)
    [[[0, 2], [1, 3]], [[4], []]]
    """
    parts = (list(order[first : first + size * ranks]) for first in range(0, len(order), size * ranks))
    return [[part[rank::ranks] for rank in range(ranks)] for part in parts]


def pack_all_batches(
    order: np.ndarray, ranks: int, budget: BatchBudget, sizes: SampleSizes | None = None
) -> list[GlobalBatch]:
    """Pack as `pack_batches` does, with what it leaves out as a last batch, in which ranks may have no sample."""
    batches = pack_batches(order, ranks, budget, sizes)
    return batches + split_batches(order[sum(map(count_samples, batches)) :].tolist(), ranks, size=1)


def count_samples(batch: GlobalBatch) -> int:
    """Return the number of samples in a batch of all ranks."""
    return sum(map(len, batch))
