"""A run that is told to stop: it ends its step, saves, and leaves with a code that says it may go on."""

import multiprocessing
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from rlaifv_pl.training.checkpoint import RunCheckpoint
from rlaifv_pl.training.exit_codes import INTERRUPTED

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""What ends a job politely, what Slurm sends ahead of it (`--signal=USR1@120`), and Ctrl-C."""
EXIT_CODE = os.EX_TEMPFAIL
"""75: nothing is wrong, and the same command with `--ckpt_path last` goes on. After Ctrl-C it is 130."""


class StopOnSignal(Checkpoint):
    """Stops at the end of a step, on all ranks as soon as one is signalled, with a checkpoint.

    Between epochs, where feedback is made or log-ps are computed beforehand, it stops at once: what is finished of
    that lies on disk. A second Ctrl-C stops at once anywhere. It is a checkpoint for its place behind those that save.
    """

    command = "the same command with --ckpt_path last"
    """Goes on with the run."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._is_training = False
        self._before: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen from here on, before the model is loaded."""
        if stage != "fit":
            return
        # Lightning's own handlers talk to other processes and save inside of the handler: they hang where one process
        # alone is signalled, and save half a step.
        trainer._signal_connector.register_signal_handlers = lambda: None
        self._launcher, self._process = trainer.strategy.launcher, os.getpid()
        if threading.current_thread() is threading.main_thread() and not self._before:
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def teardown(self, *_: Any, **_options: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before, self._received, self._is_training = {}, None, False

    on_exception = teardown

    def on_train_batch_start(self, *_: Any, **_options: Any) -> None:
        self._is_training = True

    on_train_epoch_start = on_train_batch_start

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        loop = trainer.fit_loop.epoch_loop
        # As RunCheckpoint: not between accumulated batches, and at the end of an epoch once it has ended.
        if (
            not loop.batch_progress.is_last_batch
            and not loop._should_accumulate()
            and self._must_stop(trainer)
        ):
            for saver in trainer.checkpoint_callbacks:
                if isinstance(saver, RunCheckpoint):
                    saver.save(trainer)
            self._leave(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_training = False
        if self._must_stop(trainer):
            self._leave(trainer)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # A worker, which has this handler from the process that it works for, and ends with it.
        # A launcher passes Ctrl-C on to those whom the terminal has told already.
        is_again = number == self._received == signal.SIGINT and "TORCHELASTIC_RUN_ID" not in os.environ
        self._received = number
        if is_again:
            self._say("at once")
            self._kill()
        elif not self._is_training:
            self._say("between epochs")
            sys.exit(self._exit_code)
        elif number == signal.SIGINT:
            sys.stderr.write(
                "\nCtrl-C: the step is ended and saved; once more stops at once, without saving\n"
            )

    def _kill(self) -> None:
        """End without waiting for anything: what was being written is swept away by whoever goes on."""
        for worker in multiprocessing.active_children():
            worker.kill()
        if hasattr(self._launcher, "kill"):
            self._launcher.kill(signal.SIGKILL)
        os._exit(self._exit_code)

    def _must_stop(self, trainer: Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._received is not None, all=False)

    def _leave(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            self._say(f"after step {trainer.global_step}")
        sys.exit(self._exit_code)

    @property
    def _exit_code(self) -> int:
        return INTERRUPTED if self._received == signal.SIGINT else EXIT_CODE

    def _say(self, where: str) -> None:
        by = signal.Signals(self._received).name if self._received else "a signal to another process"
        sys.stderr.write(
            f"\nstopped {where} by {by}; the same command with --ckpt_path last goes on (exit code "
            f"{self._exit_code}):\n  {self.command}\n"
        )
