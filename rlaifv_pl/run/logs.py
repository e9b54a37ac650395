"""Logs of a run that is interrupted and goes on: one table, no row lost, none twice."""

import csv
import os
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only


class _Continuing(ExperimentWriter):
    """Adds to the table that is there, where Lightning's own would delete it."""

    def _check_log_dir_exists(self) -> None:
        if os.path.isfile(self.metrics_file_path):
            with open(self.metrics_file_path, newline="") as file:
                self.metrics_keys = list(csv.DictReader(file).fieldnames or [])

    def forget_from(self, step: int) -> None:
        """Drop the rows of updates that will be made again."""
        path = Path(self.metrics_file_path)
        if not self.metrics_keys:
            return
        with open(path, newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) < step]
        aside = path.with_suffix(".tmp")
        with open(aside, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)
        aside.replace(path)


class RunCSVLogger(CSVLogger):
    """`metrics.csv` in the run's directory, one row a step, continued when the run is.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: str) -> None:
        super().__init__(directory, name="", version="", flush_logs_every_n_steps=1)

    @property
    @rank_zero_experiment
    def experiment(self) -> _Continuing:
        if self._experiment is None:
            os.makedirs(self.log_dir, exist_ok=True)
            self._experiment = _Continuing(log_dir=self.log_dir)
        return self._experiment

    @property
    def log_dir(self) -> str:
        return self.save_dir


class ContinueLogs(Callback):
    """Tells the table at which step the run goes on."""

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, RunCSVLogger):
                logger.experiment.forget_from(trainer.fit_loop.epoch_loop._batches_that_stepped)


def default_loggers(directory: str) -> list[CSVLogger | TensorBoardLogger]:
    """`metrics.csv`, and event files for TensorBoard, both in the run's directory."""
    return [RunCSVLogger(directory), TensorBoardLogger(directory, name="tensorboard", version="")]
