"""Object HalBench: descriptions whose objects a judge lists, and rules compare with those of the image (Yu et al. 2024,
"RLHF-V"). The authors' judge is gone: only figures of one judge and one template can be compared; the same descriptions
measured without a judge are CHAIR, variant C."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import Tensor

from rlaifv_pl.evaluation.benchmark import Item
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, read_file_rows
from rlaifv_pl.evaluation.chair.benchmark import chair_figures, object_counts
from rlaifv_pl.evaluation.chair.ground_truth import Objects, image_key, objects_of
from rlaifv_pl.evaluation.judged.object_classes import named_classes
from rlaifv_pl.evaluation.judged.reviews import Fields, Judge, JudgedBenchmark, ReviewJob, fill_template
from rlaifv_pl.evaluation.table_metric import answered, percent
from rlaifv_pl.feedback.engines.engine import Request

SHORT = 3
"""Words up to which an answer mentions nothing; no judge is asked."""

PROMPT_TEMPLATE = """\
A question about an image was answered. Take the answer for true, and list the objects which it says can be seen in \
the image.

Question: {question}
Answer: {answer}

Only objects that the answer names count, not those that it says are absent or only supposes. Give each by its name \
alone: no colour, material, number or other property. The list is empty if the answer names none."""
"""Prompt of the judge, with {question} and {answer}."""


class Listed(BaseModel):
    """The form that a judge fills in."""

    objects: list[str]


def objhal_row(
    listed: Collection[str], objects: Collection[str], answer: str
) -> tuple[int, int, int, int, int]:
    """Return wrong words, words that name a class, classes found, classes there, and all words of the answer.

    >>> objhal_row(["dogs", "puppy", "cat", "tree"], {"dog", "car"}, "Dogs, a puppy, a cat, and a tree.")
    (1, 3, 1, 2, 8)
    """
    return *object_counts(named_classes(listed), objects), len(answer.strip().split(" "))


def objhal_figures(table: Tensor) -> dict[str, float]:
    """Compute Response and Mention as the authors report them, in per cent, and what stands behind them.

    Response is the share of answers with a wrong object among those that name any, CHAIRs among all; Mention (CHAIRi)
    the share of wrong objects among those named.
    """
    rows, chair = table[answered(table)], chair_figures(table)
    naming = int((rows[:, 1] > 0).sum())
    return {
        "Response": percent((rows[:, 0] > 0).sum(), naming),
        "Mention": chair["CHAIRi"],
        **{name: chair[name] for name in ("CHAIRs", "Recall", "words")},
        "n_naming": naming,
        "n_mentions": chair["n_mentions"],
    }


class ObjHalBenchmark(JudgedBenchmark):
    """Object HalBench's questions, with or without answers and reviews.

    Args:
        rows: of image_id and question (or prompt), with answer (or text) where there is one.
        objects: classes of COCO in each image, to measure.
    """

    metric = "objhal"
    columns = ("wrong", "mentions", "found", "there", "words")
    key_fields = ("image_id", "question")
    review_field = "objects"

    def __init__(self, rows: Sequence[FileRow], objects: Objects | None = None) -> None:
        super().__init__(rows)
        self.objects = None if objects is None else [objects_of(row, objects) for row in rows]

    @classmethod
    def of_reviews(cls, path: Path, objects: Objects) -> "ObjHalBenchmark":
        """Read reviews of answers about images whose objects are known.

        Raises:
            BenchmarkError: a row lacks something, or its image's objects are not known.
        """
        return cls(read_file_rows(path), objects)

    @classmethod
    def of_answers(cls, path: Path, questions: Path | None = None) -> "ObjHalBenchmark":
        """Read answers alone, or answers in the order of a file of questions.

        Raises:
            BenchmarkError: a row lacks something, or there is not one question for each answer.
        """
        rows = read_file_rows(path)
        if questions is None:
            return cls(rows)
        question_rows = cls.load(questions).rows
        if len(question_rows) != len(rows):
            raise BenchmarkError(
                f"{path}: expected an answer to each of {len(question_rows)} questions, got {len(rows)}"
            )
        return cls(
            [
                FileRow({**_question(asked), **row.fields}, row.where)
                for asked, row in zip(question_rows, rows, strict=True)
            ]
        )

    def item(self, row: FileRow) -> Item:
        """Return the question with its image."""
        image = image_key(row.key("image_id"))
        return Item(key=self.key_of(row), prompt=row.get(str, "question", "prompt"), image=image)

    def key_of(self, row: FileRow) -> str:
        """Return image and question."""
        return f"{image_key(row.key('image_id'))} {row.get(str, 'question', 'prompt')}"

    def completion_of(self, row: FileRow) -> str:
        """Return what a model answered, without the name of its role."""
        return row.get(str, "text", "answer").replace("Assistant:", "").strip()

    def review_of(self, row: FileRow) -> str:
        """Return listed objects and answer as JSON."""
        return json.dumps({"objects": row.texts("objects"), "answer": self.completion_of(row)})

    def row(self, number: int, completion: str) -> tuple[int, ...]:
        """Return the counts of a review, as `objhal_row`."""
        review = json.loads(completion)
        assert self.objects is not None, "figures need the objects of the images"
        return objhal_row(review["objects"], self.objects[number], review["answer"])

    def figures(self, table: Tensor) -> dict[str, float]:
        """Compute the figures, as `objhal_figures`."""
        return objhal_figures(table)

    def response_row(self, number: int, completion: str) -> dict[str, Any]:
        """Return {image_id, question, answer}."""
        image = self.rows[number].fields["image_id"]
        return {"image_id": image, "question": self.items[number].prompt, "answer": completion}


def objhal_job(answers: ObjHalBenchmark, template: str) -> ReviewJob:
    """Prepare reviews of answers: `objects` in each row.

    Raises:
        BenchmarkError: a row has no answer.
    """
    texts = list(map(answers.completion_of, answers.rows))
    requests = [
        Request(fill_template(template, {"question": item.prompt, "answer": text}), where=row.where)
        for item, text, row in zip(answers.items, texts, answers.rows, strict=True)
    ]

    def review(judge: Judge, numbers: Sequence[int]) -> list[Fields | None]:
        long = [number for number in numbers if len(texts[number].split()) > SHORT]
        forms = dict(zip(long, judge.ask([requests[number] for number in long], Listed), strict=True))
        lists = [forms.get(number, Listed(objects=[])) for number in numbers]
        return [{"objects": one.objects} if one else None for one in lists]

    return ReviewJob(
        requests=requests,
        templates=(template,),
        review=review,
        rows=[row.fields for row in answers.rows],
        recipe={"asked": [request.text for request in requests], "answers": texts},
    )


def _question(row: FileRow) -> Fields:
    return {name: row.fields[name] for name in ("image_id", "question", "prompt") if name in row.fields}
