"""RefoMB's answers to reviews: who answers better, then who makes up less."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from rlaifv_pl.evaluation.judged.refomb import LOSS, TIE, WIN, RefombBenchmark
from rlaifv_pl.evaluation.judged.reviews import (
    Fields,
    Judge,
    ReviewOutcome,
    fill_template,
    made_reviews,
    save_lines,
)
from rlaifv_pl.feedback.engines.engine import Request
from rlaifv_pl.seeds import derive

WORDING = """Two models answered a question about an image that you do not see. Judge the answers by a description of \
the image.

Description: {description}
Question: {question}
Answer of model A: {reference}
Answer of model B: {answer}

First say of each answer what it claims that the description contradicts or does not bear out, and how often it does \
so. Then say how well each one answers the question. What makes things up must not win by its length; the order of the \
models must not matter. Then decide which is better: A, B, or tie."""
"""What a judge is asked first, with {description}, {question}, {reference} and {answer}."""

FEWER = """A reviewer compared the answers of model A and model B to a question about an image.

Review: {review}

Go by the review alone: which of the models makes up less, A or B? Say tie if they make up equally much, or nothing."""
"""What it is asked then, with {review}."""

_KEPT = ("image_url", "type", "question")
"""Fields of a question that stand in its reviews."""
_SCORES: Mapping[str, int] = {"A": LOSS, "tie": TIE, "B": WIN}


class Comparison(BaseModel):
    """The form that a judge fills in about two answers."""

    explanation: str
    better: Literal["A", "B", "tie"]


class Fewer(BaseModel):
    """The form that a judge fills in about a review."""

    explanation: str
    fewer: Literal["A", "B", "tie"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """How answers are compared.

    Args:
        wording: see `WORDING`.
        fewer: see `FEWER`.
        runs: times that each answer is reviewed, each time with a seed of its own.
        seed: that the runs' seeds come from.
    """

    wording: str = WORDING
    fewer: str = FEWER
    runs: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise ValueError(f"runs = {self.runs}: each answer is reviewed at least once")


def review_refomb(
    official: Path, responses: Path, judge: Judge, how: Runs, out: Path
) -> ReviewOutcome | None:
    """Save all reviews of all runs, with the judge's name.

    Args:
        official: questions with their descriptions, and the reference's answers.
        responses: the model's answers.

    Returns:
        how it went; None in a process that only helped the first one.

    Raises:
        BenchmarkError: a file is not as it must be, or an answer is missing.
    """
    questions = RefombBenchmark.load(official)
    asked = _requests(questions, questions.answers(responses), how)
    signature = judge.signature(how.wording, how.fewer)

    def make(some: Sequence[int]) -> list[Fields | None]:
        return _reviews(judge, [asked[number] for number in some], how.fewer)

    # Not the runs: what is asked has them all.
    recipe = {"judge": signature, "asked": [[request.text, request.seed] for request in asked]}
    if (reviews := made_reviews(out, recipe, len(asked), make)) is None:
        return None
    save_lines(out, _rows(questions, reviews, signature))
    return ReviewOutcome(signature, len(reviews), reviews.count(None), _notes(reviews, how.runs))


def _requests(questions: RefombBenchmark, answers: Mapping[int, str], how: Runs) -> list[Request]:
    """All of the first run, then all of the second, and so on."""
    texts = [
        fill_template(
            how.wording,
            {
                "description": row.get(str, "description"),
                "question": row.get(str, "question"),
                "reference": row.get(str, "answer"),
                "answer": answers[number],
            },
        )
        for number, row in enumerate(questions.rows)
    ]
    return [
        Request(text, where=row.where, seed=derive("refomb", how.seed, run))
        for run in range(how.runs)
        for text, row in zip(texts, questions.rows, strict=True)
    ]


def _reviews(judge: Judge, requests: Sequence[Request], fewer: str) -> list[Fields | None]:
    firsts = judge.ask(requests, Comparison)
    compared = [number for number, one in enumerate(firsts) if one is not None]
    again = [
        replace(requests[number], text=fill_template(fewer, {"review": firsts[number].explanation}))
        for number in compared
    ]
    seconds = dict(zip(compared, judge.ask(again, Fewer), strict=True))
    return [_said(first, seconds.get(number)) for number, first in enumerate(firsts)]


def _said(first: Comparison | None, second: Fewer | None) -> Fields | None:
    """Both or nothing, so that both figures are of the same answers."""
    if first is None or second is None:
        return None
    return {
        "score": _SCORES[first.better],
        "review": first.explanation,
        "hallucination_score": _SCORES[second.fewer],
        "hallucination_review": second.explanation,
    }


def _rows(
    questions: RefombBenchmark, reviews: Sequence[Fields | None], signature: str
) -> list[dict[str, object]]:
    count = len(questions.rows)
    return [
        {
            **{name: questions.rows[number % count].get(str, name) for name in _KEPT},
            "run": number // count,
            "judge": signature,
            **(said or {}),
        }
        for number, said in enumerate(reviews)
    ]


def _notes(reviews: Sequence[Fields | None], runs: int) -> tuple[str, ...]:
    count = len(reviews) // runs
    if runs == 1 or any(review != reviews[number % count] for number, review in enumerate(reviews)):
        return ()
    return (
        "all runs are alike, as of a judge that writes greedily: draw its forms (an OpenAIEngine's fill_temperature "
        "above 0), or let --runs be 1",
    )
