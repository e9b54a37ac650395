"""Checkpoints from which the same run goes on."""

import os
import re
import sys
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from rlaifv_pl.data.atomic import sync
from rlaifv_pl.run.checkpoint_io import write_in_place

_NAME = re.compile(r"epoch\d+-step(\d+)(?:-v\d+)?\.ckpt")
TORN_SUFFIX = ".torn"


class RunCheckpoint(ModelCheckpoint):
    """Saves during and after each epoch, keeps the newest, and links the last one.

    `--ckpt_path last` resumes from the newest that is whole, whether it is linked or not, and starts fresh when there
    is none. One that is torn is set aside.

    Args:
        every_n_train_steps: optimiser updates between checkpoints; 0 for the ends of epochs only.
        train_time_interval: wall time between checkpoints, instead of steps.
        keep: how many of the newest stay on disk, at least 2: while one is written, the other is whole.
    """

    def __init__(
        self, every_n_train_steps: int = 0, train_time_interval: timedelta | None = None, keep: int = 2
    ) -> None:
        if keep < 2:
            raise ValueError(
                f"checkpoint.keep is {keep}, expected at least 2: one whole one beside the one in writing"
            )
        super().__init__(
            filename="epoch{epoch}-step{step}",
            auto_insert_metric_name=False,
            monitor="step",
            mode="max",
            save_top_k=keep,
            save_last="link",
            every_n_train_steps=None if train_time_interval else every_n_train_steps,
            every_n_epochs=None if train_time_interval or every_n_train_steps else 0,
            train_time_interval=train_time_interval,
        )

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """Lightning asks for `last` here. A kill may fall between saving and linking, or tear what was not yet on
        disk when the machine went down."""
        directory = Path(self.dirpath or os.path.join(trainer.default_root_dir, "checkpoints"))
        saved = [path for path in directory.glob("epoch*.ckpt") if _NAME.fullmatch(path.name)]
        for path in sorted(saved, key=lambda path: (_step(path), path.stat().st_mtime_ns), reverse=True):
            if is_whole(path):
                return {str(path)}
            aside = path.with_name(path.name + TORN_SUFFIX)
            if trainer.is_global_zero:
                path.replace(aside)
                sys.stderr.write(f"{path} is torn, and now called {aside.name}; the one before it is taken\n")
        return set()

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero and os.path.isfile(filepath):
            sync(Path(filepath))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.dirpath is None:
            self.dirpath = os.path.join(trainer.default_root_dir, "checkpoints")
        super().setup(trainer, pl_module, stage)
        write_in_place(trainer)
        # With max_steps set, Lightning would take the end of an epoch for the middle of it on resuming.
        trainer.fit_loop._iteration_based_training = lambda: False

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        # The end of the epoch follows at once and saves by itself; a step checkpoint between the last
        # batch and the end of its epoch resumes wrongly when the next epoch has another length. And
        # between accumulated batches, the gradient of the first ones would be lost.
        loop = trainer.fit_loop.epoch_loop
        if not loop.batch_progress.is_last_batch and not loop._should_accumulate():
            super().on_train_batch_end(trainer, *args)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save now, at the end of a step, unless this step was saved already."""
        if not self._should_skip_saving_checkpoint(trainer):
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)


def is_whole(path: Path) -> bool:
    """Whether a file is a checkpoint to its end, where its table of contents stands."""
    return path.is_file() and zipfile.is_zipfile(path)


def _step(path: Path) -> int:
    return int(_NAME.fullmatch(path.name)[1])
