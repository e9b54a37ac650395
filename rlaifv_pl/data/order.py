"""The order in which an epoch visits its samples, and how it is dealt out to the ranks.

The order is fixed by seed, epoch and the samples alone. Batches are cut from it one after the other, so the
number of samples consumed is the whole position: equal on all ranks, independent of workers, and still right
when the size of batches or the number of ranks changes in mid-epoch.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

import numpy as np

BLOCK = 8
"""Samples of like length that stay neighbours."""

Deal = list[list[int]]
"""A batch of all ranks: the numbers of each rank's samples."""


class Sizes(NamedTuple):
    """What each sample takes of a device's room, and what belongs together."""

    tokens: np.ndarray
    """(n,) tokens of each sample as they are laid out; with padding, of its row."""
    prompt: np.ndarray
    """(n,) equal numbers for samples of the same prompt and images."""
    is_padded: bool
    """Whether each sample takes as much as the longest of its batch."""


class Room(NamedTuple):
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


def bring_together(order: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """(n,) the order with all samples of a prompt where its first one stands.

    >>> bring_together(np.array([3, 0, 2, 1]), prompt=np.array([7, 8, 8, 7])).tolist()
    [3, 0, 2, 1]
    >>> bring_together(np.array([3, 2, 0, 1]), prompt=np.array([7, 8, 8, 7])).tolist()
    [3, 0, 2, 1]
    """
    return order[np.argsort(_first_places(prompt[order]), kind="stable")]


def sort_by_length(order: np.ndarray, sizes: Sizes, stretch: int, seed: int) -> np.ndarray:
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


def deal(order: np.ndarray, ranks: int, room: Room, sizes: Sizes | None = None) -> list[Deal]:
    """Batches of all ranks: each sample goes where there is least yet, and a batch ends with the first that
    finds no room. Neighbours of one prompt go to one rank while it has room.

    A last batch that cannot give every rank a sample is left out, since some would wait for the others.

    Args:
        order: (n,) sample indices.
        ranks: number of processes.
        room: of a rank.
        sizes: of the samples; without, they count as equally large and none belong together.
    """
    shares: list[Deal] = []
    hands, last = [_Hand() for _ in range(ranks)], _Hand()
    for number in order.tolist():
        size, prompt = (int(sizes.tokens[number]), sizes.prompt[number]) if sizes else (1, number)
        is_padded = sizes is not None and sizes.is_padded
        roomy = [hand for hand in hands if hand.has_room(size, room, is_padded)]
        if not roomy:
            shares.append([hand.numbers for hand in hands])
            roomy = hands = [_Hand() for _ in range(ranks)]
        if last.prompt != prompt or last not in roomy:
            last = min(roomy, key=attrgetter("tokens"))
        last.take(number, size, prompt)
    return shares + _deal_rest([hand.numbers for hand in hands], room, sizes)


@dataclass(eq=False, slots=True)
class _Hand:
    """What a rank has got of a batch so far."""

    numbers: list[int] = field(default_factory=list)
    tokens: int = 0
    longest: int = 0
    prompt: int | None = None
    """Of its last sample."""

    def has_room(self, size: int, room: Room, is_padded: bool) -> bool:
        """A sample by itself always has."""
        count = len(self.numbers) + 1
        needed = count * max(self.longest, size) if is_padded else self.tokens + size
        fits = (room.samples is None or count <= room.samples) and (
            room.tokens is None or needed <= room.tokens
        )
        return fits or count == 1

    def take(self, number: int, size: int, prompt: int) -> None:
        self.numbers.append(number)
        self.tokens, self.longest, self.prompt = self.tokens + size, max(self.longest, size), prompt


def deal_all(order: Sequence[int], ranks: int, size: int) -> list[Deal]:
    """Batches of all ranks with every sample in them; the last one may leave ranks without any.

    >>> deal_all([0, 1, 2, 3, 4], ranks=2, size=2)
    [[[0, 2], [1, 3]], [[4], []]]
    """
    parts = (list(order[first : first + size * ranks]) for first in range(0, len(order), size * ranks))
    return [[part[rank::ranks] for rank in range(ranks)] for part in parts]


def _deal_rest(share: Deal, room: Room, sizes: Sizes | None) -> list[Deal]:
    if all(share):
        return [share]
    rest = np.concatenate(share).astype(int)
    if len(rest) < len(share):
        return []
    # A prompt of several samples left a rank without any: now each sample counts for itself.
    return deal(rest, len(share), room, sizes._replace(prompt=np.arange(len(sizes.prompt))))


class Turn(NamedTuple):
    """A rank's batch, and what it is among those that are computed with it."""

    numbers: list[int]
    """Of the samples. A rank that has none computes one of another's, since models in slices compute in step."""
    among: int
    """Samples of all ranks' batches."""
    share: float
    """What the mean over the rank's samples adds to that over all, as the mean over ranks: own samples over those of
    a rank on average. 0 for samples of another's."""
    weight: float = 1.0
    """Of the batches of all ranks among those of a step: makes its samples count equally."""


def turns(shares: Sequence[Deal], rank: int, before: int = 0, accumulated: int = 1) -> list[Turn]:
    """A rank's batches.

    Args:
        shares: the batches of all ranks.
        rank: whose are wanted.
        before: batches of the epoch that came earlier.
        accumulated: batches of a step; the last step of an epoch may have fewer.

    >>> turns([[[1, 2], [3, 4]], [[5], []]], rank=1, accumulated=2)
    [Turn(numbers=[3, 4], among=4, share=1.0, weight=1.6), Turn(numbers=[5], among=1, share=0.0, weight=0.4)]
    """
    counts = [sum(map(len, share)) for share in shares]
    steps = [(before + place) // accumulated for place in range(len(shares))]
    samples: Counter[int] = Counter()
    for step, count in zip(steps, counts, strict=True):
        samples[step] += count
    return [
        Turn(
            numbers=share[rank] or share[0][:1],
            among=count,
            share=len(share[rank]) * len(share) / count,
            weight=count * accumulated / samples[step],
        )
        for step, share, count in zip(steps, shares, counts, strict=True)
    ]
