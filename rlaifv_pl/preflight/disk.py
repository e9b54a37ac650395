"""What a run writes, and whether there is room for it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.preflight.memory import MemoryEstimate
from rlaifv_pl.preflight.parallelism import Parallelism

LOGP = 4
"""Bytes of a target's log-p."""


@dataclass(frozen=True)
class Disk:
    """Bytes by what they are of, and where they go."""

    place: Path
    free: int
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())


def run_disk(directory: Path, memory: MemoryEstimate, spread: Parallelism, keep: int, pairs: int) -> Disk:
    """Checkpoints, each with the trained weights and the optimiser's state: those kept, and the one in writing.

    Args:
        pairs: bytes of the shards that its rounds make; 0 in a run without.
    """
    trained, state = memory.steady["gradients"], memory.steady["optimiser"]
    place = _existing(directory)
    parts = {f"{keep} + 1 checkpoints": (trained + state) * spread.together * (keep + 1)}
    if pairs:
        parts["pairs of the rounds"] = pairs
    return Disk(place, shutil.disk_usage(place).free, parts)


def of_pairs(shards: Path, pairs: int) -> int:
    """Bytes of the shards of so many pairs, each with its images in full.

    Args:
        shards: of some of them.
    """
    manifest = read_manifest(shards)
    held = sum(shard.bytes for shard in manifest.shards)
    return round(held / manifest.samples * pairs) if manifest.samples else 0


def beside_shards(directory: Path, targets: float) -> Disk:
    """Log-ps of a cached reference.

    Args:
        directory: of the shards.
        targets: of all samples.
    """
    place = _existing(directory)
    return Disk(place, shutil.disk_usage(place).free, {"log-ps of the reference": round(targets * LOGP)})


def _existing(path: Path) -> Path:
    """The nearest directory on the way to a path that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
