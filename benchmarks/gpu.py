"""A step of DPO on one GPU: LLaVA-1.5-7B's shape in bfloat16, every backend, and TRL's trainer beside them.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --shape toy --device cpu

Models have random weights and are made on the device, so that no file of weights is needed. All ways' losses are
compared before anything is timed; a way that fails or disagrees is named and not timed. Results are written after
each setting.
"""

import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jsonargparse import auto_cli

from benchmarks.flops import Lengths, floor_flops, peak, step_flops
from benchmarks.gpu_sides import Bench, OurSide, Setting, Way, their_side
from benchmarks.pairs import draw_pairs
from benchmarks.report import RESULTS, record
from benchmarks.shapes import SHAPES, make_config
from benchmarks.table import Cell, Table
from rlaifv_pl.models.policy import LoRA

NOTE = """Weights, gradients and AdamW's state are in one type, without autocast, on both sides; the vision tower is
frozen. Time is wall time of whole steps (forward of policy and reference, backward, clipping, fused AdamW), after one
on each batch that is not timed. MFU is of the products that a way does, without those that checkpointing computes
again. The share of the floor is the share of the GPU's peak with which the least would be done that a pair takes: the
prompt once for both answers, the reference and the tower's features known beforehand."""
BACKENDS = ("rows", "dense", "split", "flex", "flash")
TRL = "TRL"
COLUMNS = ("way", "loss", "norm of gradients", "pairs a second", "MFU", "share of the floor", "peak GB")
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Of a loss, and of the norm as a share of it, by type."""
BATCHES = 3
ADAPTERS = LoRA(rank=64, alpha=16.0, dropout=0.0)
SETTINGS = {
    "LoRA of rank 64": Setting(ADAPTERS, False, "adapter_off"),
    "LoRA of rank 64, checkpointing": Setting(ADAPTERS, True, "adapter_off"),
    "all weights, checkpointing, cached reference": Setting(None, True, "cached"),
    "all weights, checkpointing, live reference": Setting(None, True, "live"),
}


@dataclass(frozen=True)
class Speed:
    """Of a way."""

    loss: float
    norm: float
    pairs: float
    """A second."""
    memory: float | None
    """Peak, in bytes; None on a CPU."""


def main(
    shape: str = "7b",
    device: str = "cuda",
    pairs: int = 4,
    steps: int = 5,
    only: list[str] | None = None,
    json: Path = RESULTS,
) -> None:
    """Measure all settings, and write what was found after each.

    Args:
        shape: of the model.
        device: to run on.
        pairs: in a batch.
        steps: that are timed, of each way.
        only: settings of `SETTINGS` to measure; all unless given.
        json: file to write; RESULTS.md is written beside it.
    """
    drawn = [draw_pairs(pairs, seed, SHAPES[shape].vocabulary) for seed in range(BATCHES)]
    bench = Bench(shape, torch.device(device), drawn, steps)
    about = {"shape": shape, "device": device_name(bench.device), "pairs": pairs, "steps": steps}
    tables = []
    for name in only or SETTINGS:
        tables.append(measure(bench, name))
        print(record(json, "gpu", about, tables, NOTE), flush=True)


def measure(bench: Bench, name: str) -> Table:
    """All ways of one setting.

    Args:
        bench: what all settings share.
        name: of `SETTINGS`.
    """
    setting, notes = SETTINGS[name], []
    ours = OurSide(bench, setting)
    found = timed({way: ours.way(way) for way in BACKENDS}, bench, notes)
    lengths, adapters = ours.lengths, ours.adapters
    del ours
    _free()
    with tempfile.TemporaryDirectory() as folder, _failures(TRL, notes):
        theirs = their_side(bench, setting, adapters, Path(folder))
        if theirs is not None:
            found |= timed({TRL: theirs}, bench, notes, next(iter(found.values()), None))
    theirs = None
    _free()
    rows = [[way, *figures(speed, way, setting, bench, lengths)] for way, speed in found.items()]
    dtype = str(bench.dtype).removeprefix("torch.")
    what = f"DPO, {name}, {len(bench.drawn[0])} pairs a step, shape `{bench.shape}` in {dtype}"
    return Table(what, COLUMNS, rows, " ".join(notes))


def timed(
    ways: dict[str, Way], bench: Bench, notes: list[str], base: Speed | None = None
) -> dict[str, Speed]:
    """Speeds of the ways that work and agree.

    Args:
        ways: by name.
        bench: what is run.
        notes: takes what is wrong with the others.
        base: whose loss and norm are right; those of the first way that works unless given.
    """
    right = (base.loss, base.norm) if base else None
    agreed, found = {}, {}
    for name, way in ways.items():
        with _failures(name, notes):
            got = way.backward(0)
            right = right or got
            if _agree(got, right, TOLERANCE[bench.dtype]):
                agreed[name] = got
            else:
                notes.append(f"{name} is not timed: its loss and norm are {got}, and should be {right}.")
    for name, got in agreed.items():
        with _failures(name, notes):
            found[name] = Speed(*got, *_time(ways[name].step, bench))
    return found


def figures(speed: Speed, way: str, setting: Setting, bench: Bench, lengths: Sequence[Lengths]) -> list[Cell]:
    """Cells of a way's row."""
    config = make_config(SHAPES[bench.shape], bench.processor())
    lora, most = setting.lora is not None, peak(device_name(bench.device))
    with_reference, shared = setting.reference != "cached", way not in ("rows", TRL)
    done = _mean(
        step_flops(config, pair, shared=shared, reference=with_reference, lora=lora) for pair in lengths
    )
    least = _mean(floor_flops(config, pair, lora) for pair in lengths)
    shares = [most and round(flops * speed.pairs / most, 3) for flops in (done, least)]
    memory = speed.memory and round(speed.memory / 1e9, 1)
    return [round(speed.loss, 5), round(speed.norm, 4), round(speed.pairs, 2), *shares, memory]


def device_name(device: torch.device) -> str:
    """Of the maker."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _agree(got: tuple[float, float], right: tuple[float, float], tolerance: float) -> bool:
    return abs(got[0] - right[0]) < tolerance and abs(got[1] / right[1] - 1) < tolerance


def _time(step: Callable[[int], object], bench: Bench) -> tuple[float, float | None]:
    """Pairs a second, and the peak of memory."""
    on_gpu = bench.device.type == "cuda"
    # Kernels are compiled, or recompiled, for each batch's lengths.
    for number in range(BATCHES):
        step(number)
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for number in range(bench.steps):
        step(number % BATCHES)
    if on_gpu:
        torch.cuda.synchronize()
    pairs = bench.steps * len(bench.drawn[0]) / (time.perf_counter() - started)
    return pairs, torch.cuda.max_memory_allocated() if on_gpu else None


@contextmanager
def _failures(name: str, notes: list[str]) -> Iterator[None]:
    # Kernels fail in their own ways, memory ends, and the other ways are still worth their time.
    try:
        yield
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0][:200].rstrip(".")
        notes.append(f"{name} failed: {type(error).__name__}: {said}.")
        # It holds on to what the way was working on.
        error.__traceback__ = None
        _free()


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _mean(values: Iterator[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
