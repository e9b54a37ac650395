"""Figures in rows and columns, for what is no race; some are drawn too."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

Cell = float | str | None


@dataclass(frozen=True)
class Table:
    """What was measured, and what was found.

    Raises:
        ValueError: a row has another number of cells than there are columns, or a picture has no numbers to be
            drawn over.
    """

    what: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]
    """None where nothing was measured."""
    note: str = ""
    picture: str | None = None
    """Name of the file, without its ending, in which the columns of numbers are drawn over the first."""
    scale: Literal["linear", "log"] = "linear"
    """Of both axes of the picture."""
    unit: str = ""
    """Of the columns that are drawn."""

    def __post_init__(self) -> None:
        if wrong := [row for row in self.rows if len(row) != len(self.columns)]:
            raise ValueError(f"{self.what}: expected {len(self.columns)} cells in a row, got {wrong[0]}")
        if self.picture and not all(isinstance(row[0], int | float) for row in self.rows):
            raise ValueError(f"{self.what}: a picture needs numbers in the first column, {self.columns[0]!r}")


def draw(table: Table, folder: Path) -> Path:
    """Draw the columns of numbers over the first one, with a gap where nothing was measured."""
    over, *others = zip(*table.rows, strict=True)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    columns = zip(table.columns[1:], others, strict=True)
    drawn = {name: cells for name, cells in columns if not any(isinstance(cell, str) for cell in cells)}
    for number, (name, cells) in enumerate(drawn.items()):
        heights = [float("nan") if cell is None else cell for cell in cells]
        # Thinner and thinner, so that a line shows under one that lies on it.
        axes.plot(over, heights, marker=".", linewidth=1.5 * (len(drawn) - number), alpha=0.7, label=name)
    axes.set(xlabel=table.columns[0], ylabel=table.unit, xscale=table.scale, yscale=table.scale)
    if table.scale == "log":
        axes.set_xticks(over, [f"{value:g}" for value in over])
        axes.minorticks_off()
    axes.legend()
    file = folder / f"{table.picture}.png"
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return file
