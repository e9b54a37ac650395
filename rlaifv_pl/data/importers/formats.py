"""The formats that can be imported, and which of them a source has: told by its columns, never by its name."""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from itertools import groupby
from shlex import quote
from typing import Any, Literal, NamedTuple

from rlaifv_pl.data.importers import llamafactory, llava, plain, rankings, rlaifv, rlaifv_verdicts, swift, trl
from rlaifv_pl.data.importers.column_names import DIALOGUES, PROMPTS
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.sources import SourceError
from rlaifv_pl.data.importers.unread_columns import keys_option, misspelt, unread
from rlaifv_pl.data.sample_json import shorten
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
    read: Callable[[SourceRow], list[Sample]]
    """Its samples; raises `BadSample`."""
    reads: Callable[[Mapping[str, Any]], Collection[str]]
    """Columns that it reads of a row, beside those that `make_sample` does."""
    group: Callable[[Mapping[str, Any]], Hashable] | None = None
    """What the rows have in common that are read together, one behind the other; None if each is read by itself."""


def _always(*names: str) -> Callable[[Mapping[str, Any]], Collection[str]]:
    return lambda _: names


_SIDES = ("chosen", "rejected")
_TOLD = ("conversations", "messages")

FORMATS: Mapping[str, Format] = {
    "trl": Format(
        "prompt, chosen, rejected | prompt, completion | messages | prompt", trl.recognises, trl.read, trl.reads,
    ),
    "rlaifv": Format(
        "question, chosen, rejected | question, image", rlaifv.recognises, rlaifv.read,
        _always("question", *_SIDES, "org_infos", "correct"),
    ),
    "rlhfv": Format("text (JSON), ds_name", rlaifv.recognises_rlhfv, rlaifv.read_rlhfv, _always("text", "org_infos")),
    "llava": Format("conversations", llava.recognises, llava.read, _always("conversations")),
    "alpaca": Format(
        "instruction, input, output | instruction, chosen, rejected", llamafactory.recognises_alpaca,
        llamafactory.read_alpaca, _always("instruction", "input", "output", *_SIDES),
    ),
    "sharegpt": Format(
        "conversations, chosen, rejected", llamafactory.recognises_sharegpt, llamafactory.read_sharegpt,
        _always(*_TOLD, *_SIDES),
    ),
    "v1": Format(
        "chosen_messages, rejected_messages", llamafactory.recognises_v1, llamafactory.read_v1,
        _always(*DIALOGUES),
    ),
    "kto": Format("conversations, kto_tag", llamafactory.recognises_kto, llamafactory.read_kto, _always(*_TOLD)),
    "swift": Format(
        "messages, rejected_response | messages, rejected_images", swift.recognises, swift.read,
        _always("messages", "rejected_response", "rejected_messages"),
    ),
    "plain": Format(
        "query, response | input, chosen, rejected", plain.recognises, plain.read, plain.reads
    ),
    "ranks": Format(
        "context, completions", rankings.recognises_ranks, rankings.read_ranks, _always("context", "completions")
    ),
    "neighbours": Format(
        "context, completions", lambda _: False, rankings.read_neighbours, _always("context", "completions")
    ),
    "comparison": Format(
        "question, response_1, response_2, overall_response", rankings.recognises_comparison,
        rankings.read_comparison, _always(*PROMPTS, "response_1", "response_2", "overall_response"),
    ),
    "refinement": Format(
        "prompt, response, refinement", rankings.recognises_refinement, rankings.read_refinement,
        _always(*PROMPTS, "response", "refinement"),
    ),
    "lists": Format(
        "question, chosen [], rejected []", rankings.recognises_lists, rankings.read_lists, _always(*PROMPTS, *_SIDES)
    ),
    "verdicts": Format(
        "raw_question, answer, scores, with metainfos or facts", rlaifv_verdicts.recognises, rlaifv_verdicts.read,
        _always("raw_question", "question", "answer", "scores", "metainfos", "facts"), rlaifv_verdicts.find_question,
    ),
}  # fmt: skip


def matching(columns: Mapping[str, Any]) -> set[str]:
    """Names of the formats that a row looks like."""
    return {name for name, format in FORMATS.items() if format.recognises(columns)}


def detect_format(rows: Sequence[SourceRow], keys: Mapping[str, str]) -> str:
    """Tell the format by the first rows of a source, at least one; those that look like none are no witnesses.

    Args:
        keys: the renaming that was asked for, to name one that helps.

    Raises:
        SourceError: no row looks like any format, or they look like several.
    """
    seen = [row for row in rows if isinstance(row.columns, Mapping)]
    if not seen:
        rows[0].parsed()
    found = [fitting for row in seen if (fitting := matching(row.columns))]
    common = reduce(set.intersection, found) if found else set()
    if len(common) == 1:
        return common.pop()
    held = frozenset(name for row in seen for name, value in row.columns.items() if value is not None)
    columns = shorten(sorted(held), length=200)
    if found:
        names = [name for name in FORMATS if any(name in some for some in found)]
        said = f"the columns {columns} are of several formats, {' and '.join(names)}. Name one with --format"
    elif near := misspelt(held, held):
        said = (
            f"no known format has the columns {columns}. Add {keys_option(near, keys)}, or name the format with "
            "--format"
        )
    else:
        said = f"no known format has the columns {columns}. Rename them by --keys, or name one with --format"
    where = f"{rows[0].source.path}, rows {rows[0].number} to {rows[-1].number}"
    listed = "".join(f"\n  {name}: {format.columns}" for name, format in FORMATS.items())
    raise SourceError(f"{where}: {said}. Known are{listed}")


def refuse_misspelt(rows: Sequence[SourceRow], name: str, keys: Mapping[str, str]) -> None:
    """Refuse a source whose format leaves a column unread that looks like one of ours.

    Args:
        rows: the first ones.
        name: of the format.
        keys: the renaming that was asked for.

    Raises:
        SourceError: naming the option that reads it.
    """
    for row in rows:
        if isinstance(row.columns, Mapping):
            left: frozenset[str] = frozenset()
            with suppress(RecursionError):  # Reading the row names that.
                left = frozenset(unread(row.columns, FORMATS[name].reads(row.columns)))
            if near := misspelt(left, frozenset(row.columns)):
                theirs, ours = next(iter(near.items()))
                raise SourceError(
                    f"{row.where}: read as {name}, but its column {theirs!r} looks like {ours!r}. Add "
                    f"{keys_option(near, keys)}, or leave it behind with --ignore {quote(','.join(near))}."
                )


def gather(rows: Iterable[SourceRow], format: Format) -> Iterator[SourceRow]:
    """Rows as the format reads them: those that it reads together become one, with theirs in the column `rows`."""
    if format.group is None:
        yield from rows
        return
    for _, found in groupby(rows, lambda row: _group(row, format)):
        together = list(found)
        yield replace(together[0], columns={"rows": [row.columns for row in together]})


def _group(row: SourceRow, format: Format) -> Hashable:
    if format.group is None or not isinstance(row.columns, Mapping):
        return row.number
    try:
        return format.group(row.columns)
    except RecursionError:
        return row.number
