"""Loggers of a run that may be interrupted and resumed: one table, no row lost, none twice."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from rlaifv_pl.data.atomic import atomic_file, writing
from rlaifv_pl.lightning_compat import get_step_metrics


class _ResumableWriter(ExperimentWriter):
    """Appends to an existing table, which Lightning's own writer deletes."""

    def save(self) -> None:
        with writing(self.metrics_file_path):
            super().save()

    def _check_log_dir_exists(self) -> None:
        rows = self._rows()
        self.metrics_keys = list(rows[0]) if rows else []

    def resume(self, step: int, last: dict[str, float]) -> None:
        """Drop the rows of updates that will be repeated, and add the one that a kill may have left out.

        Args:
            step: number of updates made.
            last: row of the last update, which was not yet written when the checkpoint was saved.
        """
        rows = [row for row in self._rows() if int(row["step"]) < step]
        self._write(rows, self.metrics_keys)
        if not rows:  # The table is another run's, and so are its columns.
            self.metrics_keys = []
            Path(self.metrics_file_path).unlink(missing_ok=True)
        # Held-out figures have rows of their own, which are written before a checkpoint is saved.
        rows_of_step = [row for row in rows if int(row["step"]) == step - 1]
        if last and not any(row.get(name) for row in rows_of_step for name in last if name != "epoch"):
            self.log_metrics(last, step - 1)
            self.save()

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self._write(self._rows(), fieldnames)

    def _rows(self) -> list[dict[str, str]]:
        if not os.path.isfile(self.metrics_file_path):
            return []
        with open(self.metrics_file_path, newline="") as file:
            # A line without its end was being written when the run was killed.
            return list(csv.DictReader(line for line in file if line.endswith("\n")))

    def _write(self, rows: list[dict[str, str]], fieldnames: list[str]) -> None:
        """Replace the table atomically."""
        if fieldnames:
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, fieldnames=fieldnames)
            writer.writeheader()
            writer.writerows(rows)
            with atomic_file(Path(self.metrics_file_path)) as file:
                file.write(text.getvalue().encode())


class RunCSVLogger(CSVLogger):
    """Writes `metrics.csv` in the run's directory: a row for each step and validation, continued on resuming.

    Args:
        directory: directory of the run.
    """

    def __init__(self, directory: str) -> None:
        super().__init__(directory, name="", version="", flush_logs_every_n_steps=1)

    @property
    @rank_zero_experiment
    def experiment(self) -> _ResumableWriter:
        if self._experiment is None:
            with writing(self.log_dir):
                os.makedirs(self.log_dir, exist_ok=True)
            self._experiment = _ResumableWriter(log_dir=self.log_dir)
        return self._experiment  # type: ignore[return-value]  # Declared by the base class; set here alone.

    @property
    def log_dir(self) -> str:
        return self.save_dir

    def log_metrics(self, metrics: dict[str, Tensor | float], step: int | None = None) -> None:
        super().log_metrics(_with_epochs_from_1(metrics), step)


class RunTensorBoard(TensorBoardLogger):
    """Writes event files in `tensorboard` in the run's directory; an error names the file that cannot be written.

    Args:
        directory: directory of the run.
    """

    def __init__(self, directory: str) -> None:
        super().__init__(directory, name="tensorboard", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        with writing(self.log_dir):
            return super().experiment

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with writing(self.log_dir):  # Lightning would say that the value is not supported.
            super().log_metrics(_with_epochs_from_1(metrics), step)


def _with_epochs_from_1(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics with epochs counted from 1; Lightning counts them from 0."""
    return {name: value + 1 if name == "epoch" else value for name, value in metrics.items()}


class ResumeLogs(Callback):
    """Resumes `metrics.csv` where the checkpoint was saved."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Lightning saves first and logs the same step afterwards; a kill may fall between.
        logged = get_step_metrics(trainer)
        row = {name: float(value) for name, value in logged.items()}
        checkpoint["last_row"] = row and {"epoch": trainer.current_epoch + 1, **row}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._last = checkpoint.get("last_row", {})

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, RunCSVLogger):
                logger.experiment.resume(trainer.global_step, self._last)
        self._last = {}


def default_loggers(directory: str) -> list[CSVLogger | TensorBoardLogger]:
    """`metrics.csv`, and event files for TensorBoard, both in the run's directory."""
    return [RunCSVLogger(directory), RunTensorBoard(directory)]
