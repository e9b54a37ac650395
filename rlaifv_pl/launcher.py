"""Which of several processes this is: the one place that reads what launchers say."""

import os
import sys
from typing import NamedTuple

from rlaifv_pl.errors import UserError


class LauncherError(UserError, ValueError):
    """Environment variables of a launcher that contradict each other; the message names them."""


class Process(NamedTuple):
    """One of the processes that a launcher started."""

    rank: int = 0
    """Number among all of them, from 0."""
    world_size: int = 1
    """How many there are."""
    local_rank: int = 0
    """Number among those of this machine, from 0: which GPU is its own."""


def this_process() -> Process:
    """The place of this process, by the first of these that knows it.

    1. The process group that is set up already, as Lightning does, whatever started it.
    2. `RANK` and `WORLD_SIZE`: torchrun and its like. `WORLD_SIZE` alone decides nothing: Lightning's own launcher
       leaves it behind.
    3. `SLURM_PROCID` with `SLURM_STEP_NUM_TASKS`, or with `SLURM_NTASKS` outside of interactive jobs: srun.

    Raises:
        LauncherError: a variable is missing, no number or out of range.
    """
    local = _number("LOCAL_RANK", _number("SLURM_LOCALID", 0))
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return Process(distributed.get_rank(), distributed.get_world_size(), local)
    for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", _tasks())):
        if size and os.environ.get(rank):
            return _checked(Process(_number(rank, 0), _number(size, 0), local), rank, size)
    return Process(local_rank=local)


def _tasks() -> str | None:
    """The variable in which Slurm says how many tasks there are; a shell of an interactive job is none of them."""
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        return "SLURM_STEP_NUM_TASKS"
    is_task = "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")
    return "SLURM_NTASKS" if is_task else None


def _checked(process: Process, rank: str, size: str) -> Process:
    if not 0 <= process.rank < process.world_size:
        raise LauncherError(
            f"{rank} is {os.environ[rank]!r} and {size} is {os.environ.get(size)!r}: expected the number of this "
            "process, from 0, and how many there are. Start the command by torchrun or srun, or unset both."
        )
    return process


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    if text and not text.isdecimal():
        raise LauncherError(f"{name} is {text!r}: expected a whole number from 0 on. Set it so, or unset it.")
    return int(text) if text else otherwise
