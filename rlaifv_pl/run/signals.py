"""A run that is told to stop: it ends its step, saves, and leaves with a code that says it may go on."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from rlaifv_pl.run.checkpoint import RunCheckpoint

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What ends a job politely, and what Slurm sends ahead of it (`--signal=USR1@120`)."""
EXIT_CODE = os.EX_TEMPFAIL
"""75: nothing is wrong, and the same command with `--ckpt_path last` goes on."""


class StopOnSignal(Checkpoint):
    """Stops at the end of a step, on all ranks as soon as one is signalled, with a checkpoint.

    Between epochs, where feedback is made or log-ps are computed beforehand, it stops at once: what is finished of
    that lies on disk. It is a checkpoint for its place behind those that save.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._is_training = False
        self._before: dict[int, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning's own handlers talk to other processes and save inside of the handler: they hang where one process
        # alone is signalled, and save half a step.
        trainer._signal_connector.register_signal_handlers = lambda: None
        if threading.current_thread() is threading.main_thread():
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
        self._received = number
        if not self._is_training:
            _say(number, "between epochs")
            sys.exit(EXIT_CODE)

    def _must_stop(self, trainer: Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._received is not None, all=False)

    def _leave(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            _say(self._received, f"after step {trainer.global_step}")
        sys.exit(EXIT_CODE)


def _say(number: int | None, where: str) -> None:
    name = signal.Signals(number).name if number else "a signal to another process"
    sys.stderr.write(
        f"\nstopped {where} by {name}; the same command with --ckpt_path last goes on (exit code {EXIT_CODE})\n"
    )
