"""The DataModule: shards in, batches out, with a position that survives a kill.

What a batch is made of is the objective's business: the module in training offers a `collator`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import lightning as L
import numpy as np

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.batching import (
    BatchBudget,
    GlobalBatch,
    SampleSizes,
    deal_every,
    epoch_order,
    group_by_prompt,
    sort_by_length,
    split_batches,
)
from rlaifv_pl.data.collate import OnBadSample
from rlaifv_pl.data.loader import BatchLoader, PositionedLoader
from rlaifv_pl.data.longest_samples import try_longest
from rlaifv_pl.data.manifest import ManifestError, hash_json
from rlaifv_pl.data.remote_directory import is_url, redact
from rlaifv_pl.data.sample_lengths import LengthSurvey
from rlaifv_pl.data.shard_cache import default_cache, local_copy
from rlaifv_pl.data.shards import ShardSet, cache_place, load_shards
from rlaifv_pl.data.sidecar import check_places
from rlaifv_pl.seeds import derive, run_seed


class ShardSource(Protocol):
    """Something that makes shards when they are asked for and not there yet."""

    def ensure(self) -> Path:
        """The directory of the finished shards; does nothing when they are there already."""


Shards = str | list[str]


class AlignmentDataModule(L.LightningDataModule):
    """Streams shards in an order fixed by seed and epoch, and knows where it is.

    With `max_tokens`, `group_by` or `length_bucket`, each sample is read once before the first epoch, and its size
    is kept beside the shards.

    Args:
        train: shard directory, or several; also as URLs (http, s3, gs and others that fsspec knows), which are
            copied to each node's disk before the first step.
        val: the same for validation; none is made without it.
        sources: makers of shards that are not there yet; each is asked before the first epoch.
        batch_size: samples a device and batch, at most. A preference sample is one pair. None for as many as
            `max_tokens` allows.
        val_batch_size: the same in validation, and in the pass of a cached reference; that of training unless given.
        max_tokens: tokens a device and batch, at most, as they are laid out: what answers share counts once, image
            tokens and padding count too.
        group_by: with `prompt`, pairs of one prompt stand in one batch, and share the prompt and its images there.
        length_bucket: samples of like length are neighbours, inside stretches of so many; for batches with padding.
        num_workers: processes that read, decode and tokenise.
        shuffle_window: shards that are shuffled into one another.
        on_bad_sample: stop at a sample that cannot be trained on, or leave it out and count it.
        cache_vision: run a frozen vision tower once for each sample, before training, and keep what the model reads of
            its output beside the shards. How much that is, is said before it begins.
        cache_dir: where shards behind URLs are copied to, and where what is computed of samples is kept (log-ps of a
            cached reference, features of a tower, sizes). Unless given, copies are in RLAIFV_PL_CACHE of the
            environment or `rlaifv_pl` in the user's own cache, and what is computed lies beside the shards.
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
        self.room = BatchBudget(batch_size, max_tokens)
        self.val_batch_size = val_batch_size or batch_size or 8
        self.group_by, self.length_bucket = group_by, length_bucket
        self.num_workers, self.shuffle_window, self.on_bad_sample = num_workers, shuffle_window, on_bad_sample
        self.cache_vision, self.cache_dir = cache_vision, cache_dir
        self._how_sized = max_tokens or group_by or length_bucket
        self._begin()
        self.shards_of_epoch: Callable[[int], list[str]] | None = None
        """Gives the shards of an epoch in place of `train`, where they are made in the run."""

    def _begin(self) -> None:
        self._position: dict[str, Any] = _start_of(epoch=0)
        self._opened: tuple[list[str], ShardSet] | None = None
        self._copies: dict[str, Path] = {}

    def prepare_data(self) -> None:
        for source in self.sources:
            source.ensure()
        # Now, since a node's other processes, and other nodes, wait for the end of this as long as it takes.
        for path in self._named_shards():
            local_copy(path, self.cache_dir)

    def setup(self, stage: str) -> None:
        # Called before a checkpoint is restored: a second run with this object is a run of its own.
        self._begin()
        if self.trainer is not None:  # Before the model is loaded.
            found = self.fetch(self._named_shards())
            check_places([cache_place(one, self.cache_dir) for one in found], self._computed())

    def state_dict(self) -> dict[str, Any]:
        return dict(self._position)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._position = dict(state)

    def train_dataloader(self) -> PositionedLoader:
        """This epoch's batches, from where the run was interrupted if it was."""
        trainer, epoch = self.trainer, self.trainer.current_epoch
        samples = self._train_samples(epoch)
        if self._position["epoch"] != epoch:
            self._position = _start_of(epoch)
        self._check_shards(samples)
        deals = self._deal(samples, epoch, self._position["samples"])
        return PositionedLoader(self._position, samples, deals, trainer, **self._how(samples))

    def val_dataloader(self) -> BatchLoader | list:
        if self.val is None:
            return []
        samples = self._open(self.val, "data.val")
        deals = split_batches(range(len(samples)), self.trainer.world_size, self.val_batch_size)
        mine = [deal[self.trainer.global_rank] for deal in deals]
        return BatchLoader(samples, mine, **self._how(samples))

    def check_opens(self) -> None:
        """Open the shards that are there before the run, for the faults that `load_shards` names."""
        if self.shards_of_epoch is None:
            self._train_samples(self.trainer.current_epoch)
        if self.val is not None:
            self._open(self.val, "data.val")

    def batches_per_epoch(self) -> int:
        """Batches that this rank sees in a whole epoch of the shards of now."""
        epoch = self.trainer.current_epoch
        return len(self._deal(self._train_samples(epoch), epoch, 0))

    def is_inside(self, epoch: int) -> bool:
        """Whether some of the epoch's samples have been trained on."""
        return self._position["epoch"] == epoch and self._position["samples"] > 0

    def fetch(self, shards: Shards) -> list[Path]:
        """Directories on this machine of shards that may lie behind URLs; the same ones while a run lasts, and
        with the same shards in all processes.

        Raises:
            RemoteError: they cannot be had.
            ManifestError: processes found different ones.
        """
        for path in filter(is_url, _listed(shards)):
            if path in self._copies:
                continue
            copy = local_copy(path, self.cache_dir)
            first = self.trainer.strategy.broadcast(copy.name)
            if copy.name != first:
                raise ManifestError(
                    f"{redact(path)} changed while the run began: its copy is {copy.name} in process "
                    f"{self.trainer.global_rank} and {first} in process 0. Start the run again."
                )
            self._copies[path] = copy
        return [self._copies.get(path) or Path(path) for path in _listed(shards)]

    def _named_shards(self) -> list[str]:
        is_validation = self.trainer is not None and self.trainer.validating
        return _listed(self.val) if is_validation else _listed(self.train) + _listed(self.val)

    def _computed(self) -> list[str]:
        """Kinds of what is computed of samples before they are trained on."""
        needed = {
            "reference": self.trainer.lightning_module.reference_mode == "cached",
            "tower": self.cache_vision,
            "sizes": self._how_sized,
        }
        return [kind for kind, is_needed in needed.items() if is_needed]

    def _check_shards(self, samples: ShardSet) -> None:
        """Refuse to go on inside an epoch of other shards: its place says nothing about these."""
        found = hash_json(samples.hashes)
        if self._position["samples"] and self._position.get("shards", found) != found:
            raise ManifestError(
                f"data.train holds other shards than when the checkpoint was saved, {self._position['samples']} "
                "samples into the epoch. Bring those back, or start a new run. Of shards behind a URL, the copy is "
                f"still there: name its directory in {self.cache_dir or default_cache()} as data.train."
            )
        self._position["shards"] = found

    def _train_samples(self, epoch: int) -> ShardSet:
        shards = _listed(self.shards_of_epoch(epoch) if self.shards_of_epoch else self.train)
        if self._opened is None or self._opened[0] != shards:
            samples = self._open(shards, "data.train")
            try_longest(samples, self.trainer.lightning_module, self.on_bad_sample)
            self._opened = shards, samples
        return self._opened[1]

    def _deal(self, samples: ShardSet, epoch: int, start: int) -> list[GlobalBatch]:
        order = epoch_order(samples.lengths, run_seed(), epoch, self.shuffle_window)
        sizes = self._survey(samples)
        if self.group_by:
            order = group_by_prompt(order, sizes.prompt)
        if self.length_bucket:
            order = sort_by_length(order, sizes, self.length_bucket, derive(run_seed(), "lengths", epoch))
        return deal_every(order[start:], self.trainer.world_size, self.room, sizes)

    def _survey(self, samples: ShardSet) -> SampleSizes | None:
        if not self._how_sized:
            return None
        module: Any = self.trainer.lightning_module
        survey = LengthSurvey(samples, module.reading, module.collator(self.on_bad_sample), self.num_workers)
        survey.make(self.trainer)
        sizes = survey.sizes(module.policy.layout)
        check_room(self.room, samples.where, sizes.tokens)
        return sizes if self.group_by else sizes._replace(prompt=np.arange(len(samples)))

    def _how(self, samples: ShardSet) -> dict[str, Any]:
        module: Any = self.trainer.lightning_module
        how = {
            "collate": module.collator(self.on_bad_sample),
            "num_workers": self.num_workers,
            "pin_memory": self.trainer.strategy.root_device.type == "cuda",
        }
        if self.cache_vision:
            how["tower"] = module.features(samples, self.num_workers)
        return how | {"reference": module.known(samples, self.val_batch_size, how)}

    def _open(self, shards: Shards | None, name: str) -> ShardSet:
        samples = load_shards(self.fetch(expected(shards, name)), self.cache_dir)
        # A round without pairs ends its run by itself.
        if not len(samples) and not self.shards_of_epoch:
            raise ManifestError(
                f"{name}: {', '.join(_listed(shards))} holds no sample. Name shards that hold some."
            )
        return samples


def expected(shards: Shards | None, name: str) -> Shards:
    """Shards that a config must name.

    Raises:
        ValueError: it does not.
    """
    if not shards:
        raise ValueError(
            f"{name}: expected a directory of shards, got none. Set it in the config or as --{name}."
        )
    return shards


def check_room(room: BatchBudget, where: Callable[[int], str], tokens: np.ndarray) -> None:
    """Refuse samples that are larger than what a device takes at a time.

    Args:
        room: of a device.
        where: tells where a sample lies, by its number.
        tokens: (n,) of each sample.

    Raises:
        BadSample: the largest is.
    """
    if room.tokens and tokens.max(initial=0) > room.tokens:
        largest = int(tokens.argmax())
        raise BadSample(
            Reason.TOO_LONG,
            where(largest),
            f"{tokens[largest]} tokens, and data.max_tokens allows a device {room.tokens}",
        )


def _start_of(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "samples": 0, "batches": 0}


def _listed(shards: Shards | None) -> list[str]:
    return [shards] if isinstance(shards, str | Path) else list(shards or ())
