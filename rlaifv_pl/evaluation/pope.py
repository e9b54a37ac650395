"""POPE: is there such an object in the image? (Li et al. 2023, "Evaluating Object Hallucination in Large
Vision-Language Models".)"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlaifv_pl.evaluation.benchmark import Item, unique_items
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, read_file_rows, write_rows
from rlaifv_pl.evaluation.table_metric import answered, percent
from rlaifv_pl.evaluation.yes_no import LABELS, WORDS, YES, YesNoBenchmark, confusion, pope_answer


@dataclass(frozen=True, kw_only=True, slots=True)
class PopeQuestion:
    """A question with its answer, with the names of the official files."""

    question_id: int
    image: str
    text: str
    label: str
    """yes or no."""


class PopeBenchmark(YesNoBenchmark):
    """Questions of one file of POPE, answered as its authors read answers, see `pope_answer`.

    Args:
        questions: in their order.
        where: file, for messages.
    """

    name = "pope"
    key_fields = ("question_id",)
    completion_fields = ("text", "answer")
    read_answer = pope_answer

    def __init__(self, questions: Sequence[PopeQuestion], where: str = "questions") -> None:
        self.questions = list(questions)
        self.items = unique_items(
            [Item(key=str(one.question_id), prompt=one.text, image=one.image) for one in questions], where
        )
        self.labels = torch.tensor([LABELS[one.label] for one in questions])

    @classmethod
    def load(cls, path: Path) -> "PopeBenchmark":
        """Read an official file, JSON lines of question_id, image, text and label.

        Raises:
            BenchmarkError: a row lacks something.
        """
        return cls([_question(row) for row in read_file_rows(path)], str(path))

    def save(self, path: Path) -> None:
        """Write the questions as an official file."""
        write_rows(path, [asdict(question) for question in self.questions])

    def figures(self, table: Tensor) -> dict[str, float]:
        """Compute accuracy, precision, recall, F1 (yes is a hit) and the share of yes, in per cent."""
        seen = answered(table)
        answers = table[seen, 0]
        rates = confusion(answers, self.labels[seen], YES)
        return {**rates, "yes_ratio": percent((answers == YES).sum(), len(answers))}

    def read(self, path: Path) -> dict[int, str]:
        """Read {question_id, text} as LLaVA saves them, or all of {question, answer} in the order of the questions, as
        POPE's own scorer reads them."""
        rows = read_file_rows(path)
        if "question_id" in rows[0].fields:
            return self.match(rows)
        if len(rows) != len(self.items):
            raise BenchmarkError(
                f"{path}: expected {len(self.items)} rows, one for each question in its order, got {len(rows)}. "
                "Give each row the question_id that it answers"
            )
        return {number: self._in_order(number, row) for number, row in enumerate(rows)}

    def response_row(self, number: int, completion: str) -> dict[str, Any]:
        """Return a row that POPE's own scorer reads if all questions are answered."""
        question = self.questions[number]
        return {"question_id": question.question_id, "question": question.text, "answer": completion}

    def _in_order(self, number: int, row: FileRow) -> str:
        if row.fields.get("question", text := self.items[number].prompt) != text:
            raise row.error(
                f"field 'question': expected {text!r}, the question of this line of the questions' file. Give each row "
                "the question_id that it answers"
            )
        return self.completion_of(row)


def _question(row: FileRow) -> PopeQuestion:
    return PopeQuestion(
        question_id=row.get(int, "question_id"),
        image=row.get(str, "image"),
        text=row.get(str, "text"),
        label=WORDS[row.one_of(LABELS, "label")],
    )
