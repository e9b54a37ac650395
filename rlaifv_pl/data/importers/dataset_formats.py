"""Formats of published data sets: RLAIF-V, RLHF-V, NeMo's rankings, align-anything, HA-DPO's lists of answers.

A format is two functions, as in `trainer_formats`. Each pair of a ranking is a sample of its own, with the key of the
row and a number.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from rlaifv_pl.data.bad_samples import Reason
from rlaifv_pl.data.importers.column_names import ANSWERS, PROMPTS, Cells, are_lists, holds, holds_any
from rlaifv_pl.data.importers.image_columns import likely_columns, sure_columns
from rlaifv_pl.data.importers.rlaifv_verdicts import claim_of
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.samples import is_marked, make_sample, refuse_unanswered
from rlaifv_pl.data.importers.sources import bad_row
from rlaifv_pl.data.sample_json import shorten
from rlaifv_pl.records import Sample, Verdict

_RLAIFV_TEXTS = ("question", "chosen", "rejected")


def is_rlaifv(columns: Cells) -> bool:
    """Whether a row is RLAIF-V's: a question with a pair, or with an image and no answer at all.

    InternVL's MPO, SeVa and HA-DPO's questions have the same columns.
    """
    if not holds(columns, "question"):
        return False
    if holds(columns, "chosen", "rejected"):
        return not are_lists(columns)
    has_image = holds_any(columns, "image", "images", "image_path", "metainfos")
    has_image = has_image or bool(sure_columns(columns) or likely_columns(columns))
    return has_image and not holds_any(columns, *ANSWERS, "conversations", "messages")


def read_rlaifv(row: SourceRow) -> list[Sample]:
    """Turn a row into a pair, or a prompt; `right_already` where HA-DPO's `correct` is true."""
    if is_marked(row, "correct"):
        detail = "correct is true: the model had answered rightly, and HA-DPO's authors skip such a pair"
        raise bad_row(Reason.RIGHT_ALREADY, detail)
    if holds_any(row.columns, "chosen", "rejected"):
        return [_pair(row, row.columns)]
    refuse_unanswered(row)
    return [make_sample(row, row.require("question"), {})]


def is_rlhfv(columns: Cells) -> bool:
    """Whether a row is RLHF-V's, which keeps its texts in one JSON string."""
    return holds(columns, "text", "ds_name") and not holds_any(columns, "question")


def read_rlhfv(row: SourceRow) -> list[Sample]:
    """Turn a row into a pair."""
    try:
        texts = json.loads(row.require("text"))
    except (TypeError, ValueError, RecursionError) as error:
        raise bad_row(Reason.INVALID_JSON, f"text: {error}") from None
    if not isinstance(texts, dict):
        raise bad_row(Reason.INVALID_JSON, "text: expected an object of question, chosen, rejected")
    return [_pair(row, texts)]


def _pair(row: SourceRow, texts: Cells) -> Sample:
    if missing := [name for name in _RLAIFV_TEXTS if texts.get(name) is None]:
        raise bad_row(Reason.MISSING_FIELD, f"nothing in the columns {missing}")
    answers = {name: texts[name] for name in ("chosen", "rejected")}
    sample = make_sample(row, texts["question"], answers, images=_image_by_id(row))
    return replace(sample, evidence=_evidence(sample, row.columns.get("org_infos")))


def _image_by_id(row: SourceRow) -> list[str]:
    """Return the file that `image_id` names, where no column holds the image.

    HA-DPO gives the number of a JPEG, SeVa a file name.
    """
    name = row.columns.get("image_id")
    if sure_columns(row.columns) or not isinstance(name, str | int) or isinstance(name, bool):
        return []
    return [str(name) if PurePosixPath(str(name)).suffix else f"{name}.jpg"]


def _evidence(sample: Sample, org_infos: object) -> dict[str, Any]:
    """Return what RLAIF-V's pipeline noted of each side: its score, a number as text, and the judged questions."""
    evidence: dict[str, dict[str, Any]] = {}
    for side, answer in (("chosen", sample.chosen or ""), ("rejected", sample.rejected or "")):
        score, judge = _at(org_infos, "scores", side, "score"), _at(org_infos, "scores", side, "judge")
        if isinstance(score, str | int) and str(score).lstrip("-").isdecimal():
            evidence[side] = {"score": int(score)}
            if claims := _claims(_at(org_infos, f"{side}_infos", "facts"), judge, answer):
                evidence[side]["claims"] = claims
    return evidence


