"""Checkpoints that a run resumes from."""

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
from rlaifv_pl.lightning_compat import (
    count_progress_in_epochs,
    get_callbacks,
    is_accumulating,
    is_last_batch,
    is_validation_due,
)
from rlaifv_pl.training.best_checkpoint import BestCheckpoint
from rlaifv_pl.training.checkpoint_io import AtomicCheckpointIO, remove_unfinished
from rlaifv_pl.training.held_out import HeldOutEvaluation
from rlaifv_pl.training.sharded_checkpoint import are_complete

_NAME = re.compile(r"epoch\d+-step(\d+)(?:-v\d+)?\.ckpt")
CHECKPOINTS, LAST = "checkpoints", "last"
"""Directory of a run's checkpoints, and the value of --ckpt_path that asks for the newest."""
TORN_SUFFIX = ".torn"
BEST = "best"
"""Name of the link to the best checkpoint."""


class RunCheckpoint(ModelCheckpoint):
    """Saves during and after each epoch, keeps the newest, and links the last one and the best one.

    `--ckpt_path last` resumes from the newest complete checkpoint, linked or not, and starts fresh when there is none.
    A damaged one is set aside.

    Args:
        every_n_train_steps: optimiser updates between checkpoints; 0 for the ends of epochs only.
        train_time_interval: wall time between checkpoints, instead of steps.
        save_top_k: number of newest checkpoints that stay on disk, at least 2: one is complete while another is
            written. The best one by `monitor` stays in addition.
        monitor: a held-out figure, such as held_out/chair/CHAIRi. A step that improves on it is saved and linked as
            `best.ckpt`.
        mode: whether lower or higher is better; told from the figure's name if None.
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
                f"checkpoint.save_top_k is {save_top_k}, expected at least 2: one is complete while another is written"
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
        self._linked_best, self._is_restored = "", False
        self._stops_later, self._saves_after_validation = False, False

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """Find what `--ckpt_path last` stands for.

        A kill may fall between saving and linking, and a machine that goes down may leave a file incomplete.
        """
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
                sys.stderr.write(
                    f"{path} is incomplete, and renamed to {aside.name}; using the one before it\n"
                )
        return set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.dirpath is None:
            self.dirpath = os.path.join(trainer.default_root_dir, CHECKPOINTS)
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self.best.figure is not None:
            held_out = _held_out(trainer)
            self.best.check(held_out.names if held_out else [])
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if stage == "fit" and trainer.is_global_zero:
            remove_unfinished(self._directory)
        count_progress_in_epochs(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stops_later = self._saves_after_validation = False
        super().on_train_start(trainer, pl_module)
        self._restore_files(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_restored:  # Killed when all was trained: nothing was left to start.
            self._restore_files(trainer)

    def _restore_files(self, trainer: Trainer) -> None:
        """Bring files and links into the state of the checkpoint that the run resumes from."""
        self._is_restored = True
        if (path := trainer.ckpt_path) is not None:
            self._recount_saved(trainer)
            if Path(path).absolute().parent == self._directory.absolute():
                last = self._directory / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
                self._link_checkpoint(trainer, str(path), str(last))
        if self.best.figure is not None:
            self._restore_best(trainer)

    def _recount_saved(self, trainer: Trainer) -> None:
        """Count the saved checkpoints anew, and remove those beyond `save_top_k`.

        A checkpoint does not know of those that were saved after it, nor a killed run of the one that it was about to
        remove: without this, each kill would leave some for ever.
        """
        saved = saved_checkpoints(self._directory) if trainer.is_global_zero else []
        saved = [path for path in trainer.strategy.broadcast(saved) if step_of(path) <= trainer.global_step]
        for path in saved[: -self.save_top_k]:
            if path.name != self.best.name:
                trainer.strategy.remove_checkpoint(path)
        # Lightning compares these with the steps to come.
        steps = {str(path): torch.tensor(float(step_of(path))) for path in saved[-self.save_top_k :]}
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
        return previous != current and self._directory.absolute() in Path(previous).absolute().parents

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        # The end of the epoch follows at once and saves by itself; a step checkpoint between the last
        # batch and the end of its epoch resumes wrongly when the next epoch has another length. And
        # between accumulated batches, the gradient of the first ones would be lost.
        self._stop_between_steps(trainer)
        if is_last_batch(trainer) or is_accumulating(trainer):
            return
        if is_validation_due(trainer):
            self._saves_after_validation = True  # A run that resumes from here would skip the validation.
        else:
            self._save_step(trainer, *args)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._stop_between_steps(trainer)
        if self._saves_after_validation:
            self._saves_after_validation = False
            self._save_step(trainer, pl_module, None, None, 0)

    def _save_step(self, trainer: Trainer, *args: Any) -> None:
        # One that ends within an epoch is not to be taken for one that ended with it.
        is_over = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if self._is_best(trainer) or is_over:
            self.save(trainer)
        else:
            super().on_train_batch_end(trainer, *args)

    def _stop_between_steps(self, trainer: Trainer) -> None:
        """Postpone a stop by a timer or a figure until the step has ended: accumulated gradients would be lost."""
        self._stops_later |= trainer.should_stop
        trainer.should_stop = self._stops_later and not is_accumulating(trainer)

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
        """Whether this step was measured, and is better than all before it; it is the best one from now on."""
        held_out, step = _held_out(trainer), trainer.global_step
        if self.best.figure is None or held_out is None or held_out.step != step or step == 0:
            return False
        name = f"epoch{trainer.current_epoch}-step{step}{self.FILE_EXTENSION}"
        if self._last_global_step_saved == step:
            name = Path(self._last_checkpoint_saved).name
        return self.best.update(held_out.values[self.best.figure], name)

    def _restore_best(self, trainer: Trainer) -> None:
        """Link the best checkpoint that the restored one knows of, or none.

        The link may be older than a kill, or of another run in this directory.
        """
        path = self._directory / self.best.name
        if not self.best.name or not trainer.strategy.broadcast(path.exists()):
            self.best.reset()
            if trainer.is_global_zero:
                self._best_link.unlink(missing_ok=True)
        self._link_best(trainer)

    def _link_best(self, trainer: Trainer) -> None:
        before, self._linked_best = self._linked_best, self.best.name
        if self.best.name == before:
            return
        path = self._directory / self.best.name
        self._link_checkpoint(trainer, str(path), str(self._best_link))
        newest = {Path(kept).name for kept in self.best_k_models}
        if before and before not in newest:
            trainer.strategy.remove_checkpoint(self._directory / before)

    @property
    def _directory(self) -> Path:
        return Path(self.dirpath or "")  # `setup` has set it.

    @property
    def _best_link(self) -> Path:
        return self._directory / f"{BEST}{self.FILE_EXTENSION}"


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is complete: a file, whose table of contents is at its end, or a directory of slices."""
    return are_complete(path) if path.is_dir() else path.is_file() and zipfile.is_zipfile(path)


def _held_out(trainer: Trainer) -> HeldOutEvaluation | None:
    return next(
        (callback for callback in get_callbacks(trainer) if isinstance(callback, HeldOutEvaluation)), None
    )


def saved_checkpoints(directory: Path) -> list[Path]:
    """Checkpoints in a directory, sorted by their steps."""
    return sorted((path for path in directory.glob("epoch*.ckpt") if _NAME.fullmatch(path.name)), key=step_of)


def step_of(path: Path) -> int:
    """Number of updates after which a checkpoint was saved, by its name; -1 for other files."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1
