"""The DataModule: shards in, batches out, with a position that survives a kill.

What a batch is made of is the objective's business: the module in training offers a `collator`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import numpy as np
from torch.utils.data import DataLoader, Dataset

from rlaifv_pl.data.collate import Collator, OnBadSample
from rlaifv_pl.data.faults import BadSample
from rlaifv_pl.data.order import RankBatches, epoch_order
from rlaifv_pl.data.shards import ShardSet, load_shards
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.records import Sample
from rlaifv_pl.seeds import run_seed


class ShardSource(Protocol):
    """Something that makes shards when they are asked for and not there yet."""

    def ensure(self) -> Path:
        """The directory of the finished shards; does nothing when they are there already."""


Shards = str | list[str]


class AlignmentDataModule(L.LightningDataModule):
    """Streams shards in an order fixed by seed and epoch, and knows where it is.

    Args:
        train: shard directory, or several.
        val: the same for validation; none is made without it.
        sources: makers of shards that are not there yet; each is asked before the first epoch.
        batch_size: samples a device and step. A preference sample is one pair.
        val_batch_size: the same in validation; that of training unless given.
        num_workers: processes that read, decode and tokenise.
        window: shards that are shuffled into one another.
        on_bad_sample: stop at a sample that cannot be trained on, or leave it out and count it.
    """

    def __init__(
        self,
        train: str | list[str] | None = None,
        val: str | list[str] | None = None,
        sources: list[ShardSource] | None = None,
        batch_size: int = 8,
        val_batch_size: int | None = None,
        num_workers: int = 1,
        window: int = 8,
        on_bad_sample: OnBadSample = "raise",
    ) -> None:
        super().__init__()
        self.train, self.val, self.sources = train, val, sources or []
        self.batch_size, self.val_batch_size = batch_size, val_batch_size or batch_size
        self.num_workers, self.window, self.on_bad_sample = num_workers, window, on_bad_sample
        self._position = _start_of(epoch=0)
        self.shards_of_epoch: Callable[[int], list[str]] | None = None
        """Gives the shards of an epoch in place of `train`, where they are made in the run."""

    def prepare_data(self) -> None:
        for source in self.sources:
            source.ensure()

    def setup(self, stage: str) -> None:
        # Called before a checkpoint is restored: a second run with this object is a run of its own.
        self._position = _start_of(epoch=0)

    def state_dict(self) -> dict[str, int]:
        return dict(self._position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._position = dict(state)

    def train_dataloader(self) -> "PositionedLoader":
        """This epoch's batches, from where the run was interrupted if it was."""
        epoch = self.trainer.current_epoch
        samples = self._train_samples(epoch)
        if self._position["epoch"] != epoch:
            self._position = _start_of(epoch)
        order = epoch_order(samples.lengths, run_seed(), epoch, self.window)
        batches = self._batches(order, self._position["samples"])
        return PositionedLoader(self._position, samples, batches, **self._how())

    def val_dataloader(self) -> "BatchLoader | list":
        if self.val is None:
            return []
        samples = self._open(self.val, "data.val")
        batches = RankBatches(
            np.arange(len(samples)), self.val_batch_size, self.trainer.global_rank, self.trainer.world_size
        )
        return BatchLoader(samples, batches, **self._how())

    def batches_per_epoch(self) -> int:
        """Batches that this rank sees in a whole epoch of the shards of now."""
        samples = self._train_samples(self.trainer.current_epoch)
        return len(self._batches(np.arange(len(samples)), 0))

    def is_inside(self, epoch: int) -> bool:
        """Whether some of the epoch's samples have been trained on."""
        return self._position["epoch"] == epoch and self._position["samples"] > 0

    def _train_samples(self, epoch: int) -> ShardSet:
        return self._open(self.shards_of_epoch(epoch) if self.shards_of_epoch else self.train, "data.train")

    def _batches(self, order: np.ndarray, start: int) -> RankBatches:
        return RankBatches(order, self.batch_size, self.trainer.global_rank, self.trainer.world_size, start)

    def _how(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "collate_fn": partial(_collate, self.trainer.lightning_module.collator(self.on_bad_sample)),
            "pin_memory": self.trainer.strategy.root_device.type == "cuda",
        }

    def _open(self, shards: Shards | None, name: str) -> ShardSet:
        if not shards:
            raise ValueError(
                f"{name}: expected a directory of shards, got none. Set it in the config or as --{name}."
            )
        return load_shards(shards)


class BatchLoader(DataLoader):
    """Raises a bad sample here, as itself: out of a worker it would come as a page of traceback."""

    def __init__(self, samples: ShardSet, batches: RankBatches, **how: Any) -> None:
        super().__init__(_Tolerant(samples), batch_sampler=batches, **how)

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            if isinstance(batch, BadSample):
                raise batch
            yield batch


class PositionedLoader(BatchLoader):
    """Hands out batches and notes how far it is, in samples of all ranks.

    Its length is that of the whole epoch, as Lightning counts: the batches that were trained before
    an interruption, and those left.
    """

    def __init__(self, position: dict[str, int], samples: ShardSet, batches: RankBatches, **how: Any) -> None:
        super().__init__(samples, batches, **how)
        self._position, self._before = position, position["batches"]

    def __len__(self) -> int:
        return self._before + len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        batches: RankBatches = self.batch_sampler
        for batch in super().__iter__():
            self._position["samples"] += batches.global_batch_size
            self._position["batches"] += 1
            yield batch


def _collate(collator: Collator, samples: Sequence[Sample | BadSample]) -> Batch | BadSample:
    try:
        return collator(samples)
    except BadSample as error:
        return error


def _start_of(epoch: int) -> dict[str, int]:
    return {"epoch": epoch, "samples": 0, "batches": 0}


class _Tolerant(Dataset):
    """Reads samples; a bad one comes back as its error, for the collator to raise or to count."""

    def __init__(self, samples: ShardSet) -> None:
        self.samples = samples

    def __getitem__(self, index: int) -> Sample | BadSample:
        try:
            return self.samples[index]
        except BadSample as error:
            return error
