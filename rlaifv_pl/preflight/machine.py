"""The machine that a run is meant for, and the steps of the run."""

import math
import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from rlaifv_pl.launcher import this_process
from rlaifv_pl.objectives.checks import RunError
from rlaifv_pl.objectives.lr_schedule import count_updates


@dataclass(kw_only=True)
class PreflightOptions:
    """What preflight takes beside the options of `train.py fit`.

    Args:
        out: a JSON file for all that is found.
        samples: that are read, at most; a random part of larger sets, fixed by the run's seed.
        trial: steps that are trained here, for the time of one, where the model can be loaded and fits; 0 for none.
        memory_gb: of a device of the machine that is meant, in GB of 10^9 bytes; that of this one unless given.
        devices: of a node of that machine; as the config says unless given.
        nodes: of that machine; as the config says unless given.
        tflops: of one device in the run's precision, without sparsity, for an estimate of the time without a trial.
        mfu: share of `tflops` that the estimate takes for granted.
    """

    out: str | None = None
    samples: int = 1000
    trial: int = 3
    memory_gb: float | None = None
    devices: int | None = None
    nodes: int | None = None
    tflops: float | None = None
    mfu: float = 0.3

    def __post_init__(self) -> None:
        for name in ("samples", "memory_gb", "devices", "nodes", "tflops", "mfu"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}, expected more than 0")
        if self.trial < 0:
            raise ValueError(f"trial is {self.trial}, expected 0 or more steps")


@dataclass(frozen=True)
class Machine:
    """What a run is spread over."""

    memory: int
    """Bytes of a device."""
    devices: int
    """Of a node."""
    nodes: int
    is_cuda: bool

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.devices * self.nodes


def machine_of(trainer: Any, options: PreflightOptions) -> Machine:
    """The machine that is meant: this one, where nothing else is said.

    Args:
        trainer: its options.
        options: of preflight.

    Raises:
        RunError: the config wants a GPU, and there is none here and none described.
    """
    wants_cuda = trainer["accelerator"] in ("gpu", "cuda")
    is_described = options.memory_gb is not None
    here = torch.cuda.is_available() and trainer["accelerator"] in ("gpu", "cuda", "auto")
    if wants_cuda and not here and not is_described:
        raise RunError(
            f"trainer.accelerator is {trainer['accelerator']}, and there is no GPU here. Describe the machine that is "
            "meant: --memory_gb 80 --devices 8."
        )
    is_cuda = here or (is_described and trainer["accelerator"] != "cpu")
    if options.memory_gb is not None:
        memory = int(options.memory_gb * 1e9)
    elif here:
        memory = torch.cuda.get_device_properties(0).total_memory
    else:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    nodes = options.nodes or int(trainer["num_nodes"])
    return Machine(memory, options.devices or _devices(trainer["devices"], here, nodes), nodes, is_cuda)


def _devices(wanted: Any, here: bool, nodes: int) -> int:
    match wanted:
        case list():
            return len(wanted)
        case int() if wanted > 0:
            return wanted
        case str() if wanted.isdecimal():
            return int(wanted)
    there = torch.cuda.device_count() if here else 1
    started = this_process().world_size
    return started // nodes if started > 1 else there


@dataclass(frozen=True)
class Steps:
    """How long a run is, in optimiser updates."""

    per_epoch: int
    in_all: int
    epochs: int
    batches: int
    """Of a rank and epoch."""
    accumulated: int
    world: int


def steps(trainer: Any, batches: int, world: int) -> Steps:
    """Updates of an epoch, and of the run.

    Raises:
        ValueError: the run has no end.
    """
    limit, accumulated = trainer["limit_train_batches"], trainer["accumulate_grad_batches"]
    count = partial(
        count_updates, batches, 1.0 if limit is None else limit, accumulated, trainer["max_steps"]
    )
    epochs = -1 if trainer["max_epochs"] is None else trainer["max_epochs"]
    each = math.ceil(batches / accumulated) if limit is None else count(1)
    return Steps(each, count(epochs), epochs, batches, accumulated, world)
