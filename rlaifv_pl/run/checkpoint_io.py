"""Checkpoint files that are written where they belong."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from rlaifv_pl.data.atomic import atomic_file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its name, straight from the tensors.

    Lightning's own makes a copy in memory, then one among the system's temporary files: a disk that may be too small
    for it, from which the way to another one is again a copy, under the real name, which a kill tears.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        if storage_options is not None:
            raise TypeError("a checkpoint in a local file has no storage_options")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(Path(path)) as file:
            torch.save(checkpoint, file)


def write_in_place(trainer: Trainer) -> None:
    """Let a trainer save so, unless it was given a plugin of its own for it."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
