"""Samples of given numbers to batches, in worker processes."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, Dataset

from rlaifv_pl.data import features, known
from rlaifv_pl.data.faults import BadSample
from rlaifv_pl.data.order import Turn
from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.data.sidecar import SidecarError, Sidecars
from rlaifv_pl.models.vlm import Batch, Uncast
from rlaifv_pl.records import Sample

Collate = Callable[[Sequence[Sample | BadSample]], Batch]


class BatchLoader(DataLoader):
    """Raises what is wrong with a sample here, as itself: out of a worker it would come as a page of traceback.

    Args:
        samples: of one or more directories.
        turns: the batches.
        collate: makes a batch of samples.
        reference: log-ps of the samples that were computed beforehand.
        tower: what a frozen vision tower made of their images beforehand.
        how: options of torch's DataLoader.
    """

    def __init__(
        self,
        samples: ShardSet,
        turns: Sequence[Turn],
        collate: Collate,
        reference: Sidecars | None = None,
        tower: Sidecars | None = None,
        **how: Any,
    ) -> None:
        self.turns = turns
        make = partial(_batch, collate, reference, tower)
        numbers = [turn.numbers for turn in turns]
        super().__init__(_Reader(samples), batch_sampler=numbers, collate_fn=make, **how)

    def __iter__(self) -> Iterator[Batch]:
        for batch, turn in zip(super().__iter__(), self.turns, strict=True):
            if isinstance(batch, Exception):
                raise batch
            batch.among, batch.share, batch.weight = turn.among, turn.share, turn.weight
            yield batch


class PositionedLoader(BatchLoader):
    """Hands out batches with their weights, and notes how far it is, in samples of all ranks.

    Its length is that of the whole epoch, as Lightning counts: the batches that were trained before
    an interruption, and those left.
    """

    def __init__(
        self, position: dict[str, Any], samples: ShardSet, turns: Sequence[Turn], **how: Any
    ) -> None:
        super().__init__(samples, turns, **how)
        self._position, self._before = position, position["batches"]

    def __len__(self) -> int:
        return self._before + len(self.turns)

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            self._position["samples"] += batch.among
            self._position["batches"] += 1
            yield batch


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
            logps = [reference.read(read[at].number) for at in batch.kept]
            batch.reference = Uncast(known.put_together(batch, logps))
        if tower is not None:
            kept = [read[at] for at in batch.kept]
            # Only now, since trees of several samples need that of one.
            batch.tower = features.put_together(
                batch,
                [item.sample for item in kept],  # type: ignore[misc]  # A bad sample is not kept.
                lambda at: features.read_features(tower, kept[at].number),
            )
    except (BadSample, SidecarError) as error:
        return error
    return batch
