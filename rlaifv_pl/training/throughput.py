"""How fast a run is, and what of it is lost: samples and tokens a second, padding, waiting for data, MFU.

Lightning's own monitor takes all batches for equal, asks the device to catch up at every one of them, and writes what
depends on the clock into every log. Here `metrics.csv`, which is the same bytes for the same run, is left out.
"""

import time
from collections import deque
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from rlaifv_pl.console import stderr
from rlaifv_pl.data.lightning_utils import get_callbacks
from rlaifv_pl.models.attention import compute_dtype
from rlaifv_pl.models.flops import FlopCount, FlopMeter
from rlaifv_pl.models.policy import unwrap_model
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.training.loggers import RunCSVLogger


class Throughput(Callback):
    """Tells how fast the last steps were, on the progress bar and in TensorBoard, and the whole run when it ends.

    Time is that of steps and of waiting for their data; validation, saving and rounds of feedback are not in it.

    Args:
        window: steps that the figures are of.
        peak_tflops: of one device in the run's precision, without sparsity, to compare with; Lightning's table of
            devices says it if it is not given, and without either there is no MFU.
    """

    def __init__(self, window: int = 20, peak_tflops: float | None = None) -> None:
        if window < 1:
            raise ValueError(f"throughput.window is {window}, expected at least 1 step")
        self.peak = peak_tflops and peak_tflops * 1e12
        self._clock = time.perf_counter
        self._mark = 0.0
        self._meter: FlopMeter | None = None
        self._unread: list[tuple[float, float, list[tuple[int, FlopCount]]]] = []
        """Of each step since figures were last told: seconds waited, seconds in all, samples and work of batches."""
        self._steps: deque[Tensor] = deque(maxlen=window)
        self._total, self._told = torch.zeros(6, dtype=torch.float64), 0
        self._begin()

    def _begin(self) -> None:
        self._waited = self._worked = 0.0
        self._batches: list[tuple[int, FlopCount]] = []

    def setup(self, trainer: Trainer, pl_module: AlignmentModule, stage: str) -> None:
        if not any(isinstance(callback, _AfterSaving) for callback in trainer.checkpoint_callbacks):
            get_callbacks(trainer).append(_AfterSaving(self))

    def on_train_start(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        self._meter = FlopMeter(pl_module.policy)
        if self.peak is None:
            model = unwrap_model(pl_module.policy.model)
            with trainer.precision_plugin.forward_context():
                dtype = compute_dtype(pl_module.policy.compute or model.dtype, trainer.strategy.root_device)
            self.peak = get_available_flops(trainer.strategy.root_device, dtype)
        self.leave_out()

    def leave_out(self, *_: Any, **_options: Any) -> None:
        """Count time from now on only."""
        self._lap()

    on_train_epoch_start = on_validation_end = leave_out

    def on_train_batch_start(self, *_: Any) -> None:
        self._waited += self._lap()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: AlignmentModule, _outputs: Any, batch: Batch, _index: int
    ) -> None:
        """Note what was done and how long it took; at steps that are logged, tell."""
        if batch.keys:
            work = self._meter.read(batch, pl_module.reference is not None)
            self._batches.append((len(batch.keys), work))
        accumulates = trainer.fit_loop.epoch_loop._should_accumulate()
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        is_told = not accumulates and trainer.global_step % every == 0
        if is_told and trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize(trainer.strategy.root_device)
        self._worked += self._lap()
        if accumulates:
            return
        self._unread.append((self._waited, self._waited + self._worked, self._batches))
        self._begin()
        if is_told:
            self._tell(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        """One line on the whole run but its first step, which warms up."""
        self._read()
        self._meter.close()
        if not self._told:
            return
        figures = self._figures(trainer, self._total)
        shares = {"padding": "padding", "waiting": "waiting", "mfu": "MFU"}
        said = [f"{word} {figures[name]:.1%}" for name, word in shares.items() if name in figures]
        speed = f"{figures['samples_per_second']:.3g} samples/s, {figures['tokens_per_second']:.3g} tokens/s"
        _say(f"throughput of {self._told} steps: {', '.join([speed, *said])}")

    def _lap(self) -> float:
        before, self._mark = self._mark, self._clock()
        return self._mark - before

    def _tell(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        self._read()
        figures = self._figures(trainer, torch.stack(list(self._steps)).sum(0))
        pl_module.log("samples/s", figures["samples_per_second"], prog_bar=True, logger=False)
        figures = {f"throughput/{name}": value for name, value in figures.items()}
        for logger in trainer.loggers:
            if not isinstance(logger, RunCSVLogger):
                logger.log_metrics(figures, step=trainer.global_step - 1)

    def _read(self) -> None:
        """Count what was done since this was last asked; only here are numbers fetched from the device."""
        for waited, seconds, batches in self._unread:
            counts = [
                (samples, work.extents.tokens, work.extents.cells, work.flops) for samples, work in batches
            ]
            sums = [sum(column) for column in zip(*counts, strict=True)] or [0] * 4
            step = torch.tensor([waited, seconds, *sums], dtype=torch.float64)
            if self._steps:
                self._total += step
                self._told += 1
            self._steps.append(step)
        self._unread.clear()

    def _figures(self, trainer: Trainer, sums: Tensor) -> dict[str, float]:
        """Of all processes together; `sums` are this one's, in the order of a step."""
        sums = sums.to(trainer.strategy.root_device, torch.float32)
        waited, seconds, samples, tokens, cells, flops = trainer.strategy.reduce(
            sums, reduce_op="sum"
        ).tolist()
        figures = {
            "samples_per_second": samples * trainer.world_size / seconds,
            "tokens_per_second": tokens * trainer.world_size / seconds,
            "padding": 1 - tokens / cells if cells else 0.0,
            "waiting": waited / seconds,
        }
        return figures | ({"mfu": flops / (seconds * self.peak)} if self.peak else {})


class _AfterSaving(Checkpoint):
    """Leaves saving out of the time; a checkpoint for its place behind those that save."""

    def __init__(self, throughput: Throughput) -> None:
        self.on_train_batch_end = throughput.leave_out


@rank_zero_only
def _say(line: str) -> None:
    stderr.print(line, highlight=False, soft_wrap=True)
