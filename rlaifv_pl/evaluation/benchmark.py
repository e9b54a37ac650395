"""What a benchmark offers: what to ask of which image, and how responses are kept and measured.

Whatever answers the items needs to know no more than this; whatever measures needs no model.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow
from rlaifv_pl.evaluation.table_metric import TableMetric


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One prompt of a benchmark."""

    key: str
    """Identity in the benchmark's own files."""
    prompt: str
    image: str = ""
    """The image's name in the benchmark; empty where there is none to show."""


class Benchmark(Protocol):
    """A public benchmark with its annotations read."""

    @property
    def items(self) -> Sequence[Item]:
        """What a model is asked; their order numbers the rows of the metric."""

    def metric(self) -> TableMetric:
        """A fresh metric over the items."""

    def read(self, path: Path) -> dict[int, str]:
        """Saved completions by the number of their item.

        Raises:
            BenchmarkError: a row is not in the official format, or answers no item.
        """

    def write(self, path: Path, completions: Mapping[int, str]) -> None:
        """Save completions in the official format, which the benchmark's own scorer reads, too."""


def match(
    items: Sequence[Item], rows: Iterable[FileRow], key: Callable[[FileRow], str], *field: str
) -> dict[int, str]:
    """Completions by the number of their item, found by its key.

    Raises:
        BenchmarkError: a row answers no item, or one that another row has answered.
    """
    numbers = {item.key: number for number, item in enumerate(items)}
    found: dict[int, str] = {}
    for row in rows:
        name = key(row)
        if name not in numbers:
            raise row.error(f"expected the key of an item, such as {items[0].key!r}, got {name!r}")
        if (number := numbers[name]) in found:
            raise row.error(f"expected one response to each item, got a second one to {name!r}")
        found[number] = row.get(str, *field)
    return found


def check_keys(items: Sequence[Item], where: str) -> None:
    """That no two items have one key.

    Raises:
        BenchmarkError: two have.
    """
    seen: set[str] = set()
    for item in items:
        if item.key in seen:
            raise BenchmarkError(f"{where}: expected a key for each item alone, got {item.key!r} twice")
        seen.add(item.key)
