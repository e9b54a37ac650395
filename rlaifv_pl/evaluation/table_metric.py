"""A metric as a table of whole numbers: one row an item, filled in by whichever process has its completion.

Processes are brought together by the greater number of each cell. So an item that several have seen (the padding of a
distributed sampler) counts once, and a process without items takes nothing away: the figures are those of one process,
to the last bit. Texts are read where they are; no text is sent between processes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from rlaifv_pl.evaluation.benchmark import Benchmark

MISSING = -1

_HALLUCINATED = {"CHAIRs", "CHAIRi", "CHAIR", "Hal", "Cog"}
"""Figures that say how much is made up."""
_NEITHER_WAY = {"words", "yes_ratio"}


class TableMetric(Metric):
    """Figures of the completions of a benchmark's items, in whatever order they come.

    Args:
        benchmark: scores the completions.
        settings: of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = None
    # Otherwise `forward` reads each text twice.
    full_state_update = False
    table: Tensor
    """(items, columns); rows of -1 where no completion was seen."""

    def __init__(self, benchmark: Benchmark, **settings: Any) -> None:
        super().__init__(**settings)
        self.benchmark = benchmark
        empty = torch.full((len(benchmark.items), len(benchmark.columns)), MISSING, dtype=torch.int64)
        self.add_state("table", empty, dist_reduce_fx="max")

    def update(self, completions: Sequence[str], index: Sequence[int] | Tensor) -> None:
        """Take in completions.

        Args:
            index: number of each one's item.

        Raises:
            ValueError: not one number a completion, or one that no item has.
        """
        numbers = index.tolist() if isinstance(index, Tensor) else list(index)
        if len(numbers) != len(completions):
            raise ValueError(
                f"{len(completions)} completions with {len(numbers)} item numbers: give one each"
            )
        if unknown := [number for number in numbers if not 0 <= number < len(self.table)]:
            raise ValueError(
                f"item numbers {unknown[:5]} are not among the {len(self.table)} items of {self.benchmark.name}"
            )
        for number, completion in zip(numbers, completions, strict=True):
            self.table[number] = self.table.new_tensor(self.benchmark.row(number, completion))

    def compute(self) -> dict[str, Tensor]:
        """Return the figures, and how many items were answered (`n`) and were not (`n_missing`)."""
        table = self.table.cpu()
        missing = int((table[:, 0] == MISSING).sum())
        counts = {"n": len(table) - missing, "n_missing": missing}
        figures = {**self.benchmark.figures(table), **counts}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}


def compute_figures(
    benchmark: Benchmark, completions: Mapping[int, str]
) -> tuple[str, dict[str, float | None]]:
    """Return name and figures of a benchmark's metric; None where a figure is not defined.

    Args:
        completions: by the number of their item.
    """
    metric = TableMetric(benchmark)
    # All completions are here, and other processes may be elsewhere: nothing is brought together.
    metric._to_sync = metric.sync_on_compute = False
    metric.update(list(completions.values()), list(completions))
    figures = {name: value.item() for name, value in metric.compute().items()}
    return benchmark.name, {
        name: None if math.isnan(value) else int(value) if is_count(name) else value
        for name, value in figures.items()
    }


def answered(table: Tensor) -> Tensor:
    """Return which items have a completion, as booleans."""
    return table[:, 0] != MISSING


def percent(count: Tensor | float, total: Tensor | float) -> float:
    """Return a share in per cent; nan of nothing.

    >>> percent(1, 8), percent(0, 0)
    (12.5, nan)
    """
    return 100 * float(count) / float(total) if total else float("nan")


def mean(values: Tensor) -> float:
    """Return the mean of whole numbers; nan of nothing."""
    return percent(values.sum(), len(values)) / 100


def equal_to(values: Sequence[Any], value: Any) -> Tensor:
    """Return which values equal one, as booleans."""
    return torch.tensor([each == value for each in values], dtype=torch.bool)


def is_count(name: str) -> bool:
    """Return whether a figure is a count, rather than a share or a score.

    >>> is_count("n"), is_count("n_missing"), is_count("number/f1")
    (True, True, False)
    """
    return name == "n" or name.startswith("n_")


def better(name: str) -> Literal["min", "max"] | None:
    """Return which way a figure gets better; None where neither does.

    >>> better("CHAIRi"), better("math"), better("yes_ratio"), better("n_mentions")
    ('min', 'max', None, None)
    """
    if is_count(name) or name in _NEITHER_WAY:
        return None
    return "min" if name in _HALLUCINATED else "max"
