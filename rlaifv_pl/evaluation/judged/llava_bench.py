"""LLaVA-Bench, in the wild and COCO: a judge that is told what an image shows gives 1 to 10 points to a reference
answer and to the model's (Liu et al. 2023, "Visual Instruction Tuning"). The result is the model's mean in per cent of
the reference's. The judges of published figures are gone: only figures of one judge and one template can be compared.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field
from torch import Tensor

from rlaifv_pl.evaluation.benchmark import Item
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, inner_rows, read_file_rows, shown
from rlaifv_pl.evaluation.judged.reviews import (
    UNNAMED,
    Fields,
    Judge,
    JudgedBenchmark,
    ReviewJob,
    fill_template,
)
from rlaifv_pl.evaluation.table_metric import MISSING, answered, equal_to, percent
from rlaifv_pl.feedback.engines.engine import Request

HIGHEST = 10
STEPS = 100
"""Points are kept in hundredths, as whole numbers."""

_CATEGORY_PREFIX = "llava_bench_"
"""Stands before categories in official reviews."""
_QUESTIONS = "*questions.jsonl"
_CONTEXTS = ("context*.jsonl", "caps_boxes*.jsonl")
_REFERENCES = ("*gpt4*.jsonl",)

PROMPT_TEMPLATE = """\
Two assistants answered a question about an image that you do not see. Judge the answers by what is known of the image.

What the image shows: {context}
Question: {question}
First assistant's answer: {reference}
Second assistant's answer: {answer}

Compare how helpful, relevant, accurate and detailed the answers are. Their order must not matter. Say briefly what \
decides, then give each 1 to 10 points, more to the better one: `first` to the first, `second` to the second."""
"""Prompt of the judge, with {context}, {question}, {reference} and {answer}."""

Points = Annotated[float, Field(ge=1, le=HIGHEST)]


class Scores(BaseModel):
    """The form that a judge fills in."""

    explanation: str
    first: Points
    second: Points


def read_points(review: str) -> tuple[float, float] | None:
    """Return the points of reference and model in the first line of a review, as the authors read them; None if it is
    not two numbers.

    >>> read_points("8 7.5\\nBoth are good."), read_points("9,4"), read_points("Scores: 8 7")
    ((8.0, 7.5), (9.0, 4.0), None)
    """
    stated = review.strip().split("\n")[0].replace(",", " ").split()
    try:
        first, second = map(float, stated)
    except ValueError:
        return None
    return (first, second) if all(0 <= points <= HIGHEST for points in (first, second)) else None


class LlavaBenchmark(JudgedBenchmark):
    """LLaVA-Bench's questions, or reviews of answers to them, of a judge here or of the authors' script.

    A row has question_id and category; a question has image and text, a review has content. A review that states no
    points counts as missing.
    """

    metric = "llava_bench"
    columns = ("reference", "answer")
    """Hundredths of points."""
    key_fields = ("question_id",)
    completion_fields = ("text",)
    review_field = "content"
    default_judge = UNNAMED

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file of questions or reviews, or the directory that the questions are in.

        Raises:
            BenchmarkError: there is none, or a row lacks something.
        """
        return super().load(_one_file(path, _QUESTIONS) if path.is_dir() else path)

    def item(self, row: FileRow) -> Item:
        """Return the question with its image; a review has neither."""
        return Item(key=self.key_of(row), prompt=_optional(row, "text"), image=_optional(row, "image"))

    def review_of(self, row: FileRow) -> str:
        """Return the judge's text, whose first line has the points."""
        return row.get(str, "content")

    def row(self, number: int, completion: str) -> tuple[int, int]:
        """Return the points of a review, in hundredths."""
        if (points := read_points(completion)) is None:
            return MISSING, MISSING
        return round(STEPS * points[0]), round(STEPS * points[1])

    def figures(self, table: Tensor) -> dict[str, float]:
        """Compute the model's points in per cent of the reference's (`score`), overall and by category, and ten times
        the mean points of each side."""
        categories = [row.get(str, "category").removeprefix(_CATEGORY_PREFIX) for row in self.rows]
        seen = answered(table)
        reference, answer = table[seen].sum(0).tolist()
        figures = {
            "score": percent(answer, reference),
            "answer": percent(answer, HIGHEST * STEPS * int(seen.sum())),
            "reference": percent(reference, HIGHEST * STEPS * int(seen.sum())),
        }
        for category in dict.fromkeys(categories):
            reference, answer = table[seen & equal_to(categories, category)].sum(0).tolist()
            figures[f"score/{category}"] = percent(answer, reference)
        return figures

    def response_row(self, number: int, completion: str) -> dict[str, Any]:
        """Return {question_id, prompt, text, category}."""
        row = self.rows[number]
        return {
            "question_id": row.fields["question_id"],
            "prompt": self.items[number].prompt,
            "text": completion,
            "category": row.get(str, "category"),
        }


