"""LLaVA-Bench, in the wild and COCO: a judge that is told what an image shows gives 1 to 10 points to a reference
answer and to the model's (Liu et al. 2023, "Visual Instruction Tuning"). The result is the model's mean in per cent of
the reference's. Published figures are of judges that are gone, so that only figures of one judge and one wording can
be compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from rlaifv_pl.evaluation.benchmark import Item, check_keys, match
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, as_row, read_file_rows, shown
from rlaifv_pl.evaluation.judged.reviews import judge_from_rows, save_lines
from rlaifv_pl.evaluation.table_metric import MISSING, TableMetric, answered, percent

HIGHEST = 10
STEPS = 100
"""Points are kept in hundredths, as whole numbers."""
UNNAMED = "unnamed"
"""The judge of official reviews, which do not name theirs."""

_PREFIX = "llava_bench_"
"""Of categories in official reviews."""
_QUESTIONS = "*questions.jsonl"

WORDING = """Two assistants answered a question about an image that you do not see. Judge the answers by what is known \
of the image.

What the image shows: {context}
Question: {question}
First assistant's answer: {reference}
Second assistant's answer: {answer}

Compare how helpful, relevant, accurate and detailed the answers are. Their order must not matter. Say briefly what \
decides, then give each 1 to 10 points, more to the better one: `first` to the first, `second` to the second."""
"""What a judge is asked, with {context}, {question}, {reference} and {answer}."""

Points = Annotated[float, Field(ge=1, le=HIGHEST)]


class Scores(BaseModel):
    """The form that a judge fills in."""

    explanation: str
    first: Points
    second: Points


def read_points(review: str) -> tuple[float, float] | None:
    """Points of reference and model in the first line of a review, as the authors read them; None if it is not two
    numbers.

    >>> read_points("8 7.5\\nBoth are good."), read_points("9,4"), read_points("Scores: 8 7")
    ((8.0, 7.5), (9.0, 4.0), None)
    """
    stated = review.strip().split("\n")[0].replace(",", " ").split()
    try:
        first, second = map(float, stated)
    except ValueError:
        return None
    return (first, second) if all(0 <= points <= HIGHEST for points in (first, second)) else None


def llava_bench_figures(table: Tensor, categories: Sequence[str]) -> dict[str, float]:
    """The model's points in per cent of the reference's (`score`), overall and by category, and ten times the mean
    points of each side.

    Args:
        table: (questions, 2): hundredths of points of reference and model.
        categories: of each question.
    """
    seen = answered(table)
    reference, answer = table[seen].sum(0).tolist()
    figures = {
        "score": percent(answer, reference),
        "answer": percent(answer, HIGHEST * STEPS * int(seen.sum())),
        "reference": percent(reference, HIGHEST * STEPS * int(seen.sum())),
    }
    for category in dict.fromkeys(categories):
        of = torch.tensor([one == category for one in categories]) & seen
        reference, answer = table[of].sum(0).tolist()
        figures[f"score/{category}"] = percent(answer, reference)
    return figures


class LlavaBench(TableMetric):
    """LLaVA-Bench of a judge's reviews, which stand where other metrics have completions; one that states no points
    counts as missing.

    Args:
        categories: of each question.
        judge: its name.
        settings: of `torchmetrics.Metric`.
    """

    columns = ("reference", "answer")

    def __init__(self, categories: Sequence[str], judge: str, **settings: Any) -> None:
        super().__init__(len(categories), **settings)
        self.categories = list(categories)
        self.judge = judge

    @property
    def name(self) -> str:
        """`llava_bench_by_` and the judge."""
        return f"llava_bench_by_{self.judge}"

    def row(self, number: int, completion: str) -> tuple[int, int]:
        """Points of a review, in hundredths."""
        if (points := read_points(completion)) is None:
            return MISSING, MISSING
        return round(STEPS * points[0]), round(STEPS * points[1])

    def figures(self, table: Tensor) -> dict[str, float]:
        """As `llava_bench_figures`."""
        return llava_bench_figures(table, self.categories)


class LlavaBenchmark:
    """LLaVA-Bench's questions, or reviews of answers to them, of a judge here or of the authors' script.

    Args:
        rows: of the official form: question_id and category; a question has image and text, a review has content.
    """

    def __init__(self, rows: Sequence[FileRow]) -> None:
        self.rows = list(rows)
        self.items = [
            Item(key=row.key("question_id"), prompt=_optional(row, "text"), image=_optional(row, "image"))
            for row in rows
        ]
        check_keys(self.items, rows[0].where)

    @classmethod
    def load(cls, path: Path) -> "LlavaBenchmark":
        """From a file of questions or reviews, or the directory that the questions are in.

        Raises:
            BenchmarkError: there is none, or it is not so.
        """
        return cls(read_file_rows(one_file(path, _QUESTIONS) if path.is_dir() else path))

    def metric(self) -> LlavaBench:
        """As `Benchmark.metric`; for reviews of one judge.

        Raises:
            BenchmarkError: nobody, or more than one, has reviewed the answers.
        """
        categories = [row.get(str, "category").removeprefix(_PREFIX) for row in self.rows]
        return LlavaBench(categories, judge_from_rows(self.rows, "content", UNNAMED))

    def read(self, path: Path) -> dict[int, str]:
        """What a judge said; rows without a review are left out."""
        rows = [row for row in read_file_rows(path) if "content" in row.fields]
        return match(self.items, rows, _id, "content")

    def answers(self, path: Path) -> dict[int, str]:
        """A model's answers to the questions, from JSON lines of question_id and text.

        Raises:
            BenchmarkError: a row is not so, or an answer is missing.
        """
        said = match(self.items, read_file_rows(path), _id, "text")
        if lacking := [item.key for number, item in enumerate(self.items) if number not in said]:
            raise BenchmarkError(f"{path}: expected an answer to question {lacking[0]}, got none")
        return said

    def write(self, path: Path, completions: Mapping[int, str]) -> None:
        """As `Benchmark.write`: JSON lines of question_id, prompt, text and category."""
        rows = [
            {
                "question_id": self.rows[number].fields["question_id"],
                "prompt": self.items[number].prompt,
                "text": text,
                "category": self.rows[number].get(str, "category"),
            }
            for number, text in sorted(completions.items())
        ]
        save_lines(path, rows)


def read_contexts(path: Path) -> dict[str, str]:
    """What each image shows, in words: from JSON lines of image and caption, or captions and boxes.

    Raises:
        BenchmarkError: a row is not so.
    """
    return {row.get(str, "image"): _context(row) for row in read_file_rows(path)}


def one_file(directory: Path, *patterns: str) -> Path:
    """The one file of a directory with such a name.

    Raises:
        BenchmarkError: there is none, or several.
    """
    found = sorted(path for pattern in patterns for path in directory.glob(pattern))
    if len(found) != 1:
        got = ", ".join(path.name for path in found) or "none"
        raise BenchmarkError(f"{directory}: expected one file {' or '.join(patterns)}, got {got}")
    return found[0]


def _id(row: FileRow) -> str:
    return row.key("question_id")


def _optional(row: FileRow, name: str) -> str:
    return row.get(str, name) if name in row.fields else ""


def _context(row: FileRow) -> str:
    said = row.fields.get("caption", row.fields.get("captions"))
    lines = [said] if isinstance(said, str) else said
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise row.error(
            f"field 'caption' or 'captions': expected a text or a list of texts, got {shown(said)}"
        )
    boxes = row.get(list, "instances") if "instances" in row.fields else []
    found = [as_row(box, f"{row.where}, instances[{number}]") for number, box in enumerate(boxes)]
    return "\n".join([*lines, *(f"{box.get(str, 'category')}: {box.get(list, 'bbox')}" for box in found)])
