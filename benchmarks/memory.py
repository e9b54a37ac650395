"""Peak memory of a training step: of DPO's ways against TRL's trainer, and of DPO against nSFT.

    python -m benchmarks.run --only memory
    python -m benchmarks.memory --job.way "ours, trees" --job.path DIR --job.shape v32k --job.pairs 4

Each way trains in a fresh process on one thread: a first step makes the optimiser's state, and the second is measured,
by the peak that the kernel (Linux) keeps of a process's resident memory. The second command is such a process.
"""

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jsonargparse import auto_cli

from benchmarks.memory_ways import NSFT, OBJECTIVE_WAYS, SEPARATE, STEP_WAYS, TRL_ANSWERS, WAYS, Job
from benchmarks.shapes import build
from benchmarks.table import Table

NOTE = """Resident memory in MB (10^6 bytes) of the second step of a fresh process. Steady is what is held between steps
(weights, the optimiser's state, the reference), above what the imports take; transient is the peak during the step
above that (activations, gradients, temporaries). AdamW, gradients clipped, checkpointing on for all, the vision tower
frozen."""
LOSS_TOLERANCE = 1e-3
HONEST_MALLOC = {
    # Freed at once, and not kept for later, so that what is resident is what is used.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 20),
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Peak:
    """Of one way; bytes."""

    steady: float
    """Held before the second step, without what the imports took."""
    transient: float
    """Peak during that step, above what was held before it."""
    loss: float
    """Of the second step."""

    @property
    def in_all(self) -> float:
        """The most that was held above the imports."""
        return self.steady + self.transient


def measure(shape: str, repeats: int, pairs: int = 4, weighty: str = "memw") -> list[Table]:
    """Measure each way in `repeats` processes of its own.

    Args:
        shape: of the model of a step of DPO against TRL's.
        repeats: processes; the median counts.
        pairs: in a batch of the former.
        weighty: shape of the model of DPO against nSFT, each with one sample.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: build(name, Path(folder) / name) for name in (shape, weighty)}
        jobs = [Job(way, paths[shape], shape, pairs) for way in STEP_WAYS]
        tables = [_steps([_median(job, repeats) for job in jobs], shape, pairs)]
        for lora in (False, True):
            ways = (*OBJECTIVE_WAYS, *(() if lora else (TRL_ANSWERS,)))
            peaks = {way: _median(Job(way, paths[weighty], weighty, 1, lora), repeats) for way in ways}
            tables.append(_objectives(peaks, weighty, lora))
    return tables


def child(job: Job) -> None:
    """Train two steps in this process, and print the memory of the second as a line of JSON."""
    torch.set_num_threads(1)
    imports = _settled()
    step = WAYS[job.way](job)
    step()
    before = _settled()
    Path("/proc/self/clear_refs").write_text("5")
    loss = step()
    peak = _resident("VmHWM")
    print(json.dumps({"steady": before - imports, "transient": peak - before, "loss": loss}))


def _median(job: Job, repeats: int) -> Peak:
    runs = [run(job) for _ in range(repeats)]
    return Peak(*(statistics.median(values) for values in zip(*map(_values, runs), strict=True)))


def _values(peak: Peak) -> tuple[float, float, float]:
    return peak.steady, peak.transient, peak.loss


def run(job: Job) -> Peak:
    """Measure a job in a process of its own."""
    options = [f"--job.{name}={value}" for name, value in vars(job).items()]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *options],
        env=os.environ | HONEST_MALLOC,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{job} ended with {done.returncode}: {done.stderr[-2000:]}")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def _steps(peaks: Sequence[Peak], shape: str, pairs: int) -> Table:
    found = dict(zip(STEP_WAYS, peaks, strict=True))
    _check_losses({way: peak.loss for way, peak in found.items()})
    rows = [
        [way, *_megabytes(peak), *(_ratio(peak.transient, found[peer].transient) for peer in STEP_WAYS[:2])]
        for way, peak in found.items()
    ]
    columns = (
        "way",
        "steady",
        "transient",
        "in all",
        *(f"transient over {peer}'s" for peer in STEP_WAYS[:2]),
    )
    what = f"A step of DPO, all weights, {pairs} pairs, live reference, shape `{shape}`"
    return Table(what, columns, rows, f"Losses of the second step are equal to {LOSS_TOLERANCE:g}.")


def _objectives(peaks: dict[str, Peak], shape: str, lora: bool) -> Table:
    _check_losses({way: peak.loss for way, peak in peaks.items() if way != NSFT})
    rows = [
        [way, *_megabytes(peak), *(_ratio(peak.in_all, peaks[peer].in_all) for peer in (SEPARATE, NSFT))]
        for way, peak in peaks.items()
    ]
    trained = "LoRA of rank 16" if lora else "all weights"
    columns = ("way", "steady", "transient", "in all", "in all over the second model's", "in all over nSFT's")
    reference = "the policy without its adapters" if lora else "a copy that shares what is frozen"
    what = f"nSFT and DPO, {trained}, one sample, shape `{shape}`"
    return Table(what, columns, rows, f"Our reference is {reference}.")


def _check_losses(losses: dict[str, float]) -> None:
    off = max(losses.values()) - min(losses.values())
    assert off < LOSS_TOLERANCE, f"losses differ: {losses}"


def _megabytes(peak: Peak) -> list[int]:
    return [round(value / 1e6) for value in (peak.steady, peak.transient, peak.in_all)]


def _ratio(own: float, peer: float) -> float:
    return round(own / peer, 3)


def _settled() -> int:
    """Resident bytes, once what nobody holds is given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _resident("VmRSS")


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    auto_cli(child, as_positional=False)
