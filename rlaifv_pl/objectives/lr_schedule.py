"""Learning rate as a function of the step, without state to restore.

Unlike transformers' schedules, the warm-up starts above 0, so that the first step trains.
"""

import math
import sys
from functools import partial
from typing import Literal

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from rlaifv_pl.data.lightning_utils import get_datamodule
from rlaifv_pl.lightning_compat import get_callbacks

Schedule = Literal["cosine", "linear", "constant"]


def lr_factor(step: int, total: int, warmup: float, schedule: Schedule) -> float:
    """Return the share of the peak learning rate at a step.

    Args:
        step: optimiser updates made so far.
        total: updates of the whole run.
        warmup: share of the run in which the rate rises from near 0 to its peak.
        schedule: decay after the warm-up.

    >>> [round(lr_factor(step, 10, 0.2, "cosine"), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warmup_steps = math.ceil(total * warmup)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total - warmup_steps))
    factors = {"cosine": (1 + math.cos(math.pi * progress)) / 2, "linear": 1 - progress, "constant": 1.0}
    return factors[schedule]


def total_steps(trainer: Trainer, epochs: int) -> int:
    """Count optimiser updates in a number of epochs of the present shards, or up to `trainer.max_steps`.

    Raises:
        ValueError: neither is limited.
    """
    batches, limit = get_datamodule(trainer).batches_per_epoch(), trainer.limit_train_batches
    steps = partial(count_updates, batches, limit)
    if (schedule := accumulation_of(trainer)) is None or epochs < 0:
        return steps(trainer.accumulate_grad_batches, trainer.max_steps, epochs)
    first = trainer.current_epoch // epochs * epochs
    updates = sum(
        steps(schedule.get_accumulate_grad_batches(first + epoch), -1, 1) for epoch in range(epochs)
    )
    return min(updates, trainer.max_steps if trainer.max_steps >= 0 else sys.maxsize)


def accumulation_of(trainer: Trainer) -> GradientAccumulationScheduler | None:
    """Return the callback that schedules gradient accumulation by epoch, if there is one."""
    callbacks = get_callbacks(trainer)
    return next((one for one in callbacks if isinstance(one, GradientAccumulationScheduler)), None)


def follow_schedule(trainer: Trainer) -> None:
    """Set this epoch's gradient accumulation; Lightning does so when an epoch starts, not when it is resumed."""
    if schedule := accumulation_of(trainer):
        trainer.accumulate_grad_batches = schedule.get_accumulate_grad_batches(trainer.current_epoch)


def count_updates(batches: int, limit: int | float, accumulated: int, max_steps: int, epochs: int) -> int:
    """Count optimiser updates in a number of epochs, or up to `max_steps`.

    Args:
        batches: batches a rank and epoch.
        limit: number of them to train on; a share of them, if it is a float.
        accumulated: batches an update.
        max_steps: -1 for no limit.
        epochs: -1 for no limit.

    Raises:
        ValueError: neither is limited.
    """
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = math.ceil(batches / accumulated) * epochs
    ends = [end for end in (steps, max_steps) if end >= 0]
    if not ends:
        raise ValueError("A run without an end has no schedule: set trainer.max_epochs or trainer.max_steps.")
    return min(ends)
