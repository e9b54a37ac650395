"""Stopping a run by a signal: it ends its step, saves, and exits with a code that says it can be resumed."""

import multiprocessing
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from rlaifv_pl.lightning_compat import (
    EpochBoundaryCallback,
    disable_signal_handlers,
    get_callbacks,
    is_accumulating,
    is_last_batch,
    is_validation_due,
)
from rlaifv_pl.training.checkpoint import RunCheckpoint
from rlaifv_pl.training.exit_codes import INTERRUPTED

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Signals of a job's end, of Slurm ahead of it (`--signal=USR1@120`), and of Ctrl-C."""
EXIT_CODE = os.EX_TEMPFAIL
"""75: the same command with `--ckpt_path last` resumes the run. After Ctrl-C it is 130."""


class StopOnSignal(EpochBoundaryCallback):
    """Saves and stops at the end of a step, on all ranks as soon as one is signalled.

    Between epochs, where feedback is made or log-ps are precomputed, it stops at once: what is finished of that is on
    disk. A second Ctrl-C stops at once anywhere.
    """

    command = "the same command with --ckpt_path last"
    """Command that resumes the run."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._is_training = False
        self._before: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Install the handlers, before the model is loaded."""
        if stage != "fit":
            return
        # They also talk to other processes, and hang where one process alone is signalled.
        disable_signal_handlers(trainer)
        self._launcher, self._process = trainer.strategy.launcher, os.getpid()
        if threading.current_thread() is threading.main_thread() and not self._before:
            self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def teardown(self, *_: Any, **_options: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before, self._received, self._is_training = {}, None, False

    on_exception = teardown

    def on_train_batch_start(self, *_: Any, **_options: Any) -> None:
        self._is_training = True

    on_train_epoch_start = on_train_batch_start

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        # As RunCheckpoint: not between accumulated batches, after a validation that is due at this step, and at the
        # end of an epoch once it has ended.
        if not (is_last_batch(trainer) or is_accumulating(trainer) or is_validation_due(trainer)):
            self._stop_if_signalled(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        is_within_epoch = trainer.state.fn == TrainerFn.FITTING and not is_last_batch(trainer)
        if is_within_epoch and not is_accumulating(trainer):
            self._stop_if_signalled(trainer)

    def on_epoch_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_training = False
        if self._is_signalled(trainer):  # The end of the epoch has been saved.
            self._exit(trainer)

    def _stop_if_signalled(self, trainer: Trainer) -> None:
        if self._is_signalled(trainer):
            for callback in get_callbacks(trainer):
                if isinstance(callback, RunCheckpoint):
                    callback.save(trainer)
            self._exit(trainer)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # A worker, which has inherited this handler and ends with its parent.
        # A launcher passes Ctrl-C on to processes that the terminal has signalled already.
        is_second = number == self._received == signal.SIGINT and "TORCHELASTIC_RUN_ID" not in os.environ
        self._received = number
        if is_second:
            self._report("at once")
            self._kill()
        elif not self._is_training:
            self._report("between epochs")
            sys.exit(self._exit_code)
        elif number == signal.SIGINT:
            sys.stderr.write(
                "\nCtrl-C: stopping after this step, with a checkpoint; press again to stop at once, without one\n"
            )

    def _kill(self) -> None:
        """Exit without waiting for anything; unfinished files are removed when the run is resumed."""
        for worker in multiprocessing.active_children():
            worker.kill()
        if (kill := getattr(self._launcher, "kill", None)) is not None:
            kill(signal.SIGKILL)
        os._exit(self._exit_code)

    def _is_signalled(self, trainer: Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._received is not None, all=False)

    def _exit(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            self._report(f"after step {trainer.global_step}")
        sys.exit(self._exit_code)

    @property
    def _exit_code(self) -> int:
        return INTERRUPTED if self._received == signal.SIGINT else EXIT_CODE

    def _report(self, where: str) -> None:
        by = signal.Signals(self._received).name if self._received else "a signal to another process"
        sys.stderr.write(
            f"\nstopped {where} by {by}; the same command with --ckpt_path last resumes it (exit code "
            f"{self._exit_code}):\n  {self.command}\n"
        )
