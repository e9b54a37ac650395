"""Samples of given numbers to batches, in worker processes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice, repeat
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rlaifv_pl.data import reference_logps, vision_features
from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.batching import GlobalBatch, samples_of
from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.data.sidecar import SidecarError, Sidecars
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.records import Sample

Collate = Callable[[Sequence[Sample | BadSample]], Batch]


class BatchLoader(DataLoader):
    """Raises what is wrong with a sample here, as itself: out of a worker it would come as a page of traceback.

    Args:
        samples: of one or more directories.
        numbers: of the samples of each batch; of none for one that is empty.
        collate: makes a batch of samples.
        reference: log-ps of the samples that were computed beforehand.
        tower: what a frozen vision tower made of their images beforehand.
        how: options of torch's DataLoader.
    """

    def __init__(
        self,
        samples: ShardSet,
        numbers: Sequence[list[int]],
        collate: Collate,
        reference: Sidecars | None = None,
        tower: Sidecars | None = None,
        **how: Any,
    ) -> None:
        make = partial(_batch, collate, reference, tower)
        super().__init__(_Reader(samples), batch_sampler=numbers, collate_fn=make, **how)

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            if isinstance(batch, Exception):
                raise batch
            yield batch


class PositionedLoader(BatchLoader):
    """Hands out batches with the counts of their steps, and notes how far it is, in samples of all ranks.

    Its length is that of the whole epoch, as Lightning counts: the batches that were trained before
    an interruption, and those left.
    """

    def __init__(
        self,
        position: dict[str, Any],
        samples: ShardSet,
        deals: Sequence[GlobalBatch],
        trainer: Trainer,
        **how: Any,
    ) -> None:
        super().__init__(samples, [deal[trainer.global_rank] for deal in deals], **how)
        self._position, self._before, self._trainer = position, position["batches"], trainer
        self._dealt = [samples_of(deal) for deal in deals]

    def __len__(self) -> int:
        return self._before + len(self._dealt)

    def __iter__(self) -> Iterator[Batch]:
        # Asked for only now: a callback may set it when the epoch starts, and Lightning cuts epochs short by itself.
        accumulated, end = self._trainer.accumulate_grad_batches, self._trainer.num_training_batches
        left = int(min(end, len(self))) - self._before
        sizes = chain([accumulated - self._before % accumulated], repeat(accumulated))
        batches = in_steps(islice(super().__iter__(), left), sizes, partial(summed, trainer=self._trainer))
        for batch, dealt in zip(batches, self._dealt, strict=False):
            self._position["samples"] += dealt
            self._position["batches"] += 1
            yield batch


def in_steps(
    batches: Iterator[Batch], sizes: Iterable[int], total: Callable[[Tensor], Tensor]
) -> Iterator[Batch]:
    """The batches, each with what its optimiser step has of samples and targets, which its loss is divided by.

    A step's batches are read before the first of them is given out: one of the next step for each of this one, so
    that no more than a step's batches are held, and workers read on at an even pace.

    Args:
        batches: of this process.
        sizes: batches of each step; the last step has what is left.
        total: sums up the counts of all processes; all call it together, once a step.
    """
    size_of = iter(sizes)
    step = deque(islice(batches, next(size_of)))
    while step:
        counts = total(torch.stack([batch.counts for batch in step]).sum(0))
        following: deque[Batch] = deque()
        size = next(size_of)
        while step:
            batch = step.popleft()
            batch.accounting.step_counts = counts
            yield batch
            following.extend(islice(batches, min(1, size - len(following))))
        following.extend(islice(batches, size - len(following)))
        step = following


def summed(values: Tensor, trainer: Trainer) -> Tensor:
    """The sum over all processes, which call this together."""
    if trainer.world_size == 1:
        return values
    total: Tensor = trainer.strategy.reduce(values.to(trainer.strategy.root_device), reduce_op="sum")
    return total


class _Read(NamedTuple):
    number: int
    sample: Sample | BadSample
    """A bad one is its error, to be raised or counted."""


class _Reader(Dataset):
    """Reads samples."""

    def __init__(self, samples: ShardSet) -> None:
        self.samples = samples

    def __getitem__(self, index: int) -> _Read:
        try:
            return _Read(index, self.samples[index])
        except BadSample as error:
            return _Read(index, error)


def _batch(
    collate: Collate, reference: Sidecars | None, tower: Sidecars | None, read: Sequence[_Read]
) -> Batch | Exception:
    try:
        batch = collate([item.sample for item in read])
        if reference is not None and batch.keys:
            logps = [reference.read(read[at].number) for at in batch.accounting.kept]
            batch.precomputed.reference_logps = reference_logps.assemble_logps(batch, logps)
        if tower is not None:
            kept = [read[at] for at in batch.accounting.kept]
            # Only now, since trees of several samples need that of one.
            batch.precomputed.vision_features = vision_features.assemble_features(
                batch,
                [item.sample for item in kept],  # type: ignore[misc]  # A bad sample is not kept.
                lambda at: vision_features.read_features(tower, kept[at].number),
            )
    except (BadSample, SidecarError) as error:
        return error
    return batch
