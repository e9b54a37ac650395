"""The order in which an epoch visits its samples, and how it is dealt out to the ranks.

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
"""A batch of all ranks: the numbers of each rank's samples."""


class SampleSizes(NamedTuple):
    """What each sample takes of a device's room, and what belongs together."""

    tokens: np.ndarray
    """(n,) tokens of each sample as they are laid out; with padding, of its row."""
    prompt: np.ndarray
    """(n,) equal numbers for samples of the same prompt and images."""
    is_padded: bool
    """Whether each sample takes as much as the longest of its batch."""


class BatchBudget(NamedTuple):
    """What a device takes at a time."""

    samples: int | None = None
    tokens: int | None = None


def epoch_order(lengths: Sequence[int], seed: int, epoch: int, window: int) -> np.ndarray:
    """(n,) sample indices: shards shuffled, then samples shuffled inside windows of shards.

    Args:
        lengths: samples of each shard; indices count through the shards in their given order.
        seed: of the run.
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
    """(n,) the order with all samples of a prompt where its first one stands.

    >>> group_by_prompt(np.array([3, 0, 2, 1]), prompt=np.array([7, 8, 8, 7])).tolist()
    [3, 0, 2, 1]
    >>> group_by_prompt(np.array([3, 2, 0, 1]), prompt=np.array([7, 8, 8, 7])).tolist()
    [3, 0, 2, 1]
    """
    return order[np.argsort(_first_places(prompt[order]), kind="stable")]


def sort_by_length(order: np.ndarray, sizes: SampleSizes, stretch: int, seed: int) -> np.ndarray:
    """(n,) the order with samples of like length as neighbours, inside stretches of it.

    A stretch is sorted, cut into blocks, and the blocks are shuffled, so that lengths neither rise nor fall
    over the epoch. Neighbours of one prompt stay neighbours.

    Args:
        order: (n,) sample indices.
        sizes: of the samples.
        stretch: samples that are sorted at a time.
        seed: of the shuffle.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for first in range(0, len(order), stretch):
        part = order[first : first + stretch]
        place = _first_places(sizes.prompt[part])
        part = part[np.lexsort((place, _longest(sizes.tokens[part], place)))]
        # By where the prompt's first sample stands now, so that no block's end comes between two of them.
        block = _first_places(sizes.prompt[part]) // BLOCK
        parts.append(part[np.argsort(rng.permutation(block.max() + 1)[block], kind="stable")])
    return np.concatenate(parts) if parts else order


def _first_places(values: np.ndarray) -> np.ndarray:
    """(n,) where each value stands first."""
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    return first[which]


def _longest(tokens: np.ndarray, place: np.ndarray) -> np.ndarray:
    longest = np.zeros(len(place), dtype=tokens.dtype)
    np.maximum.at(longest, place, tokens)
    return longest[place]


def pack_batches(
    order: np.ndarray, ranks: int, room: BatchBudget, sizes: SampleSizes | None = None
) -> list[GlobalBatch]:
    """Batches of all ranks: each sample goes where there is least yet, and a batch ends with the first that
    finds no room. Neighbours of one prompt go to one rank while it has room.

    A last batch that cannot give every rank a sample is left out: `deal_every` deals it, too.

    Args:
        order: (n,) sample indices.
        ranks: number of processes.
        room: of a rank.
        sizes: of the samples; without, they count as equally large and none belong together.
    """
    if sizes is None:
        sizes = SampleSizes(np.ones(len(order), dtype=int), np.arange(len(order)), is_padded=False)
    else:
        # One that cannot be used has no token; as none it would find room on one rank for ever.
        sizes = sizes._replace(tokens=sizes.tokens[order].clip(min=1), prompt=sizes.prompt[order])
    hands = _Hands(ranks, room, sizes.is_padded)
    shares, numbers = [], zip(order.tolist(), sizes.tokens.tolist(), sizes.prompt.tolist(), strict=True)
    for number, size, prompt in numbers:
        if not hands.take(number, size, prompt):
            shares.append(hands.numbers)
            hands = _Hands(ranks, room, sizes.is_padded)
            hands.take(number, size, prompt)
    if all(hands.numbers):
        return [*shares, hands.numbers]
    if sum(map(len, hands.numbers)) < ranks:
        return shares
    # A prompt of several samples left a rank without any: now each sample counts for itself, in the order of hands.
    places = {number: place for place, number in enumerate(order.tolist())}
    rest = np.concatenate(hands.numbers).astype(int)
    tokens = sizes.tokens[[places[number] for number in rest.tolist()]]
    alone = SampleSizes(tokens, np.arange(len(rest)), sizes.is_padded)
    last = pack_batches(np.arange(len(rest)), ranks, room, alone)
    return shares + [[rest[part].tolist() for part in share] for share in last]


