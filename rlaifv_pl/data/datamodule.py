"""The DataModule: shards in, batches out, with a position that survives a kill.

The module in training decides what a batch is made of: it offers a `collator` (`protocols`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import lightning as L
import numpy as np
from lightning.pytorch import Trainer

from rlaifv_pl.data.batching import (
    BatchBudget,
    GlobalBatch,
    SampleSizes,
    epoch_order,
    group_by_prompt,
    pack_all_batches,
    sort_by_length,
    split_batches,
)
from rlaifv_pl.data.collate import OnBadSample
from rlaifv_pl.data.loader import BatchLoader, Position, PositionedLoader
from rlaifv_pl.data.manifest import ManifestError, hash_json
from rlaifv_pl.data.protocols import LoaderOptions, Shards, get_module
from rlaifv_pl.data.remote_directory import is_url, redact
from rlaifv_pl.data.sample_lengths import LengthSurvey, check_budget, try_longest
from rlaifv_pl.data.shard_cache import default_cache, local_copy
from rlaifv_pl.data.shards import ShardSet, cache_place, load_shards
from rlaifv_pl.data.sidecar import Sidecars, check_places
from rlaifv_pl.seeds import derive, run_seed


class ShardSource(Protocol):
    """Maker of shards that are made on demand."""

    def ensure(self) -> Path:
        """Return the directory of the finished shards, made now unless they are there."""


class AlignmentDataModule(L.LightningDataModule):
    """Stream shards in an order fixed by seed and epoch, from a position kept in checkpoints.

    With `max_tokens`, `group_by` or `length_bucket`, each sample is read once before the first epoch, and its size
    is kept beside the shards.

    Args:
        train: shard directory, or several; also as URLs (http, s3, gs and others that fsspec knows), which are
            copied to each node's disk before the first step.
        val: the same for validation; without it there is none.
        sources: makers of shards; each is asked for its shards before the first epoch.
        batch_size: largest number of samples a device and batch. A preference sample is one pair. None for as many as
            `max_tokens` allows.
        val_batch_size: the same in validation, and in the pass of a cached reference; that of training unless given.
        max_tokens: largest number of tokens a device and batch, as they are laid out: what answers share counts once,
            image tokens and padding count too.
        group_by: `prompt` puts pairs of one prompt into one batch, where they share the prompt and its images.
        length_bucket: samples that are sorted by length at a time, so that neighbours are alike; for padded batches.
        num_workers: processes that read, decode and tokenise.
        shuffle_window: shards that are shuffled into one another.
        on_bad_sample: stop at a sample that cannot be trained on, or leave it out and count it.
        cache_vision: run a frozen vision tower once for each sample, before training, and keep what the model reads of
            its output beside the shards. The size is printed before it begins.
        cache_dir: directory for copies of shards behind URLs, and for precomputed values (log-ps of a cached
            reference, vision features, sizes). Unless given, copies are in RLAIFV_PL_CACHE of the environment or
            `rlaifv_pl` in the user's own cache, and precomputed values lie beside the shards.
    """

    def __init__(
        self,
        train: str | list[str] | None = None,
        val: str | list[str] | None = None,
        sources: list[ShardSource] | None = None,
        batch_size: int | None = 8,
        val_batch_size: int | None = None,
        max_tokens: int | None = None,
        group_by: Literal["prompt"] | None = None,
        length_bucket: int | None = None,
        num_workers: int = 1,
        shuffle_window: int = 8,
        on_bad_sample: OnBadSample = "raise",
        cache_vision: bool = False,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        sizes = {"batch_size": batch_size, "max_tokens": max_tokens, "length_bucket": length_bucket}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise ValueError(f"data.{name} is {value}, expected at least 1")
        if batch_size is None and max_tokens is None:
            raise ValueError("data.batch_size is null, so data.max_tokens must say how large a batch may be")
        self.train, self.val, self.sources = train, val, sources or []
        self.budget = BatchBudget(batch_size, max_tokens)
        self.val_batch_size = val_batch_size or batch_size or 8
        self.group_by, self.length_bucket = group_by, length_bucket
        self.num_workers, self.shuffle_window, self.on_bad_sample = num_workers, shuffle_window, on_bad_sample
        self.cache_vision, self.cache_dir = cache_vision, cache_dir
        self._needs_sizes = bool(max_tokens or group_by or length_bucket)
        self._reset()

    def _reset(self) -> None:
        self._position: Position = _start_of(epoch=0)
        self._opened: tuple[list[str], ShardSet] | None = None
        self._copies: dict[str, Path] = {}
        self._made_shards: list[str] | None = None

    def use_shards(self, shards: Sequence[Path]) -> None:
        """Train on these directories, which the run makes, in place of `train`; none while they are to be made."""
        self._made_shards = list(map(str, shards))

    def prepare_data(self) -> None:
        for source in self.sources:
            source.ensure()
        # Copied here, because other processes and nodes wait for the end of this hook as long as it takes.
        for path in self._named_shards():
            local_copy(path, self.cache_dir)

    def setup(self, stage: str) -> None:
        # Called before a checkpoint is restored: a second run with this object starts anew.
        self._reset()
        if self.trainer is not None:  # Before the model is loaded.
            directories = self.fetch(self._named_shards())
            check_places(
                [cache_place(path, self.cache_dir) for path in directories], self._precomputed_kinds()
            )

    def state_dict(self) -> dict[str, Any]:
        return {**self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._position = cast(Position, dict(state))

    def train_dataloader(self) -> PositionedLoader:
        """Return this epoch's batches, from where the run was interrupted if it was."""
        trainer, epoch = self._attached_trainer, self._attached_trainer.current_epoch
        samples = self._train_samples()
        if self._position["epoch"] != epoch:
            self._position = _start_of(epoch)
        self._check_shards(samples)
        batches = self._batches(samples, epoch, self._position["samples"])
        options, reference = self._loader_options(samples)
        return PositionedLoader(self._position, samples, batches, trainer, reference, **options)

    def val_dataloader(self) -> BatchLoader | list:
        if self.val is None:
            return []
        trainer, samples = self._attached_trainer, self._open(self.val, "data.val")
        batches = split_batches(range(len(samples)), trainer.world_size, self.val_batch_size)
        options, reference = self._loader_options(samples)
        own = [batch[trainer.global_rank] for batch in batches]
        return BatchLoader(samples, own, reference, **options)

    def check_opens(self) -> None:
        """Open the shards that are there before the run, for the faults that `load_shards` names."""
        if self._made_shards is None:
            self._train_samples()
        if self.val is not None:
            self._open(self.val, "data.val")

    def batches_per_epoch(self) -> int:
        """Return the number of batches that this rank gets in a whole epoch of the current shards."""
        return len(self._batches(self._train_samples(), self._attached_trainer.current_epoch, 0))

    def is_inside(self, epoch: int) -> bool:
        """Return whether some of the epoch's samples have been trained on."""
        return self._position["epoch"] == epoch and self._position["samples"] > 0

    def fetch(self, shards: Shards) -> list[Path]:
        """Return local directories of the shards, copied from their URLs where needed.

        They stay the same while a run lasts, and hold the same shards in all processes.

        Raises:
            RemoteError: a URL cannot be copied.
            ManifestError: processes found different shards there.
        """
        trainer = self._attached_trainer
        for path in filter(is_url, _listed(shards)):
            if path in self._copies:
                continue
            copy = local_copy(path, self.cache_dir)
            first = trainer.strategy.broadcast(copy.name)
            if copy.name != first:
                raise ManifestError(
                    f"{redact(path)} changed while the run began: its copy is {copy.name} in process "
                    f"{trainer.global_rank} and {first} in process 0. Start the run again."
                )
            self._copies[path] = copy
        return [self._copies.get(path) or Path(path) for path in _listed(shards)]

    @property
    def _attached_trainer(self) -> Trainer:
        if self.trainer is None:
            raise RuntimeError("Batches are made for a trainer: give this DataModule to `trainer.fit` first.")
        return self.trainer

    def _named_shards(self) -> list[str]:
        is_validation = self.trainer is not None and self.trainer.validating
        return _listed(self.val) if is_validation else _listed(self.train) + _listed(self.val)

    def _precomputed_kinds(self) -> list[str]:
        """Return the kinds of sidecars that this run computes before training."""
        needed = {
            "reference": get_module(self._attached_trainer).reference_mode == "cached",
            "tower": self.cache_vision,
            "sizes": self._needs_sizes,
        }
        return [kind for kind, is_needed in needed.items() if is_needed]

    def _check_shards(self, samples: ShardSet) -> None:
        """Refuse to go on inside an epoch of other shards: the position would mean other samples."""
        shards = hash_json(samples.hashes)
        if self._position["samples"] and self._position.get("shards", shards) != shards:
            raise ManifestError(
                f"data.train holds other shards than when the checkpoint was saved, {self._position['samples']} "
                "samples into the epoch. Bring those back, or start a new run. Of shards behind a URL, the copy is "
                f"still there: name its directory in {self.cache_dir or default_cache()} as data.train."
            )
        self._position["shards"] = shards

    def _train_samples(self) -> ShardSet:
        shards = _listed(self.train) if self._made_shards is None else self._made_shards
        if self._opened is None or self._opened[0] != shards:
            samples = self._open(shards, "data.train")
            try_longest(
                samples, get_module(self._attached_trainer).collator(self.on_bad_sample), self.on_bad_sample
            )
            self._opened = shards, samples
        return self._opened[1]

    def _batches(self, samples: ShardSet, epoch: int, start: int) -> list[GlobalBatch]:
        """Return the batches of all ranks in an epoch, without its first `start` samples."""
        order = epoch_order(samples.lengths, run_seed(), epoch, self.shuffle_window)
        sizes = self._sizes(samples) if self._needs_sizes else None
        if sizes and self.group_by:
            order = group_by_prompt(order, sizes.prompt)
        if sizes and self.length_bucket:
            order = sort_by_length(order, sizes, self.length_bucket, derive(run_seed(), "lengths", epoch))
        return pack_all_batches(order[start:], self._attached_trainer.world_size, self.budget, sizes)

    def _sizes(self, samples: ShardSet) -> SampleSizes:
        module = get_module(self._attached_trainer)
        survey = LengthSurvey(samples, module.reading, module.collator(self.on_bad_sample), self.num_workers)
        survey.make(self._attached_trainer)
        sizes = survey.sizes(module.policy.layout)
        check_budget(self.budget, samples.where, sizes.tokens)
        return sizes if self.group_by else sizes._replace(prompt=np.arange(len(samples)))

    def _loader_options(self, samples: ShardSet) -> tuple[LoaderOptions, Sidecars | None]:
        """Return the options of the samples' loaders, and their cached reference log-ps."""
        trainer, module = self._attached_trainer, get_module(self._attached_trainer)
        options: LoaderOptions = {
            "collate": module.collator(self.on_bad_sample),
            "num_workers": self.num_workers,
            "pin_memory": trainer.strategy.root_device.type == "cuda",
        }
        if self.cache_vision:
            options["vision"] = module.features(samples, self.num_workers)
        return options, module.known(samples, self.val_batch_size, options)

    def _open(self, shards: Shards | None, name: str) -> ShardSet:
        samples = load_shards(self.fetch(require_shards(shards, name)), self.cache_dir)
        # A round without pairs ends its run by itself.
        if not len(samples) and self._made_shards is None:
            raise ManifestError(
                f"{name}: {', '.join(_listed(shards))} holds no sample. Name shards that hold some."
            )
        return samples


def require_shards(shards: Shards | None, name: str) -> Shards:
    """Return the shards that a config must name.

    Raises:
        ValueError: it names none.
    """
    if not shards:
        raise ValueError(
            f"{name}: expected a directory of shards, got none. Set it in the config or as --{name}."
        )
    return shards


def _start_of(epoch: int) -> Position:
    return {"epoch": epoch, "samples": 0, "batches": 0}


def _listed(shards: Shards | None) -> list[str]:
    return [shards] if isinstance(shards, str | Path) else list(shards or ())
