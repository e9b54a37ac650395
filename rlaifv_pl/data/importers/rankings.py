"""Rows of several answers: ranked (NeMo), compared (align-anything), refined, or a list a side (HA-DPO).

Of a ranking each pair is a sample of its own, with the key of the row and a number.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.column_names import PROMPTS
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.samples import are_lists, holds, image_name, make_sample
from rlaifv_pl.data.sample_json import shorten
from rlaifv_pl.records import Sample

Pair = tuple[Any, Any]


def recognises_ranks(columns: Mapping[str, Any]) -> bool:
    """Whether a row is NeMo's: a context, and completions with their ranks."""
    return holds(columns, "context", "completions")


def recognises_comparison(columns: Mapping[str, Any]) -> bool:
    """Whether a row is align-anything's: two responses, and which is better."""
    return holds(columns, "response_1", "response_2", "overall_response")


def recognises_refinement(columns: Mapping[str, Any]) -> bool:
    """Whether a row is align-anything's: a response, and what became better of it."""
    return holds(columns, "prompt", "response", "refinement")


def recognises_lists(columns: Mapping[str, Any]) -> bool:
    """Whether a row is HA-DPO's: equally many answers a side."""
    return are_lists(columns)


def read_ranks(row: SourceRow) -> list[Sample]:
    """Pair the best completion with each that has a worse rank; the lowest rank is the best.

    Raises:
        BadSample: naming the column.
    """
    ranked = _ranked(row)
    best = ranked[0]
    pairs = [(best[1], other[1]) for other in ranked[1:] if other[0] > best[0]]
    return _samples(row, row.require("context"), pairs)


def read_neighbours(row: SourceRow) -> list[Sample]:
    """Pair each completion with the next one down the ranking; of equal ranks, no two.

    Raises:
        BadSample: naming the column.
    """
    pairs = [(better[1], worse[1]) for better, worse in pairwise(_ranked(row)) if worse[0] > better[0]]
    return _samples(row, row.require("context"), pairs)


def read_comparison(row: SourceRow) -> list[Sample]:
    """Turn a row into a pair by the number of the better response, 1 or 2.

    Raises:
        BadSample: naming the column.
    """
    better = row.require("overall_response")
    if str(better) not in ("1", "2"):
        raise BadSample(
            Reason.WRONG_TYPE, row.where, f"overall_response: expected 1 or 2, got {shorten(better)}"
        )
    sides = [row.require("response_1"), row.require("response_2")]
    chosen, rejected = sides if str(better) == "1" else reversed(sides)
    return [make_sample(row, _prompt(row), answers={"chosen": chosen, "rejected": rejected})]


def read_refinement(row: SourceRow) -> list[Sample]:
    """Turn a row into a pair of the refined response and the one before.

    Raises:
        BadSample: naming the column.
    """
    answers = {"chosen": row.require("refinement"), "rejected": row.require("response")}
    return [make_sample(row, _prompt(row), answers=answers)]


def read_lists(row: SourceRow) -> list[Sample]:
    """Pair the answers of both sides that stand in the same place; `image_id` may name a JPEG.

    Raises:
        BadSample: naming the column.
    """
    chosen, rejected = row.require("chosen"), row.require("rejected")
    if not isinstance(chosen, list) or not isinstance(rejected, list) or len(chosen) != len(rejected):
        detail = (
            f"chosen, rejected: expected equally long lists, got {shorten(chosen)} and {shorten(rejected)}"
        )
        raise BadSample(Reason.WRONG_TYPE, row.where, detail)
    return _samples(row, _prompt(row), zip(chosen, rejected, strict=True), image_name(row))


def _prompt(row: SourceRow) -> Any:
    held = {name: value for name in PROMPTS if (value := row.parsed().get(name)) not in (None, "")}
    if len(held) > 1:
        raise BadSample(Reason.WRONG_TYPE, row.where, f"{' and '.join(held)}: expected one of them")
    if not held:
        detail = (
            f"expected a question in one of the columns {', '.join(PROMPTS)}, or one for all rows by --prompt"
        )
        raise BadSample(Reason.MISSING_FIELD, row.where, detail)
    return next(iter(held.values()))


def _ranked(row: SourceRow) -> list[tuple[float, Any]]:
    """Rank and messages of each completion, the best first; of equal ranks in the row's order."""
    ranked = []
    for item in row.messages("completions"):
        rank = item.get("rank") if isinstance(item, Mapping) else None
        if not isinstance(rank, int | float) or rank != rank or item.get("completion") is None:
            detail = f"completions: expected {{rank, completion}}, got {shorten(item)}"
            raise BadSample(Reason.WRONG_TYPE, row.where, detail)
        ranked.append((rank, item["completion"]))
    ranked.sort(key=lambda item: item[0])
    if ranked[0][0] == ranked[-1][0]:
        raise BadSample(Reason.EQUAL_ANSWERS, row.where, "completions: all have the same rank")
    return ranked


def _samples(
    row: SourceRow, prompt: Any, pairs: Iterable[Pair], pictures: list[str] | None = None
) -> list[Sample]:
    return [
        make_sample(
            row,
            prompt,
            answers={"chosen": chosen, "rejected": rejected},
            number=number,
            pictures=pictures or [],
        )
        for number, (chosen, rejected) in enumerate(pairs)
    ]
