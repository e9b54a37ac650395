"""Samples of given numbers to batches, in worker processes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from torch.utils.data import DataLoader, Dataset

from rlaifv_pl.data.faults import BadSample
from rlaifv_pl.data.known import Known, put_together
from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.data.sidecar import SidecarError, Sidecars
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.records import Sample

Collate = Callable[[Sequence[Sample | BadSample]], Batch]


class BatchLoader(DataLoader):
    """Raises what is wrong with a sample here, as itself: out of a worker it would come as a page of traceback.

    Args:
        samples: of one or more directories.
        batches: numbers of the samples of each batch.
        collate: makes a batch of samples.
        reference: log-ps of the samples that were computed beforehand.
        how: options of torch's DataLoader.
    """

    def __init__(
        self,
        samples: ShardSet,
        batches: Iterable[list[int]],
        collate: Collate,
        reference: Sidecars | None = None,
        **how: Any,
    ) -> None:
        make = partial(_batch, collate, reference is not None)
        super().__init__(_Reader(samples, reference), batch_sampler=batches, collate_fn=make, **how)

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            if isinstance(batch, Exception):
                raise batch
            yield batch


class _Reader(Dataset):
    """Reads samples, and what is known of them; a bad one comes back as its error, to be raised or counted."""

    def __init__(self, samples: ShardSet, reference: Sidecars | None) -> None:
        self.samples, self.reference = samples, reference

    def __getitem__(self, index: int) -> tuple[Sample | BadSample, Known | None]:
        known = self.reference.read(index) if self.reference else None
        try:
            return self.samples[index], known
        except BadSample as error:
            return error, known


def _batch(
    collate: Collate, has_reference: bool, read: Sequence[tuple[Sample | BadSample, Known]]
) -> Batch | Exception:
    try:
        batch = collate([sample for sample, _ in read])
        if has_reference and batch.keys:
            batch.reference = put_together(batch, [read[number][1] for number in batch.kept])
    except (BadSample, SidecarError) as error:
        return error
    return batch
