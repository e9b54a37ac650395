"""Processes that compute in step: each has a batch when the others have one."""

from dataclasses import replace

from lightning.pytorch import Trainer

from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives.checks import RunError


class InStep:
    """Puts the batch before, at no weight, in the place of one whose samples were all left out."""

    def __init__(self) -> None:
        self._last: Batch | None = None

    def __call__(self, batch: Batch, trainer: Trainer) -> Batch | None:
        """The batch, or one in its place; None for a lone process, which needs none.

        Raises:
            RunError: there was none before.
        """
        if trainer.world_size == 1:
            return batch if batch.keys else None
        if batch.keys:
            self._last = batch
            return batch
        if self._last is None:
            raise RunError(
                f"No sample of the first batch of rank {trainer.global_rank} could be used ({batch.dropped}), and the "
                "other ranks cannot step without it. Remove these samples: `rlaifv shards verify` lists them."
            )
        return replace(self._last, among=batch.among, share=0.0, weight=batch.weight)
