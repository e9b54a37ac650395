"""The best checkpoint of a run by a held-out figure."""

import difflib
import math
from collections.abc import Sequence
from typing import Any, Literal

from rlaifv_pl.evaluation.table_metric import better
from rlaifv_pl.objectives.checks import RunError


class BestCheckpoint:
    """The best value so far, and the file of its checkpoint.

    Args:
        figure: name under which the figure is logged; None to track none.
        mode: whether lower or higher is better; told from the figure's name if None.

    Raises:
        ValueError: a mode without a figure, or a figure whose name does not tell the mode.
    """

    def __init__(self, figure: str | None = None, mode: Literal["min", "max"] | None = None) -> None:
        if figure is None and mode is not None:
            raise ValueError("checkpoint.mode needs checkpoint.monitor: set both, or leave the mode out")
        self.figure = figure
        self.mode = mode or (better(figure.split("/", 2)[-1]) if figure else None)
        if figure is not None and self.mode is None:
            raise ValueError(
                f"checkpoint.monitor {figure} has no known direction: set checkpoint.mode to min or max"
            )
        self.score, self.name = math.nan, ""

    def check(self, names: Sequence[str]) -> None:
        """Check that the figure is one of the measured ones.

        Raises:
            RunError: it is not.
        """
        if self.figure is None or self.figure in names:
            return
        near = difflib.get_close_matches(self.figure, names, n=3, cutoff=0.3) or names[:3]
        expected = (
            f"one of the run's held-out figures, such as {', '.join(near)}"
            if names
            else "a held-out figure, and the run has no held_out.benchmarks"
        )
        raise RunError(f"checkpoint.monitor is {self.figure!r}, expected {expected}.")

    def update(self, score: float, name: str) -> bool:
        """Keep a score and its checkpoint's name if it is better than all before; return whether it is.

        An undefined score (nan) never is.

        >>> best = BestCheckpoint("held_out/chair/CHAIRi")
        >>> [best.update(score, "") for score in (9.0, float("nan"), 9.0, 8.0, 8.5)]
        [True, False, False, True, False]
        """
        sign = -1 if self.mode == "min" else 1
        if math.isnan(score) or sign * score <= sign * self.score:
            return False
        self.score, self.name = score, name
        return True

    def reset(self) -> None:
        """Forget the best score."""
        self.score, self.name = math.nan, ""

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint; empty if no figure is tracked."""
        if self.figure is None:
            return {}
        return {"figure": self.figure, "mode": self.mode, "score": self.score, "name": self.name}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the best score, if it is of the same figure and mode."""
        if state and (state["figure"], state["mode"]) == (self.figure, self.mode):
            self.score, self.name = state["score"], state["name"]
