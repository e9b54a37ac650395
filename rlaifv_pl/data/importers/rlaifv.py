"""RLAIF-V's formats: the training parquet, the prompts and pairs of its pipeline, RLHF-V's `text`.

InternVL's MPO, SeVa and HA-DPO's questions have the columns of the first.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.column_names import ANSWERS
from rlaifv_pl.data.importers.image_columns import likely_columns, sure_columns
from rlaifv_pl.data.importers.rlaifv_verdicts import claim_of
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.samples import (
    are_lists,
    holds,
    holds_any,
    image_name,
    is_marked,
    make_sample,
    refuse_unanswered,
)
from rlaifv_pl.records import Sample, Verdict

_TEXTS = ("question", "chosen", "rejected")
_OF_PROMPTS = ("image", "images", "image_path", "metainfos")


def recognises(columns: Mapping[str, Any]) -> bool:
    """Whether a row looks like RLAIF-V's: a question with a pair, or with no answer at all."""
    if not holds(columns, "question"):
        return False
    if holds(columns, "chosen", "rejected"):
        return not are_lists(columns)
    is_shown = holds_any(columns, *_OF_PROMPTS) or sure_columns(columns) or likely_columns(columns)
    return bool(is_shown) and not holds_any(columns, *ANSWERS, "conversations", "messages")


def recognises_rlhfv(columns: Mapping[str, Any]) -> bool:
    """Whether a row looks like RLHF-V's, which keeps its texts in one JSON string."""
    return holds(columns, "text", "ds_name") and not holds_any(columns, "question")


def read(row: SourceRow) -> list[Sample]:
    """Turn a row into a sample: a pair, or a prompt.

    Raises:
        BadSample: naming the column; `right_already` where HA-DPO's `correct` is true.
    """
    texts = row.parsed()
    if is_marked(row, "correct"):
        detail = "correct is true: the model had answered rightly, and HA-DPO's authors skip such a pair"
        raise BadSample(Reason.RIGHT_ALREADY, row.where, detail)
    if not holds_any(texts, "chosen", "rejected"):
        refuse_unanswered(row)
        return [make_sample(row, row.require("question"), answers={})]
    return [_pair(row, texts)]


def read_rlhfv(row: SourceRow) -> list[Sample]:
    """Turn a row into a sample.

    Raises:
        BadSample: naming the column.
    """
    try:
        texts = json.loads(row.require("text"))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadSample(Reason.INVALID_JSON, row.where, f"text: {error}") from None
    if not isinstance(texts, dict):
        raise BadSample(
            Reason.INVALID_JSON, row.where, "text: expected an object of question, chosen, rejected"
        )
    return [_pair(row, texts)]


def _pair(row: SourceRow, texts: Mapping[str, Any]) -> Sample:
    missing = [name for name in _TEXTS if texts.get(name) is None]
    if missing:
        raise BadSample(Reason.MISSING_FIELD, row.where, f"nothing in the columns {missing}")
    answers = {name: texts[name] for name in _TEXTS[1:]}
    sample = make_sample(row, texts["question"], answers=answers, pictures=image_name(row))
    return replace(sample, evidence=_evidence(sample, row.parsed().get("org_infos")))


def _evidence(sample: Sample, org_infos: Any) -> dict[str, Any]:
    """What the pipeline noted of each side: its score, a number as text, and the judged questions."""
    evidence: dict[str, dict[str, Any]] = {}
    for side in ("chosen", "rejected"):
        finding = _at(org_infos, "scores", side)
        score, judge = _at(finding, "score"), _at(finding, "judge")
        if isinstance(score, str | int) and str(score).lstrip("-").isdecimal():
            evidence[side] = {"score": int(score)}
            facts = _at(org_infos, f"{side}_infos", "facts")
            if claims := _claims(facts, judge, getattr(sample, side)):
                evidence[side]["claims"] = claims
    return evidence


def _claims(facts: Any, judge: Any, answer: str) -> list[dict[str, Any]]:
    """Claims of questions judged 1 or 0: the probabilities were not kept. Facts go by their place, if as many."""
    if not isinstance(judge, Mapping) or not all(str(mark) in ("0", "1") for mark in judge.values()):
        return []
    texts = [fact for fact in facts if isinstance(fact, str) and fact] if isinstance(facts, list) else []
    texts = texts if len(texts) == len(judge) else list(judge)
    verdicts = [Verdict(yes=float(str(mark) == "1"), no=float(str(mark) == "0")) for mark in judge.values()]
    return [claim_of(*found, answer=answer) for found in zip(texts, judge, verdicts, strict=True)]


def _at(value: Any, *names: str) -> Any:
    """What lies below some names, or None."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
