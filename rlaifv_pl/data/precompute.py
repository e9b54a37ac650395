"""Computing what is missing beside shards: whole shards at a time, shared out between processes."""

from collections.abc import Callable
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset

from rlaifv_pl.console import track
from rlaifv_pl.data.sidecar import CachedTensors, Sidecars


class PrecomputeTask(NamedTuple):
    """What is computed of a sample."""

    title: str
    """Of the progress bar."""
    read: Dataset
    """Gives for the number of a sample what is needed, in worker processes."""
    finish: Callable[[Any], CachedTensors]
    """Makes of it what is kept of the sample, in this process; its errors end the run."""


def precompute_missing(sidecars: Sidecars, task: PrecomputeTask, trainer: Trainer, num_workers: int) -> None:
    """Compute what is missing; a process that is killed goes on at its first missing shard.

    Args:
        sidecars: to be completed.
        task: what is computed.
        trainer: says which of the missing shards are for this process.
        num_workers: processes that read.
    """
    missing = sidecars.missing()
    # Before one process writes what another has yet to miss; and before one reads what another writes.
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
