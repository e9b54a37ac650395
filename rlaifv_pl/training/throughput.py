"""Throughput of a run: samples and tokens per second, padding, waiting for data, MFU.

Lightning's own ThroughputMonitor assumes equal batches, synchronises the device at each of them, and logs what depends
on the clock everywhere. Here `metrics.csv`, whose bytes are the same for the same run, is left out.
"""

import time
from collections import deque
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from rlaifv_pl.console import stderr
from rlaifv_pl.lightning_compat import get_callbacks, is_accumulating
from rlaifv_pl.models.attention import compute_dtype
from rlaifv_pl.models.flops import FlopCount, FlopMeter
from rlaifv_pl.models.policy import unwrap_model
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.training.loggers import RunCSVLogger


class Throughput(Callback):
    """Reports the throughput of the last steps on the progress bar and in TensorBoard, and of the whole run at its end.

    Time counts steps and waiting for their data, without validation, saving and rounds of feedback.

    Args:
        window: number of recent steps that figures are computed over.
        peak_tflops: peak of one device in the run's precision, without sparsity; from Lightning's table of devices if
            None. Without either, there is no MFU.
    """

    _meter: FlopMeter

    def __init__(self, window: int = 20, peak_tflops: float | None = None) -> None:
        if window < 1:
            raise ValueError(f"throughput.window is {window}, expected at least 1 step")
        self.peak = peak_tflops and peak_tflops * 1e12
        self._clock = time.perf_counter
        self._mark = 0.0
        self._unread: list[tuple[float, float, list[tuple[int, FlopCount]]]] = []
        """For each unreported step: seconds waited, seconds in all, and samples and FLOPs of its batches."""
        self._steps: deque[Tensor] = deque(maxlen=window)
        self._total, self._counted = torch.zeros(6, dtype=torch.float64), 0
        self._begin_step()

    def _begin_step(self) -> None:
        self._waited = self._worked = 0.0
        self._batches: list[tuple[int, FlopCount]] = []

    def setup(self, trainer: Trainer, pl_module: AlignmentModule, stage: str) -> None:
        callbacks = get_callbacks(trainer)
        if not any(isinstance(callback, _AfterStep) for callback in callbacks):
            callbacks.append(_AfterStep(self))

    def on_train_start(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        self._meter = FlopMeter(pl_module.policy)
        if self.peak is None:
            model = unwrap_model(pl_module.policy.model)
            with trainer.precision_plugin.forward_context():
                dtype = compute_dtype(pl_module.policy.compute or model.dtype, trainer.strategy.root_device)
            self.peak = get_available_flops(trainer.strategy.root_device, dtype)
        self.restart_clock()

    def restart_clock(self, *_: Any, **_options: Any) -> None:
        """Count time from now on."""
        self._lap()

    on_train_epoch_start = on_validation_end = restart_clock

    def on_train_batch_start(self, *_: Any) -> None:
        self._waited += self._lap()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: AlignmentModule, _outputs: Any, batch: Batch, _index: int
    ) -> None:
        """Record the batch and its time; report at steps that are logged."""
        if batch.keys:
            work = self._meter.read(batch, pl_module.reference is not None)
            self._batches.append((len(batch.keys), work))
        accumulates = is_accumulating(trainer)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        is_reported = not accumulates and trainer.global_step % every == 0
        if is_reported and trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize(trainer.strategy.root_device)
        self._worked += self._lap()
        if accumulates:
            return
        self._unread.append((self._waited, self._waited + self._worked, self._batches))
        self._begin_step()
        if is_reported:
            self._report(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        """Print the throughput of the whole run but its first step, which warms up."""
        self._collect()
        self._meter.close()
        if not self._counted:
            return
        figures = self._figures(trainer, self._total)
        shares = {"padding": "padding", "waiting": "waiting", "mfu": "MFU"}
        shares_shown = [f"{word} {figures[name]:.1%}" for name, word in shares.items() if name in figures]
        speed = f"{figures['samples_per_second']:.3g} samples/s, {figures['tokens_per_second']:.3g} tokens/s"
        _print(f"throughput of {self._counted} steps: {', '.join([speed, *shares_shown])}")

    def _lap(self) -> float:
        before, self._mark = self._mark, self._clock()
        return self._mark - before

    def _report(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        self._collect()
        figures = self._figures(trainer, torch.stack(list(self._steps)).sum(0))
        pl_module.log("samples/s", figures["samples_per_second"], prog_bar=True, logger=False)
        figures = {f"throughput/{name}": value for name, value in figures.items()}
        for logger in trainer.loggers:
            if not isinstance(logger, RunCSVLogger):
                logger.log_metrics(figures, step=trainer.global_step - 1)

    def _collect(self) -> None:
        """Add up the unreported steps; only here are numbers fetched from the device."""
        for waited, seconds, batches in self._unread:
            counts = [
                (samples, work.extents.tokens, work.extents.cells, work.flops) for samples, work in batches
            ]
            sums = [sum(column) for column in zip(*counts, strict=True)] or [0] * 4
            step = torch.tensor([waited, seconds, *sums], dtype=torch.float64)
            if self._steps:
                self._total += step
                self._counted += 1
            self._steps.append(step)
        self._unread.clear()

    def _figures(self, trainer: Trainer, sums: Tensor) -> dict[str, float]:
        """Compute figures over all processes.

        Args:
            sums: (6,) of this process: seconds waited, seconds in all, samples, tokens, cells, FLOPs.
        """
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


class _AfterStep(Callback):
    """Excludes from the time what other callbacks did after a step, such as saving; it is called last."""

    def __init__(self, throughput: Throughput) -> None:
        self.on_train_batch_end = throughput.restart_clock


@rank_zero_only
def _print(line: str) -> None:
    stderr.print(line, highlight=False, soft_wrap=True)
