"""The order in which an epoch visits its samples: fixed by seed and epoch alone.

Global batch k is a slice of that order and each rank takes its share of the slice, so the number
of samples consumed is the whole position: equal on all ranks, independent of workers, and still
right when the batch size or the number of ranks changes in mid-epoch.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


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


class RankBatches(Sampler[list[int]]):
    """This rank's batches of an order, from any position on.

    Args:
        order: (n,) sample indices, the same on all ranks.
        batch_size: samples a rank and batch.
        rank: of this process.
        world_size: number of ranks.
        start: samples of the order that are consumed already, by all ranks together.
    """

    def __init__(
        self, order: np.ndarray, batch_size: int, rank: int = 0, world_size: int = 1, start: int = 0
    ) -> None:
        self.order, self.rank, self.world_size = order, rank, world_size
        # An epoch's last batch counts as a whole one, also where it was cut short.
        self.start = min(start, len(order))
        self.global_batch_size = batch_size * world_size

    def __len__(self) -> int:
        """Batches left."""
        full, rest = divmod(len(self.order) - self.start, self.global_batch_size)
        # A last batch that cannot give every rank a sample would leave some ranks waiting.
        return full + (rest >= self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(len(self)):
            first = self.start + batch * self.global_batch_size
            yield self.order[first : first + self.global_batch_size][self.rank :: self.world_size].tolist()
