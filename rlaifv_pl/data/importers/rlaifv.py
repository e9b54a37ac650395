"""RLAIF-V's formats: the training parquet, the pairs of its pipeline (JSON lines), RLHF-V's `text`.

The parquet's `logps` are left behind: they hold for one reference model, which the file does not name.
"""

import json
from collections.abc import Mapping
from typing import Any

from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.importers.rows import Row
from rlaifv_pl.data.importers.turns import read_turn, text_of
from rlaifv_pl.records import Sample

_ORIGIN = (
    "ds_name",
    "origin_dataset",
    "origin_split",
    "idx",
    "image_path",
    "image_id",
    "ds_question_id",
)


def recognises(columns: Mapping[str, Any]) -> bool:
    """Whether a row looks like this family."""
    return {"question", "chosen", "rejected"} <= columns.keys() or {"text", "ds_name"} <= columns.keys()


def read_row(row: Row) -> Sample:
    """Turn a row into a sample.

    Raises:
        BadSample: naming the column.
    """
    texts = _rlhf_texts(row) if "question" not in row.parsed() else row.parsed()
    missing = [name for name in ("question", "chosen", "rejected") if texts.get(name) is None]
    if missing:
        raise BadSample(Reason.MISSING_FIELD, row.where, f"nothing in the columns {missing}")
    return Sample(
        key=row.key,
        prompt=[read_turn({"role": "user", "content": texts["question"]}, row.where)],
        images=row.pictures("image", "image_path"),
        chosen=text_of(texts["chosen"], "chosen", row.where),
        rejected=text_of(texts["rejected"], "rejected", row.where),
        evidence=_scores(row.parsed().get("org_infos")),
        provenance=row.provenance(*_ORIGIN),
    )


def _rlhf_texts(row: Row) -> Mapping[str, Any]:
    """RLHF-V keeps the three texts in one JSON string."""
    try:
        texts = json.loads(row.require("text"))
    except (TypeError, ValueError) as error:
        raise BadSample(Reason.INVALID_JSON, row.where, f"text: {error}") from None
    if not isinstance(texts, dict):
        raise BadSample(
            Reason.INVALID_JSON, row.where, "text: expected an object of question, chosen, rejected"
        )
    return texts


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
