"""RLAIF-V's judged answers: a row for each claim of an answer, with the labeler's probabilities of its question.

Rows of one question stand one behind the other, and make one pair: the answer with the fewest rejected claims
over the one with the most. What is more than that (several pairs of a question, lengths in balance) is for
`rlaifv feedback`. A row that names no other answer is one whole answer, judged as such or fact by fact.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from rlaifv_pl.data.bad_samples import Reason
from rlaifv_pl.data.importers.column_names import Cells, holds
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.samples import make_sample
from rlaifv_pl.data.importers.sources import bad_row
from rlaifv_pl.data.sample_json import shorten
from rlaifv_pl.records import Sample, Verdict

_INSTRUCTION = "Please answer yes or no."
"""End of the question as the labeler was asked it."""


class _JudgedClaim(NamedTuple):
    """One claim of an answer."""

    text: str
    question: str
    verdict: Verdict


def is_verdicts(columns: Cells) -> bool:
    """Whether a row is a question put to a labeler, with its scores."""
    return holds(columns, "raw_question", "answer", "scores")


def question_id(columns: Cells) -> Hashable:
    """Return what rows about one question have in common."""
    metainfos = _metainfos(columns)
    name = columns.get("ds_question_id") or metainfos.get("ds_question_id")
    question = _origin(columns).get("origin_question", columns.get("raw_question"))
    return repr((name, metainfos.get("image_path"), question))


def read_verdicts(row: SourceRow) -> list[Sample]:
    """Turn the rows of one question, in the column `rows`, into a pair with its evidence.

    Raises:
        BadSample: naming the column; `unpaired` if no answer is better than another.
    """
    rows = [replace(row, columns=columns) for columns in row.require("rows")]
    answers: dict[Hashable, tuple[str, list[_JudgedClaim]]] = {}
    for one in rows:
        text = _text(_origin(one.columns).get("origin_answer", one.require("answer")), "answer")
        answer = answers.setdefault((repr(one.columns.get("question_id")), text), (text, []))
        answer[1].extend(_claims(one, text))
    scores = [_score(claims) for _, claims in answers.values()]
    if len({*scores}) == 1:
        detail = f"each of the {len(scores)} answers to the question has {-scores[0]} rejected claims"
        raise bad_row(Reason.UNPAIRED, detail)
    ordered = list(answers.values())
    sides = {"chosen": ordered[scores.index(max(scores))], "rejected": ordered[scores.index(min(scores))]}
    first = rows[0].columns
    prompt = _text(_origin(first).get("origin_question", first.get("raw_question")), "raw_question")
    columns = {**_metainfos(first), **first}
    sample = make_sample(
        replace(row, columns=columns), prompt, {side: text for side, (text, _) in sides.items()}
    )
    evidence = {
        side: {"score": _score(claims), "claims": [claim_of(*claim, answer=text) for claim in claims]}
        for side, (text, claims) in sides.items()
    }
    return [replace(sample, evidence=evidence)]


def claim_of(text: str, question: str, verdict: Verdict, answer: str) -> dict[str, Any]:
    """Return a claim as evidence has it; with its place in the answer, where it stands there word by word."""
    question = question.strip().removesuffix(_INSTRUCTION).strip()
    claim = {"text": text, "question": question, "yes": verdict.yes, "no": verdict.no}
    start = answer.find(text) if text else -1
    return claim | ({"spans": [[start, start + len(text)]]} if start >= 0 else {})


def _score(claims: Sequence[_JudgedClaim]) -> int:
    """Return minus the number of rejected claims."""
    return -sum(claim.verdict.rejected for claim in claims)


def _claims(row: SourceRow, answer: str) -> Iterator[_JudgedClaim]:
    """Read what a row says of its answer: of one claim, of several facts, or of the whole."""
    question, scores = row.require("raw_question"), row.require("scores")
    if not isinstance(scores, list):
        text = _text(_origin(row.columns).get("origin_fact", answer), "origin_fact")
        yield _JudgedClaim(text, _text(question, "raw_question"), _verdict(scores))
        return
    facts = row.columns.get("facts")
    if not isinstance(facts, list) or len(facts) != len(scores):
        detail = f"facts: expected as many as the {len(scores)} scores, got {shorten(facts)}"
        raise bad_row(Reason.WRONG_TYPE, detail)
    texts = [_text(fact, "facts") for fact in facts]
    yield from (_JudgedClaim(text, text, _verdict(words)) for text, words in zip(texts, scores, strict=True))


def _verdict(scores: object) -> Verdict:
    """Add up the probabilities of two spellings of each word."""
    names = ("yes", "Yes", "no", "No")
    words: list[Any] = [scores.get(name) for name in names] if isinstance(scores, Mapping) else []
    if not words or not all(type(value) in (int, float) and 0 <= value <= 1 for value in words):
        detail = f"scores: expected probabilities of yes, Yes, no and No, got {shorten(scores)}"
        raise bad_row(Reason.WRONG_TYPE, detail)
    return Verdict(yes=float(words[0] + words[1]), no=float(words[2] + words[3]))


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise bad_row(Reason.WRONG_TYPE, f"{name}: expected a text, got {shorten(value)}")
    return value


def _metainfos(columns: Cells) -> Cells:
    metainfos = columns.get("metainfos")
    return metainfos if isinstance(metainfos, Mapping) else {}


def _origin(columns: Cells) -> Cells:
    """Return what a row says of the answer that its claim is of: one level further down, as a rule."""
    metainfos = _metainfos(columns)
    inner = metainfos.get("metainfos")
    return inner if isinstance(inner, Mapping) and "origin_question" in inner else metainfos
