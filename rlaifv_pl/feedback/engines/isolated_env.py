"""An engine that starts processes of its own, in one that a launcher started: neither must take the other's."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rlaifv_pl.feedback.engines.engine import EngineError
from rlaifv_pl.launcher import this_process

LAUNCHER = re.compile(
    r"RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|(GROUP|ROLE)_(RANK|WORLD_SIZE|NAME)|MASTER_(ADDR|PORT)|TORCHELASTIC_.*"
)
"""What torchrun tells the processes that it starts. Passed on, an engine's own processes would wait for its store."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def isolated_environment(devices: int) -> Iterator[None]:
    """An environment without the launcher, in which only this process's own GPUs can be seen.

    Args:
        devices: GPUs a process; the n-th process of a machine has the n-th group of so many.

    Raises:
        EngineError: the machine has fewer GPUs than its processes need.
    """
    told = {name: value for name, value in os.environ.items() if LAUNCHER.fullmatch(name)}
    before = {**told, VISIBLE: os.environ.get(VISIBLE)}
    process = this_process()
    if process.world_size > 1 or "LOCAL_RANK" in told:
        os.environ[VISIBLE] = ",".join(_own(process.local_rank, devices))
    for name in told:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ |= {name: value for name, value in before.items() if value is not None}
        if before[VISIBLE] is None:
            os.environ.pop(VISIBLE, None)


def _own(rank: int, devices: int) -> list[str]:
    seen = os.environ.get(VISIBLE) or ",".join(map(str, range(torch.cuda.device_count())))
    all_of_them = [name for name in seen.split(",") if name]
    own = all_of_them[rank * devices : (rank + 1) * devices]
    if len(own) < devices:
        raise EngineError(
            f"Process {rank} of this machine needs GPUs {rank * devices} to {(rank + 1) * devices - 1}, and there are "
            f"{len(all_of_them)}. Start fewer processes (torchrun --nproc-per-node), or lower `tensor_parallel_size`."
        )
    return own
