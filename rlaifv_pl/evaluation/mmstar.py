"""MMStar: questions that cannot be answered without the image (Chen et al. 2024, "Are We on the Right Way for
Evaluating Large Vision-Language Models?")."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.evaluation.benchmark import Benchmark, Item, unique_items
from rlaifv_pl.evaluation.benchmark_files import FileRow, number_or_text
from rlaifv_pl.evaluation.spreadsheets import read_table, write_xlsx
from rlaifv_pl.evaluation.table_metric import answered, percent

_PREFIXES = ("", "(", "option ", "the answer is ")
"""Texts that may stand in front of the letter."""


def mmstar_right(completion: str, answer: str) -> bool:
    """Return whether an answer begins with the right letter, as MMStar reads it: an article is an A, too.

    A line end counts as a blank.

    >>> [mmstar_right(text, "A") for text in ("A: red", "(A)", "The answer is\\nA.", "A cat", "Answer: A", "b")]
    [True, True, True, True, True, False]
    """
    text = completion.lower().strip().replace("\n", " ")
    letter = answer.lower().strip()
    return any(text.startswith(prefix + letter) for prefix in _PREFIXES)


class MMStarBenchmark(Benchmark):
    """The questions of MMStar.

    Args:
        rows: with index, question, answer, category and l2_category.
    """

    name = "mmstar"
    columns = ("right",)
    key_fields = ("index",)
    completion_fields = ("prediction",)

    def __init__(self, rows: Sequence[FileRow]) -> None:
        self.rows = list(rows)
        self.items = unique_items(
            [
                Item(key=row.key("index"), prompt=row.get(str, "question"), image=row.key("index"))
                for row in rows
            ],
            rows[0].where,
        )
        self.answers = [row.get(str, "answer") for row in rows]
        self.categories = [(row.get(str, "category"), row.get(str, "l2_category")) for row in rows]

    @classmethod
    def load(cls, path: Path) -> "MMStarBenchmark":
        """Read a workbook, a table or JSON.

        Raises:
            BenchmarkError: a row lacks something.
        """
        return cls(read_table(path))

    def row(self, number: int, completion: str) -> tuple[int]:
        """Return whether it is right."""
        return (int(mmstar_right(completion, self.answers[number])),)

    def record(self, number: int, completion: str) -> dict[str, Any]:
        """Return whether it is right, and the right letter."""
        return {"expected": self.answers[number], "right": mmstar_right(completion, self.answers[number])}

    def figures(self, table: Tensor) -> dict[str, float]:
        """Compute right answers in per cent: all (`final`), by category, and by category and subcategory."""
        seen = answered(table).tolist()
        groups: dict[str, list[int]] = {"final": []}
        for (category, finer), counts, right in zip(self.categories, seen, table[:, 0].tolist(), strict=True):
            for name in ("final", category, f"{category} ({finer})"):
                groups.setdefault(name, []).extend([right] if counts else [])
        return {name: percent(sum(rights), len(rights)) for name, rights in groups.items()}

    def read(self, path: Path) -> dict[int, str]:
        """Read a workbook, a table or JSON with index and prediction."""
        return self.match(read_table(path))

    def write(self, path: Path, completions: Mapping[int, str]) -> None:
        """Write a workbook: the questions' rows with index as a number and prediction."""
        rows = [
            {**self.rows[number].fields, "index": number_or_text(self.items[number].key), "prediction": text}
            for number, text in sorted(completions.items())
        ]
        with atomic_file(path) as file:
            write_xlsx(file, rows)
