"""The formats that can be imported, and which of them a source has: told by its columns, never by its name."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import groupby
from typing import Any, Literal, NamedTuple

from rlaifv_pl.data.fields import shorten
from rlaifv_pl.data.importers import llamafactory, llava, plain, rankings, rlaifv, swift, trl, verdicts
from rlaifv_pl.data.importers.rows import Row
from rlaifv_pl.data.importers.sources import SourceError
from rlaifv_pl.records import Sample

FormatName = Literal[
    "auto",
    "trl", "rlaifv", "rlhfv", "llava", "alpaca", "sharegpt", "v1", "kto", "swift", "plain",
    "ranks", "neighbours", "comparison", "refinement", "lists", "verdicts",
]  # fmt: skip

FIRST_ROWS = 16
"""Rows of a source that are looked at to tell its format."""


class Format(NamedTuple):
    """How rows of a source name their columns, and what becomes of one."""

    columns: str
    """What a row has, for messages."""
    recognises: Callable[[Mapping[str, Any]], bool]
    """Whether a row looks like it."""
    read: Callable[[Row], list[Sample]]
    """Its samples; raises `BadSample`."""
    group: Callable[[Mapping[str, Any]], Hashable] | None = None
    """What the rows have in common that are read together, one behind the other; None if each is read by itself."""


FORMATS: Mapping[str, Format] = {
    "trl": Format(
        "prompt, chosen, rejected | prompt, completion | messages | prompt", trl.recognises, trl.read
    ),
    "rlaifv": Format("question, chosen, rejected | question, image", rlaifv.recognises, rlaifv.read),
    "rlhfv": Format("text (JSON), ds_name", rlaifv.recognises_rlhfv, rlaifv.read_rlhfv),
    "llava": Format("conversations", llava.recognises, llava.read),
    "alpaca": Format(
        "instruction, input, output | instruction, chosen, rejected",
        llamafactory.recognises_alpaca,
        llamafactory.read_alpaca,
    ),
    "sharegpt": Format(
        "conversations, chosen, rejected", llamafactory.recognises_sharegpt, llamafactory.read_sharegpt
    ),
    "v1": Format("chosen_messages, rejected_messages", llamafactory.recognises_v1, llamafactory.read_v1),
    "kto": Format("conversations, kto_tag", llamafactory.recognises_kto, llamafactory.read_kto),
    "swift": Format("messages, rejected_response | messages, rejected_images", swift.recognises, swift.read),
    "plain": Format("query, response | input, chosen, rejected", plain.recognises, plain.read),
    "ranks": Format("context, completions", rankings.recognises_ranks, rankings.read_ranks),
    "neighbours": Format("context, completions", lambda _: False, rankings.read_neighbours),
    "comparison": Format(
        "question, response_1, response_2, overall_response",
        rankings.recognises_comparison,
        rankings.read_comparison,
    ),
    "refinement": Format(
        "prompt, response, refinement", rankings.recognises_refinement, rankings.read_refinement
    ),
    "lists": Format("question, chosen [], rejected []", rankings.recognises_lists, rankings.read_lists),
    "verdicts": Format(
        "raw_question, answer, scores, with metainfos or facts",
        verdicts.recognises,
        verdicts.read,
        verdicts.question_of,
    ),
}


def matching(columns: Mapping[str, Any]) -> set[str]:
    """Names of the formats that a row looks like."""
    return {name for name, format in FORMATS.items() if format.recognises(columns)}


def detect_format(rows: Sequence[Row]) -> Format:
    """Tell the format by the first rows of a source, at least one; those that look like none are no witnesses.

    Raises:
        SourceError: no row looks like any format, or they look like several.
    """
    seen = [row for row in rows if isinstance(row.columns, Mapping)]
    found = [fitting for row in seen if (fitting := matching(row.columns))]
    common = reduce(set.intersection, found) if found else set()
    if len(common) == 1:
        return FORMATS[common.pop()]
    held = {name for row in seen for name, value in row.columns.items() if value is not None}
    columns = shorten(sorted(held), length=200)
    if found:
        names = [name for name in FORMATS if any(name in some for some in found)]
        said = f"the columns {columns} are of several formats, {' and '.join(names)}. Name one with `format`"
    else:
        said = f"no known format has the columns {columns}. Rename them to those of one, or name it with `format`"
    where = f"{rows[0].source.path}, rows {rows[0].number} to {rows[-1].number}"
    listed = "".join(f"\n  {name}: {format.columns}" for name, format in FORMATS.items())
    raise SourceError(f"{where}: {said}. Known are{listed}")


def gather(rows: Iterable[Row], format: Format) -> Iterator[Row]:
    """Rows as the format reads them: those that it reads together become one, with theirs in the column `rows`."""
    if format.group is None:
        yield from rows
        return
    for _, found in groupby(rows, lambda row: _group(row, format)):
        together = list(found)
        yield replace(together[0], columns={"rows": [row.columns for row in together]})


def _group(row: Row, format: Format) -> Hashable:
    if format.group is None or not isinstance(row.columns, Mapping):
        return row.number
    try:
        return format.group(row.columns)
    except RecursionError:
        return row.number
