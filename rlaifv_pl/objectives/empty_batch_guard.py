"""A batch for each process whenever others have one, since they compute in step."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

from lightning.pytorch import Trainer

from rlaifv_pl.models.vlm import Accounting, Batch
from rlaifv_pl.records import Correction, Sample

STAND_IN = Sample(
    key="stand-in",
    prompt="Is it?",
    chosen="Yes.",
    rejected="No.",
    corrections=(Correction(question="Is it?", answer="Yes."),),
)
"""Short sample that every objective can read, for a process without one."""


class EmptyBatchGuard:
    """Replaces a batch without samples by one of weight 0.

    Args:
        make: function that returns a batch of `STAND_IN`.
    """

    def __init__(self, make: Callable[[], Batch]) -> None:
        self._make = make

    @cached_property
    def _stand_in(self) -> Batch:
        return replace(self._make(), accounting=Accounting(is_stand_in=True))

    def __call__(self, batch: Batch, trainer: Trainer) -> Batch | None:
        """Return the batch or its replacement; None for a lone process, which needs none."""
        if batch.keys:
            return batch
        if trainer.world_size == 1:
            return None
        stand_in: Batch = trainer.strategy.batch_to_device(copy.deepcopy(self._stand_in))
        stand_in.accounting.step_counts = batch.accounting.step_counts
        return stand_in
