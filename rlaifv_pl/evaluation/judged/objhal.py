"""Object HalBench: descriptions whose objects a judge lists, and rules compare with those of the image (Yu et al. 2024,
"RLHF-V"). The authors' judge is gone, so that only figures of one judge and one wording can be compared; the same
descriptions measured without a judge are CHAIR, variant C."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import Tensor

from rlaifv_pl.evaluation.benchmark import Item, check_keys
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, read_file_rows
from rlaifv_pl.evaluation.chair.ground_truth import Objects, image_key
from rlaifv_pl.evaluation.judged.object_classes import named_classes
from rlaifv_pl.evaluation.judged.reviews import (
    Fields,
    Judge,
    ReviewOutcome,
    fill_template,
    judge_from_rows,
    made_reviews,
    save_lines,
)
from rlaifv_pl.evaluation.table_metric import TableMetric, answered, percent
from rlaifv_pl.feedback.engines.engine import Request

SHORT = 3
"""Words up to which an answer mentions nothing; no judge is asked."""

WORDING = """A question about an image was answered. Take the answer for true, and list the objects which it says can \
be seen in the image.

Question: {question}
Answer: {answer}

Only objects that the answer names count, not those that it says are absent or only supposes. Give each by its name \
alone: no colour, material, number or other property. The list is empty if the answer names none."""
"""What a judge is asked, with {question} and {answer}."""


class Listed(BaseModel):
    """The form that a judge fills in."""

    objects: list[str]


def objhal_row(
    listed: Collection[str], objects: Collection[str], answer: str
) -> tuple[int, int, int, int, int]:
    """Wrong words, words that name a class, classes found, classes there, and all words of the answer.

    >>> objhal_row(["dogs", "puppy", "cat", "tree"], {"dog", "car"}, "Dogs, a puppy, a cat, and a tree.")
    (1, 3, 1, 2, 8)
    """
    named = named_classes(listed)
    wrong = sum(name not in objects for name in named)
    found = len(set(named) & set(objects))
    return wrong, len(named), found, len(set(objects)), len(answer.strip().split(" "))


def objhal_figures(table: Tensor) -> dict[str, float]:
    """Response and Mention as the authors report them, in per cent, and what stands behind them.

    Response is the share of answers with a wrong object among those that name any, CHAIRs among all; Mention (CHAIRi)
    the share of wrong objects among those named.
    """
    rows = table[answered(table)]
    wrong, named, found, there, words = rows.sum(0).tolist()
    false, naming = int((rows[:, 0] > 0).sum()), int((rows[:, 1] > 0).sum())
    return {
        "Response": percent(false, naming),
        "Mention": percent(wrong, named),
        "CHAIRs": percent(false, len(rows)),
        "Recall": percent(found, there),
        "words": percent(words, len(rows)) / 100,
        "n_naming": naming,
        "n_mentions": named,
    }


class ObjHal(TableMetric):
    """Object HalBench of a judge's reviews, which stand where other metrics have completions.

    Args:
        objects: classes of COCO in each answer's image.
        judge: its name.
        settings: of `torchmetrics.Metric`.
    """

    columns = ("wrong", "mentions", "found", "there", "words")

    def __init__(self, objects: Sequence[Collection[str]], judge: str, **settings: Any) -> None:
        super().__init__(len(objects), **settings)
        self.objects = [frozenset(there) for there in objects]
        self.judge = judge

    @property
    def name(self) -> str:
        """`objhal_by_` and the judge."""
        return f"objhal_by_{self.judge}"

    def row(self, number: int, completion: str) -> tuple[int, int, int, int, int]:
        """As `objhal_row`, of an answer and its listed objects as JSON."""
        review = json.loads(completion)
        return objhal_row(review["objects"], self.objects[number], review["answer"])

    def figures(self, table: Tensor) -> dict[str, float]:
        """As `objhal_figures`."""
        return objhal_figures(table)


class ObjHalBenchmark:
    """Object HalBench's questions, with or without answers and reviews.

    Args:
        rows: of the official form.
        objects: classes in each image, to measure.
    """

    def __init__(self, rows: Sequence[FileRow], objects: Objects | None = None) -> None:
        self.rows, self.objects = list(rows), objects
        self.items = [
            Item(
                key=_key(row), prompt=row.get(str, "question", "prompt"), image=image_key(row.key("image_id"))
            )
            for row in rows
        ]
        check_keys(self.items, rows[0].where)

    @classmethod
    def load(cls, path: Path, objects: Objects | None = None) -> "ObjHalBenchmark":
        """From JSON lines of image_id and question (or prompt), with answer (or text) where there is one.

        Raises:
            BenchmarkError: a row is not so.
        """
        return cls(read_file_rows(path), objects)

    @classmethod
    def of_answers(cls, path: Path, questions: Path | None = None) -> "ObjHalBenchmark":
        """From answers alone, or from answers in the order of a file of questions.

        Raises:
            BenchmarkError: a row is not as it must be, or there is not one question for each answer.
        """
        rows = read_file_rows(path)
        if questions is None:
            return cls(rows)
        asked = cls.load(questions).rows
        if len(asked) != len(rows):
            raise BenchmarkError(
                f"{path}: expected an answer to each of {len(asked)} questions, got {len(rows)}"
            )
        names = ("image_id", "question", "prompt")
        about = [{name: row.fields[name] for name in names if name in row.fields} for row in asked]
        return cls(
            [FileRow({**said, **row.fields}, row.where) for said, row in zip(about, rows, strict=True)]
        )

    def metric(self) -> ObjHal:
        """As `Benchmark.metric`; for reviews of one judge.

        Raises:
            BenchmarkError: nobody, or more than one, has reviewed the answers, or an image's objects are not known.
        """
        judge, objects = judge_from_rows(self.rows, "objects"), self.objects or {}
        for item, row in zip(self.items, self.rows, strict=True):
            if item.image not in objects:
                raise row.error(
                    f"field 'image_id': expected an image of the ground truth, got {item.image!r}"
                )
        return ObjHal([objects[item.image] for item in self.items], judge)

    def read(self, path: Path) -> dict[int, str]:
        """A judge's lists with the answers, as `rlaifv judge` saves them; rows that it could not judge are left out."""
        numbers = {item.key: number for number, item in enumerate(self.items)}
        return {
            numbers[_key(row)]: json.dumps({"objects": _listed(row), "answer": answer_of(row)})
            for row in read_file_rows(path)
            if "objects" in row.fields
        }

    def write(self, path: Path, completions: Mapping[int, str]) -> None:
        """As `Benchmark.write`: JSON lines of image_id, question and answer."""
        save_lines(
            path,
            [
                {
                    "image_id": self.rows[number].fields["image_id"],
                    "question": self.items[number].prompt,
                    "answer": text,
                }
                for number, text in sorted(completions.items())
            ],
        )


