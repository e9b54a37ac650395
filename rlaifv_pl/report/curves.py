"""Steps to series: what `metrics.csv` holds, sorted into charts; chosen and rejected always as two curves."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

MAX_POINTS = 1500
"""Maximum points of a curve; a longer one is shown by means of equally many steps, and says so."""

ORDER = ("loss", "rewards", "rewards/margins", "rewards/accuracies", "logps", "lengths")
"""Charts that come first; others follow by name."""

SIDES = ("chosen", "rejected")
_NOT_CURVES = ("epoch", "step")


def curves(rows: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Charts as JSON: `{title, series: [{name, stage, side, x, y, mean_of}]}`.

    x are steps, y values as they were logged (None where a value is no finite number), each a mean of `mean_of`
    neighbours.

    >>> curves([{"step": "0", "train/loss": "0.5"}])[0]["series"][0]["y"]
    [0.5]
    """
    series: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, cell in row.items():
            if name not in _NOT_CURVES:
                series.setdefault(name, []).append((int(row["step"]), _number(cell)))
    charts: dict[str, list[dict[str, Any]]] = {}
    for name, points in series.items():
        stage, _, rest = name.partition("/")
        title, side = _place(rest or stage)
        charts.setdefault(title, []).append(
            {"name": rest or stage, "stage": stage, "side": side, **_shown(points)}
        )
    ordered = sorted(charts, key=lambda title: (ORDER.index(title) if title in ORDER else len(ORDER), title))
    return [{"title": title, "series": charts[title]} for title in ordered]


def round_starts(rows: Iterable[Mapping[str, str]], epochs: int | None) -> list[dict[str, int]]:
    """The first step of each round, `{round, step}`; nothing for a run without rounds."""
    starts: dict[int, int] = {}
    for row in rows:
        if epochs and row.get("epoch", "").isdigit():
            starts.setdefault((int(row["epoch"]) - 1) // epochs + 1, int(row["step"]))
    return [{"round": number, "step": step} for number, step in starts.items()]


def _place(name: str) -> tuple[str, str]:
    """Title of the chart that a value belongs in, and its side."""
    head, _, last = name.rpartition("/")
    if last in SIDES and head:
        return head, last
    return ("loss" if name.startswith("loss/") else name), ""


def _shown(points: list[tuple[int, float]]) -> dict[str, Any]:
    size = math.ceil(len(points) / MAX_POINTS)
    steps, values = (np.array(each, dtype=float) for each in zip(*points, strict=True))
    starts = range(0, len(points), size)
    means = [float(np.mean(values[start : start + size])) for start in starts]
    return {
        "x": [int(steps[start : start + size].mean()) for start in starts],
        "y": [value if math.isfinite(value) else None for value in means],
        "mean_of": size,
    }


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
