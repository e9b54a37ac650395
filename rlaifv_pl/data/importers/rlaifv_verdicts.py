"""RLAIF-V's judged answers: a row for each claim of an answer, with the labeler's probabilities of its question.

Rows of one question stand one behind the other, and make one pair: the answer with the fewest rejected claims
over the one with the most. What is more than that (several pairs of a question, lengths in balance) is for
`rlaifv feedback`. A row that names no other answer is one whole answer, judged as such or fact by fact.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.samples import holds, make_sample
from rlaifv_pl.data.sample_json import shorten
from rlaifv_pl.records import Sample, Verdict

_ASKS = "Please answer yes or no."
"""Ends the question as the labeler was asked it."""


class _Judged(NamedTuple):
    """One claim of an answer."""

    text: str
    question: str
    verdict: Verdict


def recognises(columns: Mapping[str, Any]) -> bool:
    """Whether a row is a question put to a labeler, with its scores."""
    return holds(columns, "raw_question", "answer", "scores")


def find_question(columns: Mapping[str, Any]) -> Hashable:
    """What rows about one question have in common."""
    origin = _origin(columns)
    told = _metainfos(columns)
    name = columns.get("ds_question_id") or told.get("ds_question_id")
    return repr((name, told.get("image_path"), origin.get("origin_question", columns.get("raw_question"))))


def read(row: SourceRow) -> list[Sample]:
    """Turn the rows of one question, in the column `rows`, into a pair with its evidence.

    Raises:
        BadSample: naming the column; `unpaired` if no answer is better than another.
    """
    rows = [replace(row, columns=columns) for columns in row.require("rows")]
    answers: dict[Hashable, tuple[str, list[_Judged]]] = {}
    for one in rows:
        text = _text(one, _origin(one.parsed()).get("origin_answer", one.require("answer")), "answer")
        answer = answers.setdefault((repr(one.parsed().get("question_id")), text), (text, []))
        answer[1].extend(_claims(one, text))
    ordered = sorted(answers.values(), key=lambda answer: -_score(answer[1]))
    chosen, rejected = ordered[0], next(one for one in ordered if _score(one[1]) == _score(ordered[-1][1]))
    if _score(chosen[1]) == _score(rejected[1]):
        detail = (
            f"each of the {len(ordered)} answers to the question has {-_score(chosen[1])} rejected claims"
        )
        raise BadSample(Reason.UNPAIRED, row.where, detail)
    first, told = rows[0].parsed(), _metainfos(rows[0].parsed())
    prompt = _text(row, _origin(first).get("origin_question", first.get("raw_question")), "raw_question")
    sample = make_sample(
        replace(row, columns={**told, **first}),
        prompt,
        answers={"chosen": chosen[0], "rejected": rejected[0]},
    )
    sides = {"chosen": chosen, "rejected": rejected}
    evidence = {
        side: {"score": _score(judged), "claims": [claim_of(*one, answer=text) for one in judged]}
        for side, (text, judged) in sides.items()
    }
    return [replace(sample, evidence=evidence)]


def claim_of(text: str, question: str, verdict: Verdict, answer: str) -> dict[str, Any]:
    """A claim as evidence has it; with its place in the answer, where it stands there word by word."""
    question = question.strip().removesuffix(_ASKS).strip()
    claim = {"text": text, "question": question, "yes": verdict.yes, "no": verdict.no}
    start = answer.find(text) if text else -1
    return claim | ({"spans": [[start, start + len(text)]]} if start >= 0 else {})


def _score(judged: Sequence[_Judged]) -> int:
    """Minus the number of rejected claims."""
    return -sum(one.verdict.rejected for one in judged)


def _claims(row: SourceRow, answer: str) -> Iterator[_Judged]:
    """What a row says of its answer: of one claim, of several facts, or of the whole."""
    columns, origin = row.parsed(), _origin(row.parsed())
    question, facts, scores = row.require("raw_question"), columns.get("facts"), row.require("scores")
    if isinstance(scores, list):
        if not isinstance(facts, list) or len(facts) != len(scores):
            detail = f"facts: expected as many as the {len(scores)} scores, got {shorten(facts)}"
            raise BadSample(Reason.WRONG_TYPE, row.where, detail)
        texts = [_text(row, fact, "facts") for fact in facts]
        yield from (_Judged(text, text, _verdict(row, one)) for text, one in zip(texts, scores, strict=True))
    else:
        text = _text(row, origin.get("origin_fact", answer), "origin_fact")
        yield _Judged(text, _text(row, question, "raw_question"), _verdict(row, scores))


def _verdict(row: SourceRow, scores: Any) -> Verdict:
    """Of the probabilities of four words."""
    found = [scores.get(name) for name in ("yes", "Yes", "no", "No")] if isinstance(scores, Mapping) else []
    if not found or not all(type(value) in (int, float) and 0 <= value <= 1 for value in found):
        detail = f"scores: expected probabilities of yes, Yes, no and No, got {shorten(scores)}"
        raise BadSample(Reason.WRONG_TYPE, row.where, detail)
    return Verdict(yes=float(found[0] + found[1]), no=float(found[2] + found[3]))


def _text(row: SourceRow, value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadSample(Reason.WRONG_TYPE, row.where, f"{name}: expected a text, got {shorten(value)}")
    return value


def _metainfos(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    told = columns.get("metainfos")
    return told if isinstance(told, Mapping) else {}


def _origin(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a row says of the answer that its claim is of: one level further down, as a rule."""
    told = _metainfos(columns)
    inner = told.get("metainfos")
    return inner if isinstance(inner, Mapping) and "origin_question" in inner else told
