"""Times the first steps of a trial, and ends it before anything is saved."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.lightning_compat import is_accumulating, is_last_batch
from rlaifv_pl.objectives.base import AlignmentModule


class StepTimer(Callback):
    """Writes the seconds of each step, and the most memory that was taken, and ends the process.

    Args:
        out: the JSON file to write.
        steps: after which the trial is over; an epoch that has fewer ends it too.
    """

    def __init__(self, out: str, steps: int) -> None:
        self.out, self.steps = out, steps
        self._seconds: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        self._mark = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Take the time of an update; after the last one write all of them and end the process."""
        if is_accumulating(trainer):
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self._seconds.append(now - self._mark)
        self._mark = now
        if len(self._seconds) == self.steps or is_last_batch(trainer):
            peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
            with atomic_file(Path(self.out)) as file:
                file.write(json.dumps({"seconds": self._seconds, "memory": peak}).encode())
            # At once: the end of a run saves checkpoints and exports the policy, and nobody asked for those.
            os._exit(0)
