"""Cached reference log-ps: one pass over the shards before training, and no second model in it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer

from rlaifv_pl.console import track
from rlaifv_pl.data.batching import split_batches
from rlaifv_pl.data.loader import BatchLoader
from rlaifv_pl.data.protocols import LoaderOptions
from rlaifv_pl.data.reference_logps import READINGS, UNKNOWN, split_by_sample
from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.data.sidecar import CachedTensors, Sidecars
from rlaifv_pl.models.fingerprint import weights_hash
from rlaifv_pl.models.loading import load_policy
from rlaifv_pl.models.policy import PolicyError, PolicySpec
from rlaifv_pl.models.reference import frozen
from rlaifv_pl.models.tokenization import Processor
from rlaifv_pl.models.vlm import VLM, Batch
from rlaifv_pl.objectives.cached_vision import image_identity
from rlaifv_pl.objectives.checks import sharding_of
from rlaifv_pl.objectives.empty_batch_guard import STAND_IN, EmptyBatchGuard


class ReferenceState(TypedDict):
    """State of a cached reference in checkpoints."""

    weights: str
    adapters: bool


class CachedReference:
    """Identity of the reference model, and its log-ps beside the shards.

    Args:
        policy: model before any training; it is the reference, without its LoRA adapters.
        spec: source of the policy.
        processor: prepares images. (Tokens are compared sample by sample.)
    """

    def __init__(self, policy: VLM, spec: PolicySpec, processor: Processor) -> None:
        self.policy, self.spec, self.processor = policy, spec, processor
        self.weights, self.adapters = weights_hash(policy, adapters=False), False
        self._is_policy = True

    def invalidate(self) -> None:
        """Make the policy as it is now the reference, adapters included."""
        self.weights, self.adapters, self._is_policy = weights_hash(self.policy), True, True

    def mark_policy_changed(self) -> None:
        """Note that the policy is being trained."""
        self._is_policy = not self.adapters and self.spec.lora is not None

    def state_dict(self) -> ReferenceState:
        """Return the state for a checkpoint."""
        return {"weights": self.weights, "adapters": self.adapters}

    def load_state_dict(self, state: ReferenceState) -> None:
        """Restore the state of a checkpoint, whose policy has been trained."""
        self.weights, self.adapters = state["weights"], state["adapters"]
        self.mark_policy_changed()

    def sidecars(
        self, samples: ShardSet, trainer: Trainer, batch_size: int, options: LoaderOptions
    ) -> Sidecars:
        """Return the log-ps of the samples, computed now where they are missing.

        Args:
            samples: one or more directories of shards.
            trainer: trainer with the policy on its device.
            batch_size: samples a device in the pass.
            options: options of the loader.

        Raises:
            SidecarError: a file beside a shard belongs to another shard.
            PolicyError: log-ps are missing, and the reference is no longer available.
        """
        identity = {"weights": self.weights, "adapters": self.adapters, "readings": READINGS}
        identity |= image_identity(self.processor, self.spec, trainer)
        sidecars = Sidecars(samples, "reference", identity)
        missing = sidecars.missing()
        # All processes must see the same gaps before one fills them, and all files before one reads them.
        trainer.strategy.barrier()
        if missing:
            self._compute(sidecars, _plan(samples, missing, trainer, batch_size), trainer, options)
        trainer.strategy.barrier()
        return sidecars

    def _compute(
        self, sidecars: Sidecars, work: list["_RankBatch"], trainer: Trainer, options: LoaderOptions
    ) -> None:
        model, samples = self._model(trainer), sidecars.samples
        guard = EmptyBatchGuard(lambda: options["collate"]([STAND_IN]))
        loader = BatchLoader(samples, [part.numbers for part in work], **options)
        progress = track(
            zip(work, loader, strict=True), "reference log-ps", len(work), is_shown=trainer.is_global_zero
        )  # fmt: skip
        logps_by_number: dict[int, CachedTensors] = {}
        for part, batch in progress:
            if (computed := guard(batch, trainer)) is not None:
                logps_by_number |= self._score(model, trainer, part.numbers, computed)
            if part.ends_shard:
                logps_by_number = _gather(logps_by_number, trainer.world_size)
                if trainer.is_global_zero:
                    sidecars.write(
                        part.shard, [logps_by_number.get(n, UNKNOWN) for n in samples.numbers(part.shard)]
                    )
                logps_by_number = {}

    @torch.no_grad()
    def _score(
        self, model: VLM, trainer: Trainer, numbers: Sequence[int], batch: Batch
    ) -> dict[int, CachedTensors]:
        strategy = trainer.strategy
        with strategy.precision_plugin.forward_context(), frozen(model, adapters=self.adapters):
            logps = model(strategy.batch_to_device(batch))
        if batch.accounting.is_stand_in:
            return {}
        values = split_by_sample(batch, logps)
        return {numbers[kept]: value for kept, value in zip(batch.accounting.kept, values, strict=True)}

    def _model(self, trainer: Trainer) -> VLM:
        """Return the reference model: the policy, or one that is loaded again."""
        if self._is_policy:
            return self.policy
        if self.adapters:
            raise PolicyError(
                "Reference log-ps beside the shards are missing, and their model is gone: it was the policy as the "
                "round began, which has been trained since. Restore the directories reference-*, or start anew."
            )
        model, _ = load_policy(self.spec, self.processor, slicing=sharding_of(trainer))
        model.attention = self.policy.attention
        model.tower_layout = self.policy.tower_layout
        if weights_hash(model) != self.weights:
            raise PolicyError(
                f"Reference log-ps beside the shards are missing, and {self.spec.path} holds other weights than "
                "this run started from. Put the model back, or start anew."
            )
        converted: Any = trainer.strategy.precision_plugin.convert_module(model)
        return converted.to(trainer.strategy.root_device)


class _RankBatch(NamedTuple):
    """One batch of the pass on this process."""

    shard: int
    numbers: list[int]
    ends_shard: bool


def _plan(samples: ShardSet, shards: Sequence[int], trainer: Trainer, batch_size: int) -> list[_RankBatch]:
    """Plan batches shard by shard, equally many for each process, since sharded models compute in step."""
    rank, size = trainer.global_rank, trainer.world_size
    work = []
    for shard in shards:
        numbers = samples.numbers(shard)
        mine = [deal[rank] for deal in split_batches(numbers, size, batch_size)]
        work += [_RankBatch(shard, part, place == len(mine) - 1) for place, part in enumerate(mine)]
    return work


def _gather(logps_by_number: dict[int, CachedTensors], processes: int) -> dict[int, CachedTensors]:
    """Merge the log-ps of all processes."""
    if processes == 1:
        return logps_by_number
    gathered: list[Any] = [None] * processes
    dist.all_gather_object(gathered, logps_by_number)
    return {number: value for part in gathered for number, value in part.items()}