def llava_bench_job(official: Path, responses: Path, template: str) -> ReviewJob:
    """Prepare reviews in the official form.

    Args:
        official: directory of the questions, what their images show, and the reference's answers.
        responses: the model's answers.
        template: see `PROMPT_TEMPLATE`.

    Raises:
        BenchmarkError: a file cannot be used, or a question lacks an answer or an image its context.
    """
    questions = LlavaBenchmark.load(official)
    answers = questions.answers(responses)
    references = questions.answers(_one_file(official, *_REFERENCES))
    contexts = read_contexts(_one_file(official, *_CONTEXTS))
    requests = []
    for item, row, reference, answer in zip(
        questions.items, questions.rows, references, answers, strict=True
    ):
        if item.image not in contexts:
            raise row.error(f"field 'image': expected an image whose context is known, got {item.image!r}")
        fields = {
            "context": contexts[item.image],
            "question": item.prompt,
            "reference": reference,
            "answer": answer,
        }
        requests.append(Request(fill_template(template, fields), where=row.where))

    def review(judge: Judge, numbers: Sequence[int]) -> list[Fields | None]:
        forms = judge.ask([requests[number] for number in numbers], Scores)
        return [_review(form) if form else None for form in forms]

    rows = [
        {
            "id": number,
            "question_id": row.fields["question_id"],
            "category": f"{_CATEGORY_PREFIX}{row.get(str, 'category')}",
        }
        for number, row in enumerate(questions.rows, start=1)
    ]
    recipe = {"asked": [request.text for request in requests]}
    return ReviewJob(requests=requests, templates=(template,), review=review, rows=rows, recipe=recipe)


def read_contexts(path: Path) -> dict[str, str]:
    """Read what each image shows, in words: from JSON lines of image and caption, or captions and boxes.

    Raises:
        BenchmarkError: a row has neither.
    """
    return {row.get(str, "image"): _context(row) for row in read_file_rows(path)}


def _one_file(directory: Path, *patterns: str) -> Path:
    found = sorted(path for pattern in patterns for path in directory.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise BenchmarkError(f"{directory}: expected one file {' or '.join(patterns)}, got {names}")
    return found[0]


def _review(scores: Scores) -> Fields:
    return {
        "content": f"{scores.first:g} {scores.second:g}\n{scores.explanation}",
        "tuple": [scores.first, scores.second],
    }


def _optional(row: FileRow, name: str) -> str:
    return row.get(str, name) if name in row.fields else ""


def _context(row: FileRow) -> str:
    caption = row.fields.get("caption", row.fields.get("captions"))
    lines = [caption] if isinstance(caption, str) else caption
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise row.error(
            f"field 'caption' or 'captions': expected a text or a list of texts, got {shown(caption)}"
        )
    boxes = inner_rows(row, "instances") if "instances" in row.fields else []
    return "\n".join([*lines, *(f"{box.get(str, 'category')}: {box.get(list, 'bbox')}" for box in boxes)])
