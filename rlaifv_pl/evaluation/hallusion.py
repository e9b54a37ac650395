"""HallusionBench without a judge: answers of yes and no to questions about figures, some of which were altered
(Guan et al. 2024, "HallusionBench: An Advanced Diagnostic Suite for Entangled Language Hallucination and Visual
Illusion"). Its authors let GPT-4 compare the answers; here, as in other open harnesses, the words yes and no are
looked for, in the questions that come with an image. The two give different figures, so this one is called by its name.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.evaluation.benchmark import Item, check_keys
from rlaifv_pl.evaluation.benchmark_files import FileRow, read_file_rows
from rlaifv_pl.evaluation.table_metric import TableMetric, answered, percent
from rlaifv_pl.evaluation.yes_no import NO, YES, all_right, answer_record, word_answer

_LABELS = {"0": NO, "1": YES}
_QUESTION = ("category", "subcategory", "set_id", "question_id")
_FIGURE = ("category", "subcategory", "set_id", "figure_id")
_NO_IMAGE = "0"


def hallusion_figures(table: Tensor, labels: Tensor, question: Tensor, figure: Tensor) -> dict[str, float]:
    """aAcc: answers that are right; qAcc: questions that are right with all their figures; fAcc: figures with all
    their questions right; in per cent. A question or figure with an unanswered member counts by the others.

    Args:
        table: (rows, 1): what each answer was read as.
        labels: right answers.
        question: number of each row's question.
        figure: number of each row's figure.
    """
    seen = answered(table)
    answers = table[seen, 0]
    right = answers == labels[seen]
    return {
        "aAcc": percent(right.sum(), len(right)),
        "fAcc": percent(*all_right(right, figure[seen])),
        "qAcc": percent(*all_right(right, question[seen])),
        "yes_ratio": percent((answers == YES).sum(), len(answers)),
        "n_unread": int((answers > YES).sum()),
    }


class HallusionBench(TableMetric):
    """HallusionBench of answers, see `word_answer`.

    Args:
        labels: right answer of each row, 1 for yes.
        question: number of its question.
        figure: number of its figure.
        settings: of `torchmetrics.Metric`.
    """

    columns = ("answer",)

    def __init__(
        self, labels: Sequence[int], question: Sequence[int], figure: Sequence[int], **settings: Any
    ) -> None:
        super().__init__(len(labels), **settings)
        self.groups = tuple(torch.tensor(numbers) for numbers in (labels, question, figure))

    @property
    def name(self) -> str:
        """`hallusionbench_yes_no`."""
        return "hallusionbench_yes_no"

    def row(self, number: int, completion: str) -> tuple[int]:
        """What the answer is read as."""
        return (word_answer(completion),)

    def record(self, number: int, completion: str) -> dict[str, Any]:
        """As `answer_record`."""
        return answer_record(word_answer(completion), int(self.groups[0][number]))

    def figures(self, table: Tensor) -> dict[str, float]:
        """As `hallusion_figures`."""
        return hallusion_figures(table, *self.groups)


class HallusionBenchmark:
    """The questions of `HallusionBench.json` that have an image.

    Args:
        rows: of the file.
    """

    def __init__(self, rows: Sequence[FileRow]) -> None:
        self.rows = [row for row in rows if row.key("visual_input") != _NO_IMAGE]
        self.items = [
            Item(key=_key(row), prompt=row.get(str, "question"), image=row.get(str, "filename"))
            for row in self.rows
        ]
        check_keys(self.items, rows[0].where if rows else "questions")

    @classmethod
    def load(cls, path: Path) -> "HallusionBenchmark":
        """From the official file.

        Raises:
            BenchmarkError: it is not so.
        """
        return cls(read_file_rows(path))

    def metric(self) -> HallusionBench:
        """As `Benchmark.metric`."""
        labels = [row.one_of(_LABELS, "gt_answer") for row in self.rows]
        return HallusionBench(labels, _numbered(self.rows, _QUESTION), _numbered(self.rows, _FIGURE))

    def read(self, path: Path) -> dict[int, str]:
        """As `Benchmark.read`, from rows of the official file with a `model_prediction`; rows without image are left
        out."""
        numbers = {item.key: number for number, item in enumerate(self.items)}
        found: dict[int, str] = {}
        for row in read_file_rows(path):
            if row.key("visual_input") == _NO_IMAGE:
                continue
            if (key := _key(row)) not in numbers:
                raise row.error(f"expected a row of HallusionBench.json, got one with {key}")
            found[numbers[key]] = row.get(str, "model_prediction")
        return found

    def write(self, path: Path, completions: Mapping[int, str]) -> None:
        """As `Benchmark.write`."""
        rows = [
            {**self.rows[number].fields, "model_prediction": text}
            for number, text in sorted(completions.items())
        ]
        with atomic_file(path) as file:
            file.write(json.dumps(rows, indent=1, ensure_ascii=False).encode())


def _key(row: FileRow) -> str:
    return " ".join(f"{name}={row.key(name)}" for name in (*_QUESTION, "figure_id"))


def _numbered(rows: Sequence[FileRow], names: Sequence[str]) -> list[int]:
    """The number of each row's group: those are one group that agree in all of these fields."""
    numbers: dict[tuple[str, ...], int] = {}
    return [numbers.setdefault(tuple(row.key(name) for name in names), len(numbers)) for row in rows]
