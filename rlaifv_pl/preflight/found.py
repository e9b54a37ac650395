"""What preflight finds out about a run."""

from dataclasses import dataclass, field
from typing import Any

from rlaifv_pl.preflight.advice import Advice
from rlaifv_pl.preflight.disk import Disk
from rlaifv_pl.preflight.memory import Memory, usable
from rlaifv_pl.preflight.planned import Machine, Steps
from rlaifv_pl.preflight.spread import Spread
from rlaifv_pl.preflight.tokens import Batches, Surveyed


@dataclass
class Found:
    """All that preflight finds; what could not be found out is None, and a note says why."""

    machine: Machine
    spread: Spread
    surveyed: Surveyed | None = None
    batches: Batches | None = None
    steps: Steps | None = None
    memory: Memory | None = None
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
