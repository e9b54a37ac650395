"""LLaVA-Bench's answers to reviews."""

from collections.abc import Sequence
from pathlib import Path

from rlaifv_pl.evaluation.judged.llava_bench import LlavaBenchmark, Scores, one_file, read_contexts
from rlaifv_pl.evaluation.judged.reviews import (
    Fields,
    Judge,
    ReviewOutcome,
    fill_template,
    made_reviews,
    save_lines,
)
from rlaifv_pl.feedback.engines.engine import Request

_CONTEXTS = ("context*.jsonl", "caps_boxes*.jsonl")
_REFERENCES = ("*gpt4*.jsonl",)


def review_llava_bench(
    official: Path, responses: Path, judge: Judge, wording: str, out: Path
) -> ReviewOutcome | None:
    """Save a review of each answer in the official form, with the judge's name.

    Args:
        official: directory of the questions, what their images show, and the reference's answers.
        responses: the model's answers.
        wording: see `llava_bench.WORDING`.

    Returns:
        how it went; None in a process that only helped the first one.

    Raises:
        BenchmarkError: a file is not as it must be, or a question lacks an answer or an image its context.
    """
    questions = LlavaBenchmark.load(official)
    asked = _requests(questions, official, questions.answers(responses), wording)
    signature = judge.signature(wording)

    def make(some: Sequence[int]) -> list[Fields | None]:
        forms = judge.ask([asked[number] for number in some], Scores)
        return [_said(one) if one else None for one in forms]

    recipe = {"judge": signature, "asked": [request.text for request in asked]}
    if (reviews := made_reviews(out, recipe, len(asked), make)) is None:
        return None
    rows = [
        {
            "id": number + 1,
            "question_id": row.fields["question_id"],
            "category": f"llava_bench_{row.get(str, 'category')}",
            "judge": signature,
            **(said or {}),
        }
        for number, (row, said) in enumerate(zip(questions.rows, reviews, strict=True))
    ]
    save_lines(out, rows)
    return ReviewOutcome(signature, len(reviews), reviews.count(None))


def _requests(
    questions: LlavaBenchmark, official: Path, answers: dict[int, str], wording: str
) -> list[Request]:
    contexts = read_contexts(one_file(official, *_CONTEXTS))
    references = questions.answers(one_file(official, *_REFERENCES))
    requests = []
    for number, (item, row) in enumerate(zip(questions.items, questions.rows, strict=True)):
        if item.image not in contexts:
            raise row.error(f"field 'image': expected an image whose context is known, got {item.image!r}")
        fields = {
            "context": contexts[item.image],
            "question": item.prompt,
            "reference": references[number],
            "answer": answers[number],
        }
        requests.append(Request(fill_template(wording, fields), where=row.where))
    return requests


def _said(scores: Scores) -> Fields:
    return {
        "content": f"{scores.first:g} {scores.second:g}\n{scores.explanation}",
        "tuple": [scores.first, scores.second],
    }
