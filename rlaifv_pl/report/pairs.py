"""Samples to rows of the page: texts, claims with their place in the text, verdicts, pictures."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rlaifv_pl.data.contact_sheet import prompt_text
from rlaifv_pl.feedback.candidates.candidate_json import spans_of
from rlaifv_pl.feedback.judges.labeler import LOW_MASS
from rlaifv_pl.records import Correction, Sample, Verdict
from rlaifv_pl.report.thumbnails import Thumbnails

SIDES = ("chosen", "rejected", "completion")


def rows(
    samples: Iterable[Sample],
    number: int,
    thumbnails: Thumbnails,
    corrections: Mapping[str, Sequence[Correction]] | None = None,
) -> Iterator[dict[str, Any]]:
    """A row for each sample.

    Args:
        number: of the directory of shards, on the page.
        thumbnails: takes up their images.
        corrections: by key, where they lie apart from the samples.
    """
    for sample in samples:
        turns = sample.corrections or (corrections or {}).get(sample.key, ())
        yield {
            "key": sample.key,
            "directory": number,
            "prompt": prompt_text(sample),
            "images": [thumbnails.add(data, sample.key) for data in sample.images],
            "rejected_images": [thumbnails.add(data, sample.key) for data in sample.rejected_images],
            "answers": [
                answer_row(side, text, _evidence(sample, side))
                for side in SIDES
                if (text := getattr(sample, side)) is not None
            ],
            "gap": gap(sample),
            "corrections": [[turn.question, turn.answer] for turn in turns],
        }


def gap(sample: Sample) -> float | None:
    """Difference of the scores of a sample's sides; None where they are not known."""
    chosen, rejected = (_score(_evidence(sample, side)) for side in ("chosen", "rejected"))
    return None if chosen is None or rejected is None else chosen - rejected


def words(text: str) -> int:
    """Length of an answer in words, as everywhere else."""
    return len(text.split())


def answer_row(side: str, text: str, evidence: Mapping[str, Any]) -> dict[str, Any]:
    """An answer with its claims.

    Args:
        side: what it is called on the page.
        evidence: as of one side of a sample.
    """
    claims = evidence.get("claims")
    listed = claims if isinstance(claims, list) else []
    return {
        "side": side,
        "text": text,
        "words": words(text),
        "score": _score(evidence),
        "claims": [_claim(claim, len(text)) for claim in listed if isinstance(claim, dict)],
    }


def _claim(claim: Mapping[str, Any], length: int) -> dict[str, Any]:
    """A claim with its verdict; `spans` is empty where its place in the text is not known."""
    yes, no = (_finite(claim.get(name)) for name in ("yes", "no"))
    verdict = None if yes is None or no is None else Verdict(yes=yes, no=no)
    return {
        "text": str(claim.get("text") or claim.get("question") or ""),
        "question": str(claim.get("question") or ""),
        "spans": _spans(claim, length),
        "yes": yes,
        "no": no,
        "rejected": verdict and verdict.rejected,
        "low": verdict is not None and verdict.yes + verdict.no < LOW_MASS,
    }


def _spans(claim: Mapping[str, Any], length: int) -> list[list[int]]:
    """Stretches of the text that a claim stands in; shards may be anybody's, so that one outside of it is possible."""
    try:
        found = [list(span) for span in spans_of(claim)]
    except (TypeError, ValueError):
        return []
    is_known = all(type(start) is type(end) is int and 0 <= start < end <= length for start, end in found)
    return found if is_known else []


def _evidence(sample: Sample, side: str) -> Mapping[str, Any]:
    found = sample.evidence.get(side)
    return found if isinstance(found, Mapping) else {}


def _score(evidence: Mapping[str, Any]) -> float | None:
    return _finite(evidence.get("score"))


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value + 0.0 if is_number and math.isfinite(value) else None
