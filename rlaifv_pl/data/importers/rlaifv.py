"""RLAIF-V's formats: the training parquet, the prompts and pairs of its pipeline, RLHF-V's `text`.

InternVL's MPO has the columns of the first. The parquet's `logps` are left behind: they hold for one
reference model, which the file does not name.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.importers.rows import Row
from rlaifv_pl.data.importers.samples import ANSWERS, are_lists, holds, holds_any, make_sample
from rlaifv_pl.records import Sample

_TEXTS = ("question", "chosen", "rejected")
_OF_PROMPTS = ("image", "images", "image_path", "metainfos")


def recognises(columns: Mapping[str, Any]) -> bool:
    """Whether a row looks like RLAIF-V's: a question with a pair, or with no answer at all."""
    if not holds(columns, "question"):
        return False
    if holds(columns, "chosen", "rejected"):
        return not are_lists(columns)
    return holds_any(columns, *_OF_PROMPTS) and not holds_any(columns, *ANSWERS, "conversations", "messages")


def recognises_rlhfv(columns: Mapping[str, Any]) -> bool:
    """Whether a row looks like RLHF-V's, which keeps its texts in one JSON string."""
    return holds(columns, "text", "ds_name") and not holds_any(columns, "question")


def read(row: Row) -> list[Sample]:
    """Turn a row into a sample: a pair, or a prompt.

    Raises:
        BadSample: naming the column.
    """
    texts = row.parsed()
    if not holds_any(texts, "chosen", "rejected"):
        return [make_sample(row, row.require("question"), answers={})]
    return [_pair(row, texts)]


def read_rlhfv(row: Row) -> list[Sample]:
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


def _pair(row: Row, texts: Mapping[str, Any]) -> Sample:
    missing = [name for name in _TEXTS if texts.get(name) is None]
    if missing:
        raise BadSample(Reason.MISSING_FIELD, row.where, f"nothing in the columns {missing}")
    sample = make_sample(row, texts["question"], answers={name: texts[name] for name in _TEXTS[1:]})
    return replace(sample, evidence=_scores(row.parsed().get("org_infos")))


def _scores(org_infos: Any) -> dict[str, Any]:
    """The score of each side, where the pipeline noted one: `scores.<side>.score`, a number as text."""
    scores = org_infos.get("scores") if isinstance(org_infos, Mapping) else None
    evidence = {}
    for side in ("chosen", "rejected"):
        finding = scores.get(side) if isinstance(scores, Mapping) else None
        score = finding.get("score") if isinstance(finding, Mapping) else None
        if isinstance(score, str | int) and str(score).lstrip("-").isdecimal():
            evidence[side] = {"score": int(score)}
    return evidence
