"""Base of the objectives: policy, reference, optimiser and schedule, checkpoints."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from rlaifv_pl.data.collate import Collator, OnBadSample
from rlaifv_pl.data.protocols import LoaderOptions
from rlaifv_pl.data.sample_lengths import processor_hash
from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.data.sidecar import Sidecars
from rlaifv_pl.lightning_compat import get_attached_trainer, is_accumulating
from rlaifv_pl.models.chat import Chat, Dialogue
from rlaifv_pl.models.fingerprint import fingerprint
from rlaifv_pl.models.loading import load_policy, positions_of
from rlaifv_pl.models.policy import PolicySpec, load_processor
from rlaifv_pl.models.reference import Reference, ReferenceMode
from rlaifv_pl.models.tokenization import Processor
from rlaifv_pl.models.vlm import VLM, Batch
from rlaifv_pl.objectives import checks
from rlaifv_pl.objectives.cached_reference import CachedReference
from rlaifv_pl.objectives.cached_vision import CachedVisionFeatures
from rlaifv_pl.objectives.checks import RunError, check_tree, sharding_of
from rlaifv_pl.objectives.dropped_samples import SampleTally
from rlaifv_pl.objectives.empty_batch_guard import STAND_IN, EmptyBatchGuard
from rlaifv_pl.objectives.lr_schedule import Schedule, follow_schedule, lr_factor, total_steps
from rlaifv_pl.objectives.step_means import LossOutput, RunningMeans
from rlaifv_pl.records import Sample
from rlaifv_pl.seeds import derive, run_seed


class AlignmentModule(L.LightningModule):
    """A policy in training. Subclasses define what is scored in a sample and its loss.

    Args:
        policy: the model and what of it trains.
        optimizer: any torch optimiser, without its parameters.
        schedule: decay of the learning rate after the warm-up, over the whole run.
        warmup: share of the run in which the learning rate rises.
        max_length: longest row in tokens, image tokens included; longer samples are bad samples.
    """

    parts: int
    """Number of scored parts of a sample."""
    policy: VLM
    """Model in training; set by `configure_model`."""
    reference_mode: ReferenceMode = "none"
    """Source of the reference log-ps."""
    reference: Reference | None
    """Reference held in memory; None unless `reference_mode` is `live` or `adapter_off`."""

    def __init__(
        self,
        policy: PolicySpec,
        optimizer: OptimizerCallable,
        schedule: Schedule = "cosine",
        warmup: float = 0.05,
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        self.policy_spec, self._make_optimizer = policy, optimizer
        self.schedule, self.warmup, self.max_length = schedule, warmup, max_length
        self.base_weights = ""  # Hash of the policy as it was loaded.
        # Outside the module tree: neither trained, nor saved, nor counted.
        self.__dict__["reference"] = None
        self.cached: CachedReference | None = None
        self.cached_tower: CachedVisionFeatures | None = None
        self.dropped: Counter[str] = Counter()
        self._empty_batch_guard = EmptyBatchGuard(lambda: self.collator("raise")([STAND_IN]))
        self._running_means = {"train": RunningMeans(), "val": RunningMeans()}
        self.tallies = {"train": SampleTally(), "val": SampleTally()}
        """Kept and dropped samples of this epoch, and of this pass over validation data."""
        self._step_is_empty = False  # Whether no process has a sample in this step.
        self._tree_is_checked = self._gradients_are_checked = False
        self.schedule_epochs: int | None = None
        """Epochs that the schedule spans from `schedule_start` on; the whole run unless set."""
        self.schedule_start = 0
        """Step at which the schedule began."""

    @abstractmethod
    def dialogues(self, sample: Sample) -> Sequence[Dialogue]:
        """Return the dialogues of a sample: equally many for each sample, their scored turns numbered.

        Raises:
            BadSample: the sample lacks what the objective learns from.
        """

    @abstractmethod
    def objective(self, batch: Batch) -> LossOutput:
        """Return a batch's contribution to the loss and the logged figures of its step."""

    def end_step(self) -> None:
        """Hook after the last batch of a step; all processes call it together."""

    def configure_model(self) -> None:
        if hasattr(self, "policy"):
            return
        self.policy, self.__dict__["reference"] = load_policy(
            self.policy_spec, self.processor, self.reference_mode, sharding_of(get_attached_trainer(self))
        )
        self.base_weights = fingerprint(self.policy)
        if self.reference_mode == "cached":
            self.cached = CachedReference(self.policy, self.policy_spec, self.processor)

    def on_fit_start(self) -> None:
        if self.reference is not None and self.reference.copy is not None:
            # The strategy has converted the policy, of which this is an earlier copy.
            self.trainer.strategy.precision_plugin.convert_module(self.reference.copy).to(self.device)

    on_validation_start = on_fit_start

    @cached_property
    def processor(self) -> Processor:
        """The policy's processor."""
        return load_processor(self.policy_spec)

    @property
    def reading(self) -> dict[str, object]:
        """Everything that decides which tokens a sample becomes, as JSON."""
        limits = {"max_length": self.max_length, "max_positions": self._max_positions}
        return {"objective": type(self).__name__, "processor": processor_hash(self.processor), **limits}

    def collator(self, on_bad_sample: OnBadSample) -> Collator:
        """Return the collator that makes this objective's batches."""
        limits = (self.parts, self.max_length, on_bad_sample, self._max_positions)
        return Collator(Chat(self.processor), self.dialogues, *limits)

    @property
    def _max_positions(self) -> int | None:
        return positions_of(self.policy_spec, getattr(self, "policy", None))

    def known(self, samples: ShardSet, batch_size: int, how: LoaderOptions) -> Sidecars | None:
        """Return log-ps under a cached reference, computed now where missing; `how` are options of the loader."""
        return self.cached.sidecars(samples, self.trainer, batch_size, how) if self.cached else None

    def features(self, samples: ShardSet, num_workers: int) -> Sidecars:
        """Return features of the samples' images from the frozen vision tower, computed now where they are missing."""
        if self.cached_tower is None:
            self.cached_tower = CachedVisionFeatures(self.policy, self.policy_spec, self.processor)
        return self.cached_tower.sidecars(samples, self.trainer, num_workers)

    def score(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """(M,) log-ps of the batch's targets under the policy, and under the reference if there is one."""
        with self.reference.capture_vision_features() if self.reference else nullcontext():
            policy: Tensor = self.policy(batch)
        if self.reference:
            return policy, self.reference.token_logps(batch)
        if batch.precomputed.reference_logps is not None:
            return policy, batch.precomputed.reference_logps
        if self.cached and batch.accounting.is_stand_in:
            return policy, policy  # It has no weight, and no log-ps beside the shards.
        if self.cached:
            raise RunError("reference: cached needs batches of AlignmentDataModule, which carry its log-ps.")
        return policy, None

    def training_step(self, batch: Batch, _index: int) -> Tensor | None:
        self.dropped.update(reason for _, reason in batch.accounting.dropped)
        self.tallies["train"].add(batch)
        loss = self._training_loss(batch)
        if not is_accumulating(self.trainer):
            self.end_step()
            self._log("train")
        return loss

    def _training_loss(self, batch: Batch) -> Tensor | None:
        """Return the loss to be trained on; None for a lone process without samples."""
        step_counts = batch.accounting.step_counts
        self._step_is_empty = not batch.keys and (step_counts is None or not step_counts[0])
        computed = self._empty_batch_guard(batch, self.trainer)
        if computed is None:
            return None
        self._check_tree(computed)
        output = self._compute(computed, "train")
        # The trainer takes the mean over processes and batches of a sum over both.
        num_batches = self.trainer.world_size * self.trainer.accumulate_grad_batches
        return output.loss * (1 if step_counts is None else num_batches)

    def _compute(self, batch: Batch, stage: str) -> LossOutput:
        output = self.objective(batch)
        if batch.accounting.is_stand_in:
            output = output.without_weight()
        self._running_means[stage].add(output, batch.counts)
        return output

    def on_before_optimizer_step(self, _optimizer: torch.optim.Optimizer) -> None:
        if self._step_is_empty:
            self.policy.zero_grad()  # An optimiser skips weights without a gradient; on zeros it would decay them.

    def _check_tree(self, batch: Batch) -> None:
        if self._tree_is_checked or self.policy.attention == "rows":
            return
        # All processes at the same batch: those that share a sharded policy compute in step.
        if self.trainer.strategy.reduce_boolean_decision(self.policy.shares(batch)):
            self._tree_is_checked = check_tree(self.policy, batch)

    def on_validation_epoch_start(self) -> None:
        self.tallies["val"] = SampleTally()

    def validation_step(self, batch: Batch, _index: int) -> None:
        self.tallies["val"].add(batch)
        computed = self._empty_batch_guard(batch, self.trainer)
        if computed is not None:
            self._compute(computed, "val")

    def on_validation_epoch_end(self) -> None:
        self.tallies["val"].check("data.val")
        self._log("val", on_step=False, on_epoch=True, sync_dist=self.trainer.world_size > 1)

    def _log(self, stage: str, **options: Any) -> None:
        for name, value in self._running_means[stage].take(self.trainer).items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "loss", **options)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # With names, so that an optimiser may treat matrices of layers and embeddings differently.
        named = [(name, p) for name, p in self.policy.named_parameters() if p.requires_grad]
        optimizer = self._make_optimizer(named)
        self._optimizer_settings = [
            {key: value for key, value in group.items() if key not in ("params", "param_names")}
            for group in optimizer.param_groups
        ]
        return optimizer

    def on_train_start(self) -> None:
        follow_schedule(self.trainer)
        # A checkpoint restores the settings that it was saved with; those of the config win.
        for group, settings in zip(self._param_groups, self._optimizer_settings, strict=True):
            group.update(settings, initial_lr=settings["lr"])

    def on_train_epoch_start(self) -> None:
        # Shards, and with them the length of the run, may change between epochs.
        self.__dict__.pop("_planned_steps", None)
        self.tallies["train"] = SampleTally()

    def on_train_epoch_end(self) -> None:
        self.tallies["train"].check(f"the shards of epoch {self.current_epoch}")

    @cached_property
    def _planned_steps(self) -> int:
        max_epochs = self.trainer.max_epochs
        return total_steps(self.trainer, self.schedule_epochs or (-1 if max_epochs is None else max_epochs))

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        if self.cached:
            self.cached.mark_policy_changed()
        # Dropout depends on the position alone, so that a resumed run equals an uninterrupted one.
        torch.manual_seed(derive(run_seed(), "step", self.current_epoch, index, self.global_rank))
        factor = lr_factor(
            self.global_step - self.schedule_start, self._planned_steps, self.warmup, self.schedule
        )
        for group in self._param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.log("train/lr", self._param_groups[0]["lr"])

    @property
    def _param_groups(self) -> list[dict[str, Any]]:
        return self.optimizers().param_groups  # type: ignore[union-attr]  # One optimiser.

    def on_after_backward(self) -> None:
        if not self._gradients_are_checked:
            self._gradients_are_checked = checks.check_gradients(self.policy)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Only the process that writes the checkpoint has all of the state.
        state, trained = checkpoint["state_dict"], self._trained_names()
        checkpoint["state_dict"] = {name: state[name] for name in trained if name in state}
        checkpoint["base"] = checks.origin_of(self)
        checkpoint["tally"] = self.tallies["train"].state_dict()
        if self.cached:
            checkpoint["reference"] = self.cached.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the frozen weights, which are not in the checkpoint, to the trained ones.

        Raises:
            RunError: the checkpoint is of another objective, model or set of trained weights.
        """
        checks.check_resumed(checkpoint, self._trained_names(), checks.origin_of(self))
        checkpoint["state_dict"] = {**self.state_dict(), **checkpoint["state_dict"]}
        self.tallies["train"] = SampleTally(checkpoint.get("tally") if self.global_rank == 0 else None)
        if self.cached:
            self.cached.load_state_dict(checkpoint.get("reference", self.cached.state_dict()))

    def trained_state(self) -> dict[str, Tensor]:
        """Return the trained part of the state by name; tied weights are one tensor with several names."""
        state = self.state_dict(keep_vars=True)
        return {name: state[name] for name in self._trained_names()}

    def _trained_names(self) -> list[str]:
        # With duplicates: a tied head has its own name in the state.
        named = self.named_parameters(remove_duplicate=False)
        frozen = {name for name, parameter in named if not parameter.requires_grad}
        return [name for name in self.state_dict() if name not in frozen]
