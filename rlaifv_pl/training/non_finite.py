"""A guard against losses and gradients that are not finite, so that they never reach the optimiser."""

import math
import statistics
from collections import deque
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.optim import Optimizer

from rlaifv_pl.console import stderr
from rlaifv_pl.models.sharding import full_tensor
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives.base import AlignmentModule, RunError

MAX_KEYS = 16
"""Number of keys that a message names."""


class NonFiniteGuard(Callback):
    """Checks each step's losses and gradients before they change a weight.

    Args:
        on_bad: `stop` ends the run at a loss or gradient that is not finite; `skip` skips the step with a message.
            Both name the samples.
        spike_factor: a step's loss above this multiple of the median of recent losses is reported with its samples,
            and trained on all the same. 0 reports none.
        spike_window: number of recent losses that the median is taken over.
        max_skips: number of consecutive steps that may be skipped before the run stops anyway.
    """

    def __init__(
        self,
        on_bad: Literal["stop", "skip"] = "stop",
        spike_factor: float = 5.0,
        spike_window: int = 50,
        max_skips: int = 10,
    ) -> None:
        if not (spike_factor == 0 or spike_factor > 1) or spike_window < 1 or max_skips < 1:
            raise ValueError(
                "non_finite: expected spike_factor above 1 (or 0 for none), spike_window >= 1 and max_skips >= 1, got "
                f"{spike_factor}, {spike_window} and {max_skips}"
            )
        self.on_bad, self.spike_factor, self.max_skips = on_bad, spike_factor, max_skips
        self._losses: deque[float] = deque(maxlen=spike_window)
        self._step: list[tuple[list[str], Tensor]] = []
        """Keys and loss of each batch since the last step."""
        self._skipped = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: AlignmentModule, batch: Batch, batch_idx: int
    ) -> None:
        self._keys = batch.keys

    def on_before_backward(self, trainer: Trainer, pl_module: AlignmentModule, loss: Tensor) -> None:
        self._step.append((self._keys, loss.detach()))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: AlignmentModule, optimizer: Optimizer
    ) -> None:
        """Drop the gradients of a step that is not finite on any rank.

        Raises:
            RunError: a step is not finite, and `on_bad` is `stop`, or more than `max_skips` were skipped in a row.
        """
        step, self._step = self._step, []
        losses = [loss.item() for _, loss in step]
        # A loss scaled for float16 overflows now and then; its scaler skips such steps.
        is_scaled = isinstance(trainer.precision_plugin, MixedPrecision) and trainer.precision_plugin.scaler
        is_non_finite = not all(map(math.isfinite, losses)) or not (is_scaled or _is_finite(optimizer))
        if trainer.strategy.reduce_boolean_decision(is_non_finite, all=False):
            self._reject(
                trainer, optimizer, [(keys, loss) for (keys, _), loss in zip(step, losses, strict=True)]
            )
            return
        self._skipped = 0
        # The trainer takes the mean over processes of what the batches of each add to the loss of the step.
        ranks = _gather([(sum(losses), [key for keys, _ in step for key in keys])])
        if keys := [key for _, rank_keys in ranks for key in rank_keys]:
            self._report_spike(trainer, keys, sum(loss for loss, _ in ranks) / len(ranks))

    def _reject(self, trainer: Trainer, optimizer: Optimizer, step: list[tuple[list[str], float]]) -> None:
        self._skipped += 1
        culprits = _gather([(keys, loss) for keys, loss in step if not math.isfinite(loss)])
        what = "a non-finite loss" if culprits else "non-finite gradients"
        keys = [key for batch_keys, _ in culprits or _gather(step) for key in batch_keys]
        message = f"step {trainer.global_step} has {what}; its samples are {_join_keys(keys)}"
        if self.on_bad == "stop" or self._skipped > self.max_skips:
            raise RunError(
                f"{message}. No weight was changed. Look at these samples (`rlaifv shards show`), lower the "
                "learning rate, or set non_finite.on_bad: skip."
            )
        _print(trainer, f"skipped: {message}")
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None  # An optimiser skips parameters without gradients.

    def _report_spike(self, trainer: Trainer, keys: list[str], loss: float) -> None:
        median = statistics.median(self._losses) if len(self._losses) == self._losses.maxlen else math.inf
        if self.spike_factor and abs(loss) > self.spike_factor * abs(median) > 0:
            _print(
                trainer,
                f"step {trainer.global_step}: loss {loss:.3g}, the median is {median:.3g}; {_join_keys(keys)}",
            )
        self._losses.append(loss)


def _is_finite(optimizer: Optimizer) -> bool:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return bool(torch.isfinite(full_tensor(torch.nn.utils.get_total_norm(gradients))).item())


def _gather(values: list[Any]) -> list[Any]:
    """Concatenate the lists of all processes."""
    if not dist.is_initialized():
        return values
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, values)
    return [value for part in parts for value in part]


def _join_keys(keys: list[str]) -> str:
    return ", ".join(keys[:MAX_KEYS]) + (f" and {len(keys) - MAX_KEYS} more" if len(keys) > MAX_KEYS else "")


def _print(trainer: Trainer, line: str) -> None:
    if trainer.is_global_zero:
        stderr.print(line, highlight=False, soft_wrap=True)
