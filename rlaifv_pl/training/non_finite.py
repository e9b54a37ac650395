"""Numbers that go bad: a loss or a gradient that is none never reaches the optimiser."""

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

SHOWN = 16
"""Keys that a message names."""


class NonFiniteGuard(Callback):
    """Looks at each step's losses and gradients before they change a weight.

    Args:
        on_bad: `stop` ends the run at a loss or gradient that is infinite or no number; `skip` leaves the step out,
            says so, and goes on. Either names the samples.
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
        """Let a step with bad numbers on any rank change nothing.

        Raises:
            RunError: there are some, and steps are not to be left out.
        """
        step, self._step = self._step, []
        losses = [loss.item() for _, loss in step]
        # A loss that is scaled for float16 overflows in good health; its scaler leaves such steps out.
        scales = isinstance(trainer.precision_plugin, MixedPrecision) and trainer.precision_plugin.scaler
        is_bad = not all(map(math.isfinite, losses)) or not (scales or _is_finite(optimizer))
        if trainer.strategy.reduce_boolean_decision(is_bad, all=False):
            self._refuse(
                trainer, optimizer, [(keys, loss) for (keys, _), loss in zip(step, losses, strict=True)]
            )
            return
        self._skipped = 0
        # The trainer takes the mean over processes of what the batches of each add to the loss of the step.
        parts = _gather([(sum(losses), [key for keys, _ in step for key in keys])])
        if keys := [key for _, own in parts for key in own]:
            self._report_spike(trainer, keys, sum(loss for loss, _ in parts) / len(parts))

    def _refuse(self, trainer: Trainer, optimizer: Optimizer, step: list[tuple[list[str], float]]) -> None:
        self._skipped += 1
        blamed = _gather([(keys, loss) for keys, loss in step if not math.isfinite(loss)])
        what = "a loss that is no finite number" if blamed else "gradients that are no finite numbers"
        keys = [key for part, _ in blamed or _gather(step) for key in part]
        message = f"step {trainer.global_step} has {what}; its samples are {_named(keys)}"
        if self.on_bad == "stop" or self._skipped > self.max_skips:
            raise RunError(
                f"{message}. No weight was changed by it. Look at these samples (`rlaifv shards show`), lower the "
                "learning rate, or set non_finite.on_bad: skip."
            )
        _say(trainer, f"left out: {message}")
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None  # An optimiser passes over what has none.

    def _report_spike(self, trainer: Trainer, keys: list[str], loss: float) -> None:
        usual = statistics.median(self._losses) if len(self._losses) == self._losses.maxlen else math.inf
        if self.spike_factor and abs(loss) > self.spike_factor * abs(usual) > 0:
            _say(
                trainer, f"step {trainer.global_step}: loss {loss:.3g}, {usual:.3g} is usual; {_named(keys)}"
            )
        self._losses.append(loss)


def _is_finite(optimizer: Optimizer) -> bool:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return bool(torch.isfinite(full_tensor(torch.nn.utils.get_total_norm(gradients))).item())


def _gather(values: list[Any]) -> list[Any]:
    """Of all processes."""
    if not dist.is_initialized():
        return values
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, values)
    return [value for part in parts for value in part]


def _named(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


def _say(trainer: Trainer, line: str) -> None:
    if trainer.is_global_zero:
        stderr.print(line, highlight=False, soft_wrap=True)
