"""A benchmark: what a model is asked about which image, how responses are kept, and how they are scored."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, read_file_rows, write_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One prompt of a benchmark."""

    key: str
    """Identity in the benchmark's own files."""
    prompt: str
    image: str = ""
    """The image's name in the benchmark; empty where there is none to show."""


class Benchmark(ABC):
    """A public benchmark with its annotations read. `TableMetric` measures completions by it.

    A subclass that keeps its responses in rows of JSON names the fields of a row; `read` and `write` follow from them.
    """

    columns: ClassVar[tuple[str, ...]]
    """Names of the counts of each completion; numbers that are not negative."""
    key_fields: ClassVar[tuple[str, ...]] = ()
    """Fields of a row of responses that say which item it answers."""
    completion_fields: ClassVar[tuple[str, ...]] = ()
    """Names that the field with the completion may have."""
    writes_list: ClassVar[bool] = False
    """True if responses are one JSON list rather than JSON lines."""

    items: Sequence[Item]
    """Prompts in the order of the metric's rows."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the metric with its variant: figures of different names cannot be compared."""

    @abstractmethod
    def row(self, number: int, completion: str) -> Sequence[int]:
        """Return the counts of an item's completion, one for each of `columns`."""

    def record(self, number: int, completion: str) -> dict[str, Any]:
        """Return what the metric makes of an item's completion, for people to read, as JSON."""
        return dict(zip(self.columns, map(int, self.row(number, completion)), strict=True))

    @abstractmethod
    def figures(self, table: Tensor) -> dict[str, float]:
        """Compute the figures; nan where there is nothing to divide by.

        Args:
            table: (items, columns) counts; rows of -1 where there is no completion.
        """

    def key_of(self, row: FileRow) -> str:
        """Return the key of the item that a row of responses answers."""
        return row.key(*self.key_fields)

    def completion_of(self, row: FileRow) -> str:
        """Return the completion in a row of responses."""
        return row.get(str, *self.completion_fields)

    def response_row(self, number: int, completion: str) -> dict[str, Any]:
        """Return a completion as a row of the official format."""
        raise NotImplementedError(f"{type(self).__name__} writes responses in its own way")

    def read(self, path: Path) -> dict[int, str]:
        """Read saved completions, by the number of their item.

        Raises:
            BenchmarkError: a row is not in the official format, or answers no item.
        """
        return self.match(read_file_rows(path))

    def write(self, path: Path, completions: Mapping[int, str]) -> None:
        """Save completions in the official format, which the benchmark's own scorer reads, too."""
        rows = [self.response_row(number, text) for number, text in sorted(completions.items())]
        write_rows(path, rows, as_list=self.writes_list)

    def match(self, rows: Sequence[FileRow], value: Callable[[FileRow], str] | None = None) -> dict[int, str]:
        """Return what rows hold by the number of their item; of items with one key the first comes first.

        Args:
            value: reads a row; its completion unless given.

        Raises:
            BenchmarkError: a row answers no item, or one that other rows have answered.
        """
        open_numbers: dict[str, list[int]] = {}
        for number, key in reversed(list(enumerate(self.row_keys()))):
            open_numbers.setdefault(key, []).append(number)
        completions: dict[int, str] = {}
        for row in rows:
            numbers, fields = open_numbers.get(key := self.key_of(row)), ", ".join(map(repr, self.key_fields))
            if numbers is None:
                raise row.error(
                    f"field {fields}: expected an item of the benchmark, such as {self.row_keys()[0]!r}, got "
                    f"{key!r}. Remove the row, or give the ground truth that has the item"
                )
            if not numbers:
                raise row.error(
                    f"field {fields}: expected one response to each item, got one more to {key!r}. Remove one of them"
                )
            completions[numbers.pop()] = (value or self.completion_of)(row)
        return completions

    def row_keys(self) -> list[str]:
        """Return what `key_of` gives for a row that answers each item."""
        return [item.key for item in self.items]


def unique_items(items: Sequence[Item], where: str) -> list[Item]:
    """Return the items, each of a key of its own.

    Raises:
        BenchmarkError: two have one key.
    """
    seen: set[str] = set()
    for item in items:
        if item.key in seen:
            raise BenchmarkError(
                f"{where}: expected each item once, got {item.key!r} twice. Remove one of them"
            )
        seen.add(item.key)
    return list(items)
