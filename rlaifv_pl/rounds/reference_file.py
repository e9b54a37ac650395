"""References of rounds on disk, so that a killed run finds its reference again."""

from pathlib import Path
from typing import Literal

from safetensors.torch import load_file, save

from rlaifv_pl.data.atomic import atomic_file, writing
from rlaifv_pl.models.reference import Reference
from rlaifv_pl.models.sharding import on_rank_zero
from rlaifv_pl.models.vlm import VLM

Refresh = Literal["previous", "initial", "ema"]
"""Source of a round's reference: the policy as the round began, as the run began, or a moving average."""

FILE_NAME = "reference.safetensors"


class ReferenceFiles:
    """Stores the reference of each round from the second on; that of the first is the initial policy.

    Args:
        rounds: directory of the rounds.
        refresh: source of a round's reference.
        decay: weight of the last reference in the next one, for `ema`.
        writes: whether this process writes the files.
    """

    def __init__(self, rounds: Path, refresh: Refresh, decay: float, *, writes: bool = True) -> None:
        self.rounds, self.writes = rounds, writes
        self.is_constant, self.decay = refresh == "initial", decay if refresh == "ema" else 0.0

    def begin(self, number: int, reference: Reference, policy: VLM) -> None:
        """Compute and store the reference of a round that begins now."""
        if self.is_constant or number == 1:
            return
        self.resume(number - 1, reference)
        reference.refresh(policy, self.decay)
        weights = on_rank_zero(reference.state())
        if self.writes:
            path = self._path(number)
            data = save({name: value.contiguous() for name, value in weights.items()})
            with writing(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path, len(data)) as file:
                file.write(data)

    def resume(self, number: int, reference: Reference) -> None:
        """Load the reference of a round that has begun."""
        if not self.is_constant and number > 1:
            reference.load_state(load_file(self._path(number)))

    def _path(self, number: int) -> Path:
        return self.rounds / str(number) / FILE_NAME
