"""Which checkpoint of a run is the best by a held-out figure."""

import difflib
import math
from collections.abc import Sequence
from typing import Any, Literal

from rlaifv_pl.evaluation.table_metric import better
from rlaifv_pl.objectives.checks import RunError


class BestCheckpoint:
    """The best value so far, and the file of its checkpoint.

    Args:
        figure: that says so, by the name under which it is logged; None where no checkpoint is the best.
        mode: whether less of it is better, or more; as its name says unless given.

    Raises:
        ValueError: there is a mode and no figure, or a figure that says by itself neither.
    """

    def __init__(self, figure: str | None = None, mode: Literal["min", "max"] | None = None) -> None:
        if figure is None and mode is not None:
            raise ValueError("checkpoint.mode is of checkpoint.monitor: set both, or leave the mode out")
        self.figure = figure
        self.mode = mode or (better(figure.split("/", 2)[-1]) if figure else None)
        if figure is not None and self.mode is None:
            raise ValueError(
                f"checkpoint.monitor {figure} is better neither way by itself: set checkpoint.mode"
            )
        self.score, self.name = math.nan, ""

    def check(self, names: Sequence[str]) -> None:
        """That the figure is one of those that are measured.

        Raises:
            RunError: it is not.
        """
        if self.figure in names:
            return
        near = difflib.get_close_matches(self.figure, names, n=3, cutoff=0.3) or names[:3]
        given = (
            f"those there are, such as {', '.join(near)}"
            if names
            else "none: there are no held_out.benchmarks"
        )
        raise RunError(f"checkpoint.monitor is {self.figure!r}, expected a held-out figure of {given}.")

    def takes(self, score: float, name: str) -> bool:
        """Whether a value is better than any before; it is kept then. One that is not defined never is.

        >>> best = BestCheckpoint("held_out/chair/CHAIRi")
        >>> [best.takes(score, "") for score in (9.0, float("nan"), 9.0, 8.0, 8.5)]
        [True, False, False, True, False]
        """
        sign = -1 if self.mode == "min" else 1
        if math.isnan(score) or sign * score <= sign * self.score:
            return False
        self.score, self.name = score, name
        return True

    def forget(self) -> None:
        """Go back to no value."""
        self.score, self.name = math.nan, ""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        if self.figure is None:
            return {}
        return {"figure": self.figure, "mode": self.mode, "score": self.score, "name": self.name}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what was the best by the same figure; by another one, nothing was."""
        if state and (state["figure"], state["mode"]) == (self.figure, self.mode):
            self.score, self.name = state["score"], state["name"]