def _claims(facts: object, judge: object, answer: str) -> list[dict[str, Any]]:
    """Make claims of questions judged 1 or 0: the probabilities were not kept. Facts go by their place, if as many."""
    if not isinstance(judge, Mapping) or not all(str(mark) in ("0", "1") for mark in judge.values()):
        return []
    texts = [fact for fact in facts if isinstance(fact, str) and fact] if isinstance(facts, list) else []
    texts = texts if len(texts) == len(judge) else list(judge)
    verdicts = [Verdict(yes=float(str(mark) == "1"), no=float(str(mark) == "0")) for mark in judge.values()]
    return [claim_of(*claim, answer=answer) for claim in zip(texts, judge, verdicts, strict=True)]


def _at(value: object, *names: str) -> object:
    """Return what lies below some names, or None."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def is_ranking(columns: Cells) -> bool:
    """Whether a row is NeMo's: a context, and completions with their ranks."""
    return holds(columns, "context", "completions")


def read_ranks(row: SourceRow) -> list[Sample]:
    """Pair the best completion with each that has a worse rank; the lowest rank is the best."""
    (best_rank, best), *others = _ranked(row)
    return _samples(
        row, row.require("context"), [(best, other) for rank, other in others if rank > best_rank]
    )


def read_neighbours(row: SourceRow) -> list[Sample]:
    """Pair each completion with the next one down the ranking; of equal ranks, no two."""
    pairs = [(better[1], worse[1]) for better, worse in pairwise(_ranked(row)) if worse[0] > better[0]]
    return _samples(row, row.require("context"), pairs)


def _ranked(row: SourceRow) -> list[tuple[float, object]]:
    """Return rank and messages of each completion, the best first; of equal ranks in the row's order."""
    ranked = []
    for item in row.messages("completions"):
        rank = item.get("rank") if isinstance(item, Mapping) else None
        if not isinstance(rank, int | float) or rank != rank or item.get("completion") is None:
            detail = f"completions: expected {{rank, completion}}, got {shorten(item)}"
            raise bad_row(Reason.WRONG_TYPE, detail)
        ranked.append((rank, item["completion"]))
    ranked.sort(key=lambda item: item[0])
    if ranked[0][0] == ranked[-1][0]:
        raise bad_row(Reason.EQUAL_ANSWERS, "completions: all have the same rank")
    return ranked


def is_comparison(columns: Cells) -> bool:
    """Whether a row is align-anything's: two responses, and which is better."""
    return holds(columns, "response_1", "response_2", "overall_response")


def read_comparison(row: SourceRow) -> list[Sample]:
    """Turn a row into a pair by the number of the better response, 1 or 2."""
    better = row.require("overall_response")
    if str(better) not in ("1", "2"):
        detail = f"overall_response: expected 1 or 2, got {shorten(better)}"
        raise bad_row(Reason.WRONG_TYPE, detail)
    answers = [row.require("response_1"), row.require("response_2")]
    chosen, rejected = answers if str(better) == "1" else reversed(answers)
    return [make_sample(row, _prompt(row), {"chosen": chosen, "rejected": rejected})]


def is_refinement(columns: Cells) -> bool:
    """Whether a row is align-anything's: a response, and what became better of it."""
    return holds(columns, "prompt", "response", "refinement")


def read_refinement(row: SourceRow) -> list[Sample]:
    """Turn a row into a pair of the refined response and the one before."""
    answers = {"chosen": row.require("refinement"), "rejected": row.require("response")}
    return [make_sample(row, _prompt(row), answers)]


def read_lists(row: SourceRow) -> list[Sample]:
    """Pair the answers of both sides that stand in the same place, as in HA-DPO's descriptions."""
    chosen, rejected = row.require("chosen"), row.require("rejected")
    if not isinstance(chosen, list) or not isinstance(rejected, list) or len(chosen) != len(rejected):
        sides = f"{shorten(chosen)} and {shorten(rejected)}"
        raise bad_row(Reason.WRONG_TYPE, f"chosen, rejected: expected equally long lists, got {sides}")
    return _samples(row, _prompt(row), zip(chosen, rejected, strict=True), _image_by_id(row))


def _prompt(row: SourceRow) -> object:
    return row.require_one(*PROMPTS, remedy=", or one for all rows by --prompt")


def _samples(
    row: SourceRow, prompt: object, pairs: Iterable[tuple[object, object]], images: Sequence[str] = ()
) -> list[Sample]:
    return [
        make_sample(row, prompt, {"chosen": chosen, "rejected": rejected}, number=number, images=images)
        for number, (chosen, rejected) in enumerate(pairs)
    ]
