"""A metric as a table of whole numbers: one row a sample, filled in by whichever process has seen it.

Processes are brought together by the greater number of each cell. So a sample that several have seen (the padding of
a distributed sampler) counts once, and a process without samples takes nothing away: the figures are those of one
process, to the last bit. Texts are read where they are; no text is sent between processes.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

MISSING = -1

_HALLUCINATED = {"CHAIRs", "CHAIRi", "CHAIR", "Hal", "Cog"}
"""Figures that say how much is made up."""
_NEITHER_WAY = {"words", "yes_ratio"}


class TableMetric(Metric):
    """Figures of the completions of a benchmark's items, whatever the order in which they come.

    Args:
        size: number of items.
        settings: of `torchmetrics.Metric`.
    """

    columns: ClassVar[tuple[str, ...]]
    """What is counted of each sample; numbers that are not negative."""
    is_differentiable = False
    higher_is_better = None
    # Otherwise `forward` reads each text twice.
    full_state_update = False
    table: Tensor
    """(size, columns); rows of -1 where no completion was seen."""

    def __init__(self, size: int, **settings: Any) -> None:
        super().__init__(**settings)
        empty = torch.full((size, len(self.columns)), MISSING, dtype=torch.int64)
        self.add_state("table", empty, dist_reduce_fx="max")

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the metric, with its variant: figures of different names cannot be compared."""

    @abstractmethod
    def row(self, number: int, completion: str) -> Sequence[int]:
        """The cells of an item's completion."""

    def record(self, number: int, completion: str) -> dict[str, Any]:
        """What the metric makes of an item's completion, for people to read, as JSON."""
        return dict(zip(self.columns, map(int, self.row(number, completion)), strict=True))

    @abstractmethod
    def figures(self, table: Tensor) -> dict[str, float]:
        """Figures of a whole table; nan where there is nothing to divide by."""

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
        if strange := [number for number in numbers if not 0 <= number < len(self.table)]:
            raise ValueError(
                f"item numbers {strange[:5]} are not among the {len(self.table)} items of {self.name}"
            )
        for number, completion in zip(numbers, completions, strict=True):
            self.table[number] = self.table.new_tensor(self.row(number, completion))

    def compute(self) -> dict[str, Tensor]:
        """The figures, and how many items were answered (`n`) and were not (`n_missing`)."""
        table = self.table.cpu()
        missing = int((table[:, 0] == MISSING).sum())
        counts = {"n": len(table) - missing, "n_missing": missing}
        found = {**self.figures(table), **counts}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}


def answered(table: Tensor) -> Tensor:
    """Which items have a completion, as booleans."""
    return table[:, 0] != MISSING


def percent(part: Tensor | float, whole: Tensor | float) -> float:
    """A share in per cent; nan of nothing.

    >>> percent(1, 8), percent(0, 0)
    (12.5, nan)
    """
    return 100 * float(part) / float(whole) if whole else float("nan")


def is_count(name: str) -> bool:
    """Whether a figure counts something, rather than being a share or a score.

    >>> is_count("n"), is_count("n_missing"), is_count("number/f1")
    (True, True, False)
    """
    return name == "n" or name.startswith("n_")


def better(name: str) -> Literal["min", "max"] | None:
    """Which way a figure gets better; None where neither does.

    >>> better("CHAIRi"), better("math"), better("yes_ratio"), better("n_mentions")
    ('min', 'max', None, None)
    """
    if is_count(name) or name in _NEITHER_WAY:
        return None
    return "min" if name in _HALLUCINATED else "max"
