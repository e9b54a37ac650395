"""MME: two questions about each image, one of which is answered with yes and one with no (Fu et al. 2023, "MME: A
Comprehensive Evaluation Benchmark for Multimodal Large Language Models")."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.evaluation.benchmark import Item
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, read_text
from rlaifv_pl.evaluation.table_metric import TableMetric, answered, percent
from rlaifv_pl.evaluation.yes_no import LABELS, all_right, answer_record, mme_answer

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


@dataclass(frozen=True, kw_only=True, slots=True)
class MmeQuestion:
    """A line of a file of MME, which is named after its category."""

    category: str
    image: str
    text: str
    label: str
    """Yes or No, as it is written there."""
    where: str

    @property
    def right(self) -> int:
        """The label as a number."""
        return LABELS[self.label.lower()]


def mme_figures(table: Tensor, questions: Sequence[MmeQuestion]) -> dict[str, float]:
    """Of each category, right answers (`acc`) and images with both answers right (`acc+`) in per cent and their sum
    (`score`); and the sums of the scores of perception (of 2000) and cognition (of 800), nan unless all are there.

    Args:
        table: (questions, 1): what each answer was read as.
        questions: beside it.
    """
    seen = answered(table).tolist()
    right = [int(answer) == asked.right for answer, asked in zip(table[:, 0], questions, strict=True)]
    figures: dict[str, float] = {}
    for category in dict.fromkeys(asked.category for asked in questions):
        of = [n for n, asked in enumerate(questions) if asked.category == category and seen[n]]
        images = {name: number for number, name in enumerate(dict.fromkeys(questions[n].image for n in of))}
        hits = torch.tensor([right[n] for n in of], dtype=torch.bool)
        pairs = torch.tensor([images[questions[n].image] for n in of])
        accuracy, both = percent(hits.sum(), len(of)), percent(*all_right(hits, pairs))
        figures |= {
            f"{category}/acc": accuracy,
            f"{category}/acc+": both,
            f"{category}/score": accuracy + both,
        }
    for name, parts in (("perception", PERCEPTION), ("cognition", COGNITION)):
        figures[name] = sum(figures.get(f"{part}/score", float("nan")) for part in parts)
    return figures


class MME(TableMetric):
    """MME of answers, see `mme_answer`.

    Args:
        questions: all of them.
        settings: of `torchmetrics.Metric`.
    """

    columns = ("answer",)

    def __init__(self, questions: Sequence[MmeQuestion], **settings: Any) -> None:
        super().__init__(len(questions), **settings)
        self.questions = list(questions)

    @property
    def name(self) -> str:
        """`mme`."""
        return "mme"

    def row(self, number: int, completion: str) -> tuple[int]:
        """What the answer is read as."""
        return (mme_answer(completion),)

    def record(self, number: int, completion: str) -> dict[str, Any]:
        """As `answer_record`."""
        return answer_record(mme_answer(completion), self.questions[number].right)

    def figures(self, table: Tensor) -> dict[str, float]:
        """As `mme_figures`."""
        return mme_figures(table, self.questions)


class MmeBenchmark:
    """The questions of MME.

    Args:
        questions: all of them.
    """

    def __init__(self, questions: Sequence[MmeQuestion]) -> None:
        self.questions = list(questions)
        # Two lines of a category may be the same, so that a line's number is its identity.
        self.items = [
            Item(key=f"{asked.category}/{number}", prompt=asked.text, image=f"{asked.category}/{asked.image}")
            for number, asked in enumerate(questions)
        ]

    @classmethod
    def load(cls, directory: Path) -> "MmeBenchmark":
        """From the official directory: a file `<category>.txt` each, with lines of image, question and answer between
        tabs; a fourth field, a prediction, is left alone.

        Raises:
            BenchmarkError: there is none, or a line is not so.
        """
        return cls([question for question, _ in _lines(directory)])

    def metric(self) -> MME:
        """As `Benchmark.metric`."""
        return MME(self.questions)

    def read(self, path: Path) -> dict[int, str]:
        """As `Benchmark.read`, from the official directory with a prediction at the end of each line."""
        places: dict[tuple[str, str, str], list[int]] = {}
        for number, asked in reversed(list(enumerate(self.questions))):
            places.setdefault((asked.category, asked.image, asked.text), []).append(number)
        found = {}
        for asked, prediction in _lines(path):
            numbers = places.get((asked.category, asked.image, asked.text))
            if not numbers:
                raise BenchmarkError(
                    f"{asked.where}: expected a question of MME that is still to be answered"
                )
            if prediction is None:
                raise BenchmarkError(f"{asked.where}: expected a fourth field with the prediction, got three")
            found[numbers.pop()] = prediction
        return found

    def write(self, path: Path, completions: Mapping[int, str]) -> None:
        """As `Benchmark.write`, a directory; tabs and line ends of a completion become blanks."""
        lines: dict[str, list[str]] = {}
        for number, text in sorted(completions.items()):
            asked = self.questions[number]
            fields = (asked.image, asked.text, asked.label, " ".join(text.split()))
            lines.setdefault(asked.category, []).append("\t".join(fields))
        path.mkdir(parents=True, exist_ok=True)
        for category, written in lines.items():
            with atomic_file(path / f"{category}.txt") as file:
                file.write(("\n".join(written) + "\n").encode())


def _lines(directory: Path) -> list[tuple[MmeQuestion, str | None]]:
    """All questions of a directory with their predictions, if they have any."""
    files = sorted(directory.glob("*.txt"))
    if not files:
        raise BenchmarkError(
            f"{directory}: expected MME's directory with a file <category>.txt each, got none"
        )
    return [
        _line(line, path.stem, f"{path}, line {number}")
        for path in files
        for number, line in enumerate(read_text(path).split("\n"), start=1)
        if line.strip()
    ]


def _line(line: str, category: str, where: str) -> tuple[MmeQuestion, str | None]:
    fields = line.rstrip("\r").split("\t", maxsplit=3)
    if len(fields) < 3:
        raise BenchmarkError(
            f"{where}: expected image, question, answer and prediction between tabs, got {fields!r:.80}"
        )
    image, text, label, *prediction = fields
    if label.lower() not in LABELS:
        raise BenchmarkError(f"{where}, field 'answer': expected Yes or No, got {label!r}")
    question = MmeQuestion(category=category, image=image, text=text, label=label, where=where)
    return question, prediction[0] if prediction else None