class _Hands:
    """What each rank has got of a batch so far."""

    def __init__(self, ranks: int, room: BatchBudget, is_padded: bool) -> None:
        self.room, self.is_padded = room, is_padded
        self.numbers: GlobalBatch = [[] for _ in range(ranks)]
        self._tokens, self._longest = [0] * ranks, [0] * ranks
        self._last = 0
        self._prompt: int | None = None
        self._by_load = [(0, rank) for rank in range(ranks)]
        """A heap of (tokens, rank); an entry whose rank has got more since is passed over."""

    def take(self, number: int, size: int, prompt: int) -> bool:
        """Give a sample to the rank of its prompt's last one, or to that with least; False where none has room."""
        is_neighbour = prompt == self._prompt and self._has_room(self._last, size)
        rank = self._last if is_neighbour else self._least(size)
        if rank is None:
            return False
        self.numbers[rank].append(number)
        self._tokens[rank] += size
        self._longest[rank] = max(self._longest[rank], size)
        self._last, self._prompt = rank, prompt
        heappush(self._by_load, (self._tokens[rank], rank))
        return True

    def _least(self, size: int) -> int | None:
        full: list[tuple[int, int]] = []
        found: int | None = None
        while self._by_load and found is None:
            load, rank = heappop(self._by_load)
            if load != self._tokens[rank]:
                continue
            if self._has_room(rank, size):
                found = rank
            elif self.room.samples is None or len(self.numbers[rank]) < self.room.samples:
                full.append((load, rank))  # A shorter sample may fit.
        for entry in full:
            heappush(self._by_load, entry)
        return found

    def _has_room(self, rank: int, size: int) -> bool:
        """A sample by itself always has."""
        count = len(self.numbers[rank]) + 1
        needed = count * max(self._longest[rank], size) if self.is_padded else self._tokens[rank] + size
        fits = (self.room.samples is None or count <= self.room.samples) and (
            self.room.tokens is None or needed <= self.room.tokens
        )
        return fits or count == 1


def split_batches(order: Sequence[int], ranks: int, size: int) -> list[GlobalBatch]:
    """Batches of all ranks with every sample in them; the last one may leave ranks without any.

    >>> split_batches([0, 1, 2, 3, 4], ranks=2, size=2)
    [[[0, 2], [1, 3]], [[4], []]]
    """
    parts = (list(order[first : first + size * ranks]) for first in range(0, len(order), size * ranks))
    return [[part[rank::ranks] for rank in range(ranks)] for part in parts]


def deal_every(
    order: np.ndarray, ranks: int, room: BatchBudget, sizes: SampleSizes | None = None
) -> list[GlobalBatch]:
    """Pack as `pack_batches` does; the samples that it leaves out are a last batch, without any for some ranks."""
    shares = pack_batches(order, ranks, room, sizes)
    return shares + split_batches(order[sum(map(samples_of, shares)) :].tolist(), ranks, size=1)


def samples_of(share: GlobalBatch) -> int:
    """Samples of a batch of all ranks."""
    return sum(map(len, share))
