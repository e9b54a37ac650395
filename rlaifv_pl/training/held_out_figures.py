"""Held-out figures of a run by step, in one file and as a table."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from rlaifv_pl.data.atomic import atomic_file, writing
from rlaifv_pl.evaluation.table_metric import better

FOLDER, FIGURES_NAME = "held_out", "figures.json"

Figures = Mapping[str, float | None]
"""Figures by name; None for an undefined one."""


class FiguresFile:
    """`<run>/held_out/figures.json`: settings of each benchmark, and its figures by step; written after every change.

    Args:
        directory: `<run>/held_out`.
        writes: whether this process writes; the others only read.
    """

    def __init__(self, directory: Path, *, writes: bool = True) -> None:
        self.path, self.writes = directory / FIGURES_NAME, writes

    def read(self) -> dict[str, dict[str, Any]]:
        """Read all entries, by the benchmark's name."""
        return json.loads(self.path.read_bytes()) if self.path.is_file() else {}

    def begin(self, step: int, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Drop figures of later steps, and of benchmarks whose settings have changed.

        Args:
            step: step at which the run begins or resumes.
            settings: metric, files and rules of each benchmark by its name.
        """
        if not self.writes:
            return
        before, entries = self.read(), {}
        for name, own in settings.items():
            steps = before.get(name, {}).get("steps", [])
            is_same = before.get(name) == {**own, "steps": steps}
            entries[name] = {**own, "steps": [one for one in steps if is_same and one["step"] <= step]}
        self._write(entries)

    def note(self, step: int, figures: Mapping[str, Figures]) -> None:
        """Record the figures of a step, by the benchmark's name."""
        if not self.writes:
            return
        entries = self.read()
        for name, own in figures.items():
            earlier = [one for one in entries[name]["steps"] if one["step"] < step]
            entries[name]["steps"] = [*earlier, {"step": step, "figures": dict(own)}]
        self._write(entries)

    def _write(self, entries: Mapping[str, Any]) -> None:
        with writing(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as file:
            file.write((json.dumps(entries, indent=2, allow_nan=False) + "\n").encode())


def figures_table(entries: Mapping[str, Mapping[str, Any]]) -> Table:
    """Table of the first, best and last value of each figure with a direction, and the step of the best."""
    table = Table("benchmark", "figure", title="held-out figures")
    for heading in ("first", "best", "at step", "last"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, entry in entries.items():
        steps = entry["steps"]
        for figure in steps[0]["figures"] if steps else ():
            if direction := better(figure):
                table.add_row(
                    name, figure, *_first_best_last(steps, figure, min if direction == "min" else max)
                )
    return table


def _first_best_last(steps: list[dict[str, Any]], figure: str, best: Any) -> list[str]:
    values = {one["step"]: one["figures"].get(figure) for one in steps}
    known = {step: value for step, value in values.items() if value is not None}
    at = best(known, key=known.get) if known else None
    first, *_, last = [*values.values()] * 2
    return [_format(first), _format(known.get(at)), "" if at is None else str(at), _format(last)]


def _format(value: float | None) -> str:
    return "undefined" if value is None else f"{value:z.2f}"
