"""Batches of samples, read and collated in worker processes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice, repeat
from typing import NotRequired, TypedDict, Unpack

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.batching import GlobalBatch, count_samples
from rlaifv_pl.data.protocols import Collate, LoaderOptions
from rlaifv_pl.data.reference_logps import assemble_logps
from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.data.sidecar import SidecarError, Sidecars
from rlaifv_pl.data.vision_features import assemble_features, read_features
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.records import Sample

IndexedSample = tuple[int, Sample | BadSample]
"""Index of a sample in its set, and the sample; or its fault, to be raised or counted."""


class Position(TypedDict):
    """How far an epoch has been trained on; equal on all ranks."""

    epoch: int
    samples: int
    """Samples of all ranks."""
    batches: int
    """Batches of each rank."""
    shards: NotRequired[str]
    """Hash of the shards' hashes."""


class BatchLoader(DataLoader):
    """DataLoader that raises a sample's fault in this process; from a worker it would be a page of traceback.

    Args:
        samples: samples of one or more directories.
        batches: sample indices of each batch; none for an empty one.
        reference: precomputed reference log-ps of the samples.
        options: how they are read and collated.
    """

    def __init__(
        self,
        samples: ShardSet,
        batches: Sequence[list[int]],
        reference: Sidecars | None = None,
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(
            _Reader(samples),
            batch_sampler=batches,
            collate_fn=partial(_make_batch, options["collate"], reference, options.get("vision")),
            num_workers=options.get("num_workers", 0),
            pin_memory=options.get("pin_memory", False),
        )

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            if isinstance(batch, Exception):
                raise batch
            yield batch


class PositionedLoader(BatchLoader):
    """Loader of this rank's batches that adds the counts of their steps, and notes the epoch's position.

    Its length is that of the whole epoch, as Lightning counts: the batches that were trained before
    an interruption, and those left.
    """

    def __init__(
        self,
        position: Position,
        samples: ShardSet,
        batches: Sequence[GlobalBatch],
        trainer: Trainer,
        reference: Sidecars | None = None,
        **options: Unpack[LoaderOptions],
    ) -> None:
        own = [batch[trainer.global_rank] for batch in batches]
        super().__init__(samples, own, reference, **options)
        self._position, self._before, self._trainer = position, position["batches"], trainer
        self._samples_per_batch = [count_samples(batch) for batch in batches]

    def __len__(self) -> int:
        return self._before + len(self._samples_per_batch)

    def __iter__(self) -> Iterator[Batch]:
        # Read only now: a callback may set it when the epoch starts, and Lightning cuts epochs short by itself.
        accumulated, end = self._trainer.accumulate_grad_batches, self._trainer.num_training_batches
        left = int(min(end, len(self))) - self._before
        sizes = chain([accumulated - self._before % accumulated], repeat(accumulated))
        total = partial(sum_over_ranks, trainer=self._trainer)
        batches = attach_step_counts(islice(super().__iter__(), left), sizes, total)
        for batch, count in zip(batches, self._samples_per_batch, strict=False):
            self._position["samples"] += count
            self._position["batches"] += 1
            yield batch


def attach_step_counts(
    batches: Iterator[Batch], sizes: Iterable[int], total: Callable[[Tensor], Tensor]
) -> Iterator[Batch]:
    """Yield the batches with the samples and targets of their optimiser step, by which its loss is divided.

    A step's batches are read before the first of them is yielded: one of the next step for each of this one, so
    that no more than a step's batches are held, and workers read on at an even pace.

    Args:
        batches: batches of this process.
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


def sum_over_ranks(values: Tensor, trainer: Trainer) -> Tensor:
    """Return the sum over all processes, which call this together."""
    if trainer.world_size == 1:
        return values
    total: Tensor = trainer.strategy.reduce(values.to(trainer.strategy.root_device), reduce_op="sum")
    return total


class _Reader(Dataset[IndexedSample]):
    def __init__(self, samples: ShardSet) -> None:
        self.samples = samples

    def __getitem__(self, index: int) -> IndexedSample:
        try:
            return index, self.samples[index]
        except BadSample as error:
            return index, error


def _make_batch(
    collate: Collate, reference: Sidecars | None, vision: Sidecars | None, read: Sequence[IndexedSample]
) -> Batch | BadSample | SidecarError:
    try:
        batch = collate([sample for _, sample in read])
        if reference is not None and batch.keys:
            logps = [reference.read(read[place][0]) for place in batch.accounting.kept]
            batch.precomputed.reference_logps = assemble_logps(batch, logps)
        if vision is not None:
            kept = [read[place] for place in batch.accounting.kept]
            samples = [sample for _, sample in kept if isinstance(sample, Sample)]
            batch.precomputed.vision_features = assemble_features(
                batch, samples, lambda place: read_features(vision, kept[place][0])
            )
    except (BadSample, SidecarError) as error:
        return error
    return batch