def review_objhal(answers: ObjHalBenchmark, judge: Judge, wording: str, out: Path) -> ReviewOutcome | None:
    """Save the answers with `objects` and `judge` in each row that has been reviewed.

    Args:
        wording: see `WORDING`.

    Returns:
        how it went; None in a process that only helped the first one.

    Raises:
        BenchmarkError: a row has no answer.
    """
    texts = [answer_of(row) for row in answers.rows]
    asked = [
        Request(fill_template(wording, {"question": item.prompt, "answer": text}), where=row.where)
        for item, text, row in zip(answers.items, texts, answers.rows, strict=True)
    ]
    signature = judge.signature(wording)

    def make(some: Sequence[int]) -> list[Fields | None]:
        long = [number for number in some if len(texts[number].split()) > SHORT]
        forms = dict(zip(long, judge.ask([asked[number] for number in long], Listed), strict=True))
        found = [forms.get(number, Listed(objects=[])) for number in some]
        return [{"objects": one.objects, "judge": signature} if one else None for one in found]

    recipe = {"judge": signature, "asked": [request.text for request in asked], "answers": texts}
    if (reviews := made_reviews(out, recipe, len(asked), make)) is None:
        return None
    save_lines(out, [{**row.fields, **(said or {})} for row, said in zip(answers.rows, reviews, strict=True)])
    return ReviewOutcome(signature, len(reviews), reviews.count(None))


def answer_of(row: FileRow) -> str:
    """What a model answered, without the name of its role."""
    return row.get(str, "text", "answer").replace("Assistant:", "").strip()


def _key(row: FileRow) -> str:
    return f"{image_key(row.key('image_id'))} {row.get(str, 'question', 'prompt')}"


def _listed(row: FileRow) -> list[str]:
    objects = row.get(list, "objects")
    if not all(isinstance(name, str) for name in objects):
        raise BenchmarkError(f"{row.where}: field 'objects': expected a list of names, got {objects!r:.60}")
    return objects
