"""What the DataModule and the module in training ask of each other."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Required, TypedDict, cast

from lightning.pytorch import Trainer

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.collate import OnBadSample
from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.data.sidecar import Sidecars
from rlaifv_pl.models.vlm import VLM, Batch
from rlaifv_pl.records import Sample

Collate = Callable[[Sequence[Sample | BadSample]], Batch]
Shards = str | list[str]
"""One shard directory or several, or their URLs."""


class LoaderOptions(TypedDict, total=False):
    """How every `BatchLoader` over the same samples reads and collates them."""

    collate: Required[Collate]
    """Makes a batch of samples."""
    vision: Sidecars
    """Precomputed vision features of their images."""
    num_workers: int
    """Processes that read; 0 unless given, for the loader's own."""
    pin_memory: bool


class TrainsOnSamples(Protocol):
    """What the DataModule asks of the module in training."""

    @property
    def policy(self) -> VLM:
        """Model in training; its `layout` decides how many tokens a sample takes."""

    @property
    def reference_mode(self) -> str:
        """Source of the reference log-ps; `cached` for those beside the shards."""

    @property
    def reading(self) -> Mapping[str, Any]:
        """Everything that decides which tokens a sample becomes, as JSON."""

    def collator(self, on_bad_sample: OnBadSample) -> Collate:
        """Return the function that makes batches of samples."""

    def known(self, samples: ShardSet, batch_size: int, options: LoaderOptions) -> Sidecars | None:
        """Return the cached reference log-ps of the samples, computing missing ones; None without such a reference."""

    def features(self, samples: ShardSet, num_workers: int) -> Sidecars:
        """Return the frozen vision tower's features of the samples' images, computing missing ones."""


class FeedsModule(Protocol):
    """What modules and callbacks ask of the DataModule."""

    train: Shards | None
    """Shards of `data.train`."""

    def batches_per_epoch(self) -> int:
        """Return the number of batches that this rank gets in a whole epoch of the current shards."""

    def is_inside(self, epoch: int) -> bool:
        """Return whether some of the epoch's samples have been trained on."""

    def fetch(self, shards: Shards) -> list[Path]:
        """Return local directories of the shards, copied from their URLs where needed."""

    def check_opens(self) -> None:
        """Open the shards that exist before the run, so that their faults come before hours of work."""


def get_module(trainer: Trainer) -> TrainsOnSamples:
    """Return the module in training."""
    return cast(TrainsOnSamples, trainer.lightning_module)
