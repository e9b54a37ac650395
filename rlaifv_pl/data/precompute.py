"""Compute missing sidecars: whole shards at a time, divided among the processes."""

from collections.abc import Callable
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset

from rlaifv_pl.console import track
from rlaifv_pl.data.sidecar import CachedTensors, Sidecars


class PrecomputeTask(NamedTuple):
    """Computation of one kind of sidecar."""

    title: str
    """Title of the progress bar."""
    read: Dataset
    """Reads, in worker processes, the input for a sample index."""
    finish: Callable[[Any], CachedTensors]
    """Turns it, in this process, into the tensors to keep; its errors end the run."""


def precompute_missing(sidecars: Sidecars, task: PrecomputeTask, trainer: Trainer, num_workers: int) -> None:
    """Compute the missing sidecars; a killed process goes on at its first missing shard.

    Args:
        sidecars: sidecars to complete.
        task: computation.
        trainer: its rank decides which of the missing shards are for this process.
        num_workers: processes that read.
    """
    missing = sidecars.missing()
    # All processes must see the same gaps before one fills them, and all files before one reads them.
    trainer.strategy.barrier()
    mine = missing[trainer.global_rank :: trainer.world_size]
    numbers = [number for shard in mine for number in sidecars.samples.numbers(shard)]
    loader = DataLoader(task.read, batch_size=None, sampler=numbers, num_workers=num_workers)
    shown = track(
        loader, task.title, len(numbers), is_shown=trainer.is_global_zero and bool(numbers)
    )  # fmt: skip
    found: list[CachedTensors] = []
    for item in shown:
        found.append(task.finish(item))
        if len(found) == len(sidecars.samples.shards[mine[0]]):
            sidecars.write(mine.pop(0), found)
            found = []
    trainer.strategy.barrier()
