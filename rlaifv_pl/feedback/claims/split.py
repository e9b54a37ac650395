"""The stage of claims: candidates are divided, and those that the token limit cut off keep their finished sentences."""

import re
from collections.abc import Sequence
from dataclasses import replace

from rlaifv_pl.feedback.claims.english.sentences import sentences
from rlaifv_pl.feedback.claims.splitter import ClaimList, PromptedAnswer, Splitter, Undivided
from rlaifv_pl.feedback.reasons import TRUNCATED, UNDIVIDED
from rlaifv_pl.models.special_tokens import markup_in
from rlaifv_pl.records import Candidate, Claim

_FINISHED = re.compile(r"[.!?][\"')\]*_\u201d\u2019]*$")
_MAY_GO_ON = re.compile(r"(?:\d|\b(?:mr|mrs|ms|dr|st|vs|no|fig|approx|e\.g|i\.e|[A-Z]))\.$", re.IGNORECASE)
"""Full stop that may belong to a number or an abbreviation."""
_FULL_STOP = re.compile(r"[\u3002\uff01\uff1f][\u300d\u300f\u201d\uff09]*")
"""Chinese and Japanese full stops, which no blank follows."""


def split_candidates(
    splitter: Splitter, questions: Sequence[str], candidates: Sequence[Sequence[Candidate]]
) -> list[list[Candidate]]:
    """Return the candidates with their claims; one that cannot be divided has the reason as its fault.

    Args:
        questions: text of each prompt.
        candidates: candidates of each prompt; those with a fault stay as they are.
    """
    answered = [
        PromptedAnswer(question, candidate.text)
        for question, of_prompt in zip(questions, candidates, strict=True)
        for candidate in of_prompt
        if _can_be_split(candidate)
    ]
    results = iter(splitter.split(answered) if answered else [])
    return [
        [_with_claims(one, next(results)) if _can_be_split(one) else one for one in of_prompt]
        for of_prompt in candidates
    ]


def _can_be_split(candidate: Candidate) -> bool:
    return candidate.fault is None and not markup_in(candidate.text)


def usable_part(candidate: Candidate, *, keep: bool) -> Candidate:
    """Return the part of a candidate that can be judged: all of it, if its model ended it.

    One that was cut off keeps its finished sentences with `keep`; otherwise, or if there is none, its fault is
    `truncated`.
    """
    if candidate.ended or candidate.fault is not None:
        return candidate
    text = finished_sentences(candidate.text) if keep else ""
    return replace(candidate, text=text) if text else replace(candidate, fault=TRUNCATED)


def finished_sentences(text: str) -> str:
    """Return a text that was cut off, up to the end of its last whole sentence or line.

    >>> finished_sentences("A dog runs. It has 2.5 legs. A c"), finished_sentences("There are 3.")
    ('A dog runs. It has 2.5 legs.', '')
    """
    for start, end in reversed(list(sentences(text))):
        is_line = text[end:].lstrip(" \t").startswith(("\n", "\r"))
        is_last = not text[end:].strip()
        sentence = text[start:end]
        if is_line or (_FINISHED.search(sentence) and not (is_last and _MAY_GO_ON.search(sentence))):
            return text[:end].strip()
        if stops := list(_FULL_STOP.finditer(text, start, end)):
            return text[: stops[-1].end()].strip()
    return ""


def _with_claims(candidate: Candidate, result: list[Claim] | Undivided | None) -> Candidate:
    if result is None:
        return replace(candidate, fault=UNDIVIDED)
    if isinstance(result, Undivided):
        return replace(candidate, fault=result.reason, dropped_claims=result.dropped)
    dropped = result.dropped if isinstance(result, ClaimList) else ()
    return replace(candidate, claims=tuple(result), dropped_claims=dropped)
