"""MMStar: questions that cannot be answered without the image (Chen et al. 2024, "Are We on the Right Way for
Evaluating Large Vision-Language Models?")."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.evaluation.benchmark import Item, check_keys, match
from rlaifv_pl.evaluation.benchmark_files import FileRow
from rlaifv_pl.evaluation.spreadsheets import read_table, write_xlsx
from rlaifv_pl.evaluation.table_metric import TableMetric, answered, percent

_OPENINGS = ("", "(", "option ", "the answer is ")
"""What may stand in front of the letter."""


def mmstar_right(completion: str, answer: str) -> bool:
    """Whether an answer begins with the right letter, as MMStar reads it: an article is an A, too.

    A line end counts as a blank.

    >>> [mmstar_right(text, "A") for text in ("A: red", "(A)", "The answer is\\nA.", "A cat", "Answer: A", "b")]
    [True, True, True, True, True, False]
    """
    text = completion.lower().strip().replace("\n", " ")
    letter = answer.lower().strip()
    return any(text.startswith(opening + letter) for opening in _OPENINGS)


def mmstar_figures(table: Tensor, categories: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Right answers in per cent: all (`final`), by category, and by category and subcategory.

    Args:
        table: (questions, 1): 1 where the answer is right.
        categories: category and subcategory of each question.
    """
    seen = answered(table).tolist()
    groups: dict[str, list[int]] = {"final": []}
    for (category, finer), counts, right in zip(categories, seen, table[:, 0].tolist(), strict=True):
        for name in ("final", category, f"{category} ({finer})"):
            groups.setdefault(name, []).extend([right] if counts else [])
    return {name: percent(sum(rights), len(rights)) for name, rights in groups.items()}


class MMStar(TableMetric):
    """MMStar of answers.

    Args:
        answers: right letter of each question.
        categories: its category and subcategory.
        settings: of `torchmetrics.Metric`.
    """

    columns = ("right",)

    def __init__(
        self, answers: Sequence[str], categories: Sequence[tuple[str, str]], **settings: Any
    ) -> None:
        super().__init__(len(answers), **settings)
        self.answers = list(answers)
        self.categories = list(categories)

    @property
    def name(self) -> str:
        """`mmstar`."""
        return "mmstar"

    def row(self, number: int, completion: str) -> tuple[int]:
        """Whether it is right."""
        return (int(mmstar_right(completion, self.answers[number])),)

    def record(self, number: int, completion: str) -> dict[str, Any]:
        """Whether it is right, and the right letter."""
        right = bool(self.row(number, completion)[0])
        return {"expected": self.answers[number], "right": right}

    def figures(self, table: Tensor) -> dict[str, float]:
        """As `mmstar_figures`."""
        return mmstar_figures(table, self.categories)


class MMStarBenchmark:
    """The questions of MMStar.

    Args:
        rows: with index, question, answer, category and l2_category.
    """

    def __init__(self, rows: Sequence[FileRow]) -> None:
        self.rows = list(rows)
        self.items = [
            Item(key=row.key("index"), prompt=row.get(str, "question"), image=row.key("index"))
            for row in rows
        ]
        check_keys(self.items, rows[0].where)

    @classmethod
    def load(cls, path: Path) -> "MMStarBenchmark":
        """From a workbook, a table or JSON.

        Raises:
            BenchmarkError: a row lacks something.
        """
        return cls(read_table(path))

    def metric(self) -> MMStar:
        """As `Benchmark.metric`."""
        answers = [row.get(str, "answer") for row in self.rows]
        return MMStar(answers, [(row.get(str, "category"), row.get(str, "l2_category")) for row in self.rows])

    def read(self, path: Path) -> dict[int, str]:
        """As `Benchmark.read`, from a workbook, a table or JSON with index and prediction."""
        return match(self.items, read_table(path), lambda row: row.key("index"), "prediction")

    def write(self, path: Path, completions: Mapping[int, str]) -> None:
        """As `Benchmark.write`, a workbook."""
        rows = [
            {**self.rows[number].fields, "index": int(self.items[number].key), "prediction": text}
            for number, text in sorted(completions.items())
        ]
        with atomic_file(path) as file:
            write_xlsx(file, rows)
