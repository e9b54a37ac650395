"""POPE: is there such an object in the image? (Li et al. 2023, "Evaluating Object Hallucination in Large
Vision-Language Models".)"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.evaluation.benchmark import Item, check_keys, match
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, read_file_rows
from rlaifv_pl.evaluation.table_metric import TableMetric, answered, percent
from rlaifv_pl.evaluation.yes_no import LABELS, YES, answer_record, confusion, pope_answer


@dataclass(frozen=True, kw_only=True, slots=True)
class PopeQuestion:
    """A question with its answer, with the names of the official files."""

    question_id: int
    image: str
    text: str
    label: str
    """yes or no."""


def pope_figures(table: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, precision, recall, F1 (yes is a hit) and the share of yes, in per cent.

    Args:
        table: (questions, 1): what each answer was read as.
        labels: right answers.
    """
    seen = answered(table)
    answers = table[seen, 0]
    found = confusion(answers, labels[seen], YES)
    return {**found, "yes_ratio": percent((answers == YES).sum(), len(answers))}


class Pope(TableMetric):
    """POPE of answers as its authors read them, see `pope_answer`.

    Args:
        labels: right answer to each question, 1 for yes.
        settings: of `torchmetrics.Metric`.
    """

    columns = ("answer",)

    def __init__(self, labels: Sequence[int], **settings: Any) -> None:
        super().__init__(len(labels), **settings)
        self.labels = torch.tensor(labels)

    @property
    def name(self) -> str:
        """`pope`."""
        return "pope"

    def row(self, number: int, completion: str) -> tuple[int]:
        """What the answer is read as."""
        return (pope_answer(completion),)

    def record(self, number: int, completion: str) -> dict[str, Any]:
        """As `answer_record`."""
        return answer_record(pope_answer(completion), int(self.labels[number]))

    def figures(self, table: Tensor) -> dict[str, float]:
        """As `pope_figures`."""
        return pope_figures(table, self.labels)


class PopeBenchmark:
    """Questions of one file of POPE.

    Args:
        questions: in their order.
        where: file, for messages.
    """

    def __init__(self, questions: Sequence[PopeQuestion], where: str = "questions") -> None:
        self.questions = list(questions)
        self.items = [Item(key=str(one.question_id), prompt=one.text, image=one.image) for one in questions]
        check_keys(self.items, where)

    @classmethod
    def load(cls, path: Path) -> "PopeBenchmark":
        """From an official file, JSON lines of question_id, image, text and label.

        Raises:
            BenchmarkError: a row is not so.
        """
        return cls([_question(row) for row in read_file_rows(path)], str(path))

    def save(self, path: Path) -> None:
        """Write the questions as an official file."""
        with atomic_file(path) as file:
            file.write("".join(json.dumps(asdict(one)) + "\n" for one in self.questions).encode())

    def metric(self) -> Pope:
        """As `Benchmark.metric`."""
        return Pope([LABELS[one.label] for one in self.questions])

    def read(self, path: Path) -> dict[int, str]:
        """As `Benchmark.read`: {question_id, text} as LLaVA saves them, or all of {question, answer} in the order
        of the questions, as POPE's own scorer reads them."""
        rows = read_file_rows(path)
        if "question_id" in rows[0].fields:
            return match(self.items, rows, lambda row: row.key("question_id"), "text", "answer")
        if len(rows) != len(self.items):
            raise BenchmarkError(
                f"{path}: expected {len(self.items)} rows, one for each question in its order, got {len(rows)}. "
                "Give each row the question_id that it answers."
            )
        return {number: self._in_order(number, row) for number, row in enumerate(rows)}

    def write(self, path: Path, completions: Mapping[int, str]) -> None:
        """As `Benchmark.write`; POPE's own scorer reads it if all questions are answered."""
        with atomic_file(path) as file:
            for number, text in sorted(completions.items()):
                asked = self.questions[number]
                row = {"question_id": asked.question_id, "question": asked.text, "answer": text}
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())

    def _in_order(self, number: int, row: FileRow) -> str:
        if row.fields.get("question", text := self.items[number].prompt) != text:
            raise row.error(
                f"field 'question': expected {text!r}, the question of this line of the questions' file"
            )
        return row.get(str, "answer", "text")


def _question(row: FileRow) -> PopeQuestion:
    row.one_of(LABELS, "label")
    label = row.get(str, "label").strip().lower()
    return PopeQuestion(
        question_id=row.get(int, "question_id"),
        image=row.get(str, "image"),
        text=row.get(str, "text"),
        label=label,
    )
