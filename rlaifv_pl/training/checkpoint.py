"""Checkpoints from which the same run goes on."""

import os
import re
import sys
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from rlaifv_pl.data.atomic import TEMPORARY_SUFFIX
from rlaifv_pl.data.lightning_utils import get_callbacks
from rlaifv_pl.training.best_checkpoint import BestCheckpoint
from rlaifv_pl.training.checkpoint_io import AtomicCheckpointIO, sweep
from rlaifv_pl.training.held_out import HeldOutEvaluation
from rlaifv_pl.training.sharded_checkpoint import are_complete

_NAME = re.compile(r"epoch\d+-step(\d+)(?:-v\d+)?\.ckpt")
CHECKPOINTS, LAST = "checkpoints", "last"
"""Where in a run's directory checkpoints lie, and how the newest is asked for."""
TORN_SUFFIX = ".torn"
BEST = "best"
"""Name of the link to the best one."""


class RunCheckpoint(ModelCheckpoint):
    """Saves during and after each epoch, keeps the newest, and links the last one; and the best one, if it is told
    which held-out figure says so.

    `--ckpt_path last` resumes from the newest that is whole, whether it is linked or not, and starts fresh when there
    is none. One that is torn is set aside.

    Args:
        every_n_train_steps: optimiser updates between checkpoints; 0 for the ends of epochs only.
        train_time_interval: wall time between checkpoints, instead of steps.
        save_top_k: number of the newest that stay on disk, at least 2: one is whole while another is written.
        monitor: a held-out figure, such as held_out/chair/CHAIRi: a step at which it is better than ever after a step
            is saved, too, stays on disk beside the newest, and is linked as `best.ckpt`.
        mode: whether less of it is better, or more; as the figure's name says unless given.
    """

    def __init__(
        self,
        every_n_train_steps: int = 0,
        train_time_interval: timedelta | None = None,
        save_top_k: int = 2,
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
    ) -> None:
        if save_top_k < 2:
            raise ValueError(
                f"checkpoint.save_top_k is {save_top_k}, expected at least 2: one whole one beside the one in writing"
            )
        super().__init__(
            filename="epoch{epoch}-step{step}",
            auto_insert_metric_name=False,
            monitor="step",
            mode="max",
            save_top_k=save_top_k,
            save_last="link",
            # Else a run that is started afresh in an old directory leaves `last` to the old one.
            enable_version_counter=False,
            every_n_train_steps=None if train_time_interval else every_n_train_steps,
            every_n_epochs=None if train_time_interval or every_n_train_steps else 0,
            train_time_interval=train_time_interval,
        )
        self.best = BestCheckpoint(monitor, mode)
        self._linked_best, self._is_taken_up = "", False
        self._stops_later, self._is_due = False, False

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """Lightning asks for `last` here. A kill may fall between saving and linking, or tear what was not yet on
        disk when the machine went down."""
        directory = Path(self.dirpath or os.path.join(trainer.default_root_dir, CHECKPOINTS))
        saved = saved_checkpoints(directory)
        # A run that was started afresh here may have come less far than the one before it, whose files stay.
        linked = directory / f"{self.CHECKPOINT_NAME_LAST}.ckpt"
        floor = linked.stat().st_mtime_ns if linked.exists() else 0

        def newness(path: Path) -> tuple[bool, int, int]:
            saved_at = path.stat().st_mtime_ns
            return saved_at >= floor, step_of(path), saved_at

        for path in sorted(saved, key=newness, reverse=True):
            if is_whole(path):
                return {str(path)}
            aside = path.with_name(path.name + TORN_SUFFIX)
            if trainer.is_global_zero:
                path.replace(aside)
                sys.stderr.write(f"{path} is torn, and now called {aside.name}; the one before it is taken\n")
        return set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.dirpath is None:
            self.dirpath = os.path.join(trainer.default_root_dir, CHECKPOINTS)
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self.best.figure is not None:
            self.best.check(_held_out(trainer).names if _held_out(trainer) else [])
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if stage == "fit" and trainer.is_global_zero:
            sweep(Path(self.dirpath))
        # With max_steps set, Lightning would take the end of an epoch for the middle of it on resuming.
        trainer.fit_loop._iteration_based_training = lambda: False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stops_later = self._is_due = False
        super().on_train_start(trainer, pl_module)
        self._take_up(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_taken_up:  # Killed when all was trained: nothing was left to start.
            self._take_up(trainer)

    def _take_up(self, trainer: Trainer) -> None:
        """Bring files and links to where the checkpoint is that the run goes on from."""
        self._is_taken_up = True
        if (path := trainer.ckpt_path) is not None:
            self._take_stock(trainer)
            if Path(path).absolute().parent == Path(self.dirpath).absolute():
                last = Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
                self._link_checkpoint(trainer, str(path), str(last))
        if self.best.figure is not None:
            self._take_best(trainer)

    def _take_stock(self, trainer: Trainer) -> None:
        """Count what lies there. A checkpoint does not know of those that were saved after it, nor a killed run of the
        one that it was about to remove: without this each kill would leave some for ever."""
        found = saved_checkpoints(Path(self.dirpath)) if trainer.is_global_zero else []
        found = [path for path in trainer.strategy.broadcast(found) if step_of(path) <= trainer.global_step]
        for path in found[: -self.save_top_k]:
            if path.name != self.best.name:
                trainer.strategy.remove_checkpoint(path)
        # Lightning compares these with the steps that come.
        steps = {str(path): torch.tensor(float(step_of(path))) for path in found[-self.save_top_k :]}
        if len(steps) == self.save_top_k:
            self.best_k_models = steps
            self.kth_best_model_path, *_, self.best_model_path = steps
            self.kth_value, *_, self.best_model_score = steps.values()

    @staticmethod
    def _link_checkpoint(trainer: Trainer, filepath: str, linkpath: str) -> None:
        # Lightning's own removes the link before it makes the new one: a kill between leaves a run without `last`.
        link = Path(linkpath)
        if trainer.is_global_zero and os.path.abspath(filepath) != os.path.abspath(linkpath):
            aside = link.with_name(link.name + TEMPORARY_SUFFIX)
            aside.unlink(missing_ok=True)
            aside.symlink_to(os.path.relpath(filepath, link.parent))
            os.replace(aside, link)
        trainer.strategy.barrier()

    def _should_remove_checkpoint(self, trainer: Trainer, previous: str, current: str) -> bool:
        # Lightning keeps the one that a run went on from, too, though newer ones are there.
        if Path(previous).name in (self.best.name, self._linked_best):
            return False
        return previous != current and Path(self.dirpath).absolute() in Path(previous).absolute().parents

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        # The end of the epoch follows at once and saves by itself; a step checkpoint between the last
        # batch and the end of its epoch resumes wrongly when the next epoch has another length. And
        # between accumulated batches, the gradient of the first ones would be lost.
        loop = trainer.fit_loop.epoch_loop
        self._stop_between_steps(trainer)
        if loop.batch_progress.is_last_batch or loop._should_accumulate():
            return
        if _validates(trainer):
            self._is_due = True  # A run that goes on from here would leave out the validation.
        else:
            self._save_step(trainer, *args)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._stop_between_steps(trainer)
        if self._is_due:
            self._is_due = False
            self._save_step(trainer, pl_module, None, None, 0)

    def _save_step(self, trainer: Trainer, *args: Any) -> None:
        # One that ends within an epoch is not to be taken for one that ended with it.
        is_over = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if self._is_best(trainer) or is_over:
            self.save(trainer)
        else:
            super().on_train_batch_end(trainer, *args)

    def _stop_between_steps(self, trainer: Trainer) -> None:
        """Put off a stop, of a clock or of a figure, until the step has ended: what was accumulated would be lost."""
        self._stops_later |= trainer.should_stop
        trainer.should_stop = self._stops_later and not trainer.fit_loop.epoch_loop._should_accumulate()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_best(trainer)
        self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if self._is_best(trainer):
            self._link_best(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save now, at the end of a step, unless this step was saved already."""
        if not self._should_skip_saving_checkpoint(trainer):
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)
            self._link_best(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best": self.best.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.best.load_state_dict(state_dict.get("best", {}))

    def _is_best(self, trainer: Trainer) -> bool:
        """Whether this step was measured, and is better than all before it; it is the best from now on."""
        held = _held_out(trainer)
        if self.best.figure is None or held.step != trainer.global_step or trainer.global_step == 0:
            return False
        is_saved = self._last_global_step_saved == trainer.global_step
        name = f"epoch{trainer.current_epoch}-step{trainer.global_step}{self.FILE_EXTENSION}"
        return self.best.takes(
            held.values[self.best.figure], Path(self._last_checkpoint_saved).name if is_saved else name
        )

    def _take_best(self, trainer: Trainer) -> None:
        """Link the best one that the checkpoint knows of, or none: a kill may have come between, or the link may be of
        another run in this directory."""
        path = Path(self.dirpath) / self.best.name
        if not self.best.name or not trainer.strategy.broadcast(path.exists()):
            self.best.forget()
            if trainer.is_global_zero:
                self._best_link.unlink(missing_ok=True)
        self._link_best(trainer)

    def _link_best(self, trainer: Trainer) -> None:
        before, self._linked_best = self._linked_best, self.best.name
        if self.best.name == before:
            return
        path = Path(self.dirpath) / self.best.name
        self._link_checkpoint(trainer, str(path), str(self._best_link))
        newest = {Path(kept).name for kept in self.best_k_models}
        if before and before not in newest:
            trainer.strategy.remove_checkpoint(Path(self.dirpath) / before)

    @property
    def _best_link(self) -> Path:
        return Path(self.dirpath) / f"{BEST}{self.FILE_EXTENSION}"


def is_whole(path: Path) -> bool:
    """Whether a file is a checkpoint to its end, where its table of contents stands; or a directory of slices."""
    return are_complete(path) if path.is_dir() else path.is_file() and zipfile.is_zipfile(path)


def _validates(trainer: Trainer) -> bool:
    """Whether a validation follows this batch by its number: not by a clock, nor since the run stops."""
    stops, trainer.should_stop = trainer.should_stop, False
    is_due = trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
    trainer.should_stop = stops
    return is_due and trainer._val_check_time_interval is None  # type: ignore[attr-defined]


def _held_out(trainer: Trainer) -> HeldOutEvaluation | None:
    return next(
        (callback for callback in get_callbacks(trainer) if isinstance(callback, HeldOutEvaluation)), None
    )


def saved_checkpoints(directory: Path) -> list[Path]:
    """Checkpoints in a directory, by their steps."""
    there = [path for path in directory.glob("epoch*.ckpt") if _NAME.fullmatch(path.name)]
    return sorted(there, key=step_of)


def step_of(path: Path) -> int:
    """Number of updates after which a checkpoint was saved, by its name."""
    return int(_NAME.fullmatch(path.name)[1])
