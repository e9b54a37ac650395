"""What preflight finds out about a run."""

from dataclasses import dataclass, field
from typing import Any

from rlaifv_pl.preflight.advice import Advice
from rlaifv_pl.preflight.dataset_stats import Batches, DatasetStats
from rlaifv_pl.preflight.disk import Disk
from rlaifv_pl.preflight.machine import Machine, Steps
from rlaifv_pl.preflight.memory import MemoryEstimate, usable
from rlaifv_pl.preflight.parallelism import Parallelism


@dataclass
class Findings:
    """All that preflight finds; what could not be found out is None, and a note says why."""

    machine: Machine
    spread: Parallelism
    surveyed: DatasetStats | None = None
    batches: Batches | None = None
    steps: Steps | None = None
    memory: MemoryEstimate | None = None
    advice: list[Advice] = field(default_factory=list)
    time: dict[str, Any] = field(default_factory=dict)
    disks: list[Disk] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What `fit` would end with, in its words, or what does not fit."""
    notes: list[str] = field(default_factory=list)
    untried: list[str] = field(default_factory=list)
    """What was left out by choice, and why: nothing is known of it."""

    @property
    def room(self) -> int:
        """Bytes of a device that the run can fill."""
        return usable(self.machine.memory, self.machine.is_cuda)
