"""The formats that can be imported, and detection of a source's format: by its columns, never by its name."""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from itertools import groupby
from shlex import quote
from typing import Literal, NamedTuple

from rlaifv_pl.data.importers import dataset_formats as datasets
from rlaifv_pl.data.importers import rlaifv_verdicts
from rlaifv_pl.data.importers import trainer_formats as trainers
from rlaifv_pl.data.importers.column_names import DIALOGUES, PROMPTS, Cells, are_lists
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.sources import SourceError
from rlaifv_pl.data.importers.unread_columns import find_misspelled, keys_option, unread
from rlaifv_pl.data.sample_json import shorten
from rlaifv_pl.records import Sample

FormatName = Literal[
    "auto",
    "trl", "rlaifv", "rlhfv", "llava", "alpaca", "sharegpt", "v1", "kto", "swift", "plain",
    "ranks", "neighbours", "comparison", "refinement", "lists", "verdicts",
]  # fmt: skip

FIRST_ROWS = 16
"""Number of a source's rows that its format is detected by."""


class Format(NamedTuple):
    """How rows of a source name their columns, and what becomes of one."""

    columns: str
    """What a row has, for messages."""
    matches: Callable[[Cells], bool]
    """Whether a row looks like it."""
    read: Callable[[SourceRow], list[Sample]]
    """Makes the samples of a row; raises a `BadSample` that names the column."""
    read_columns: Collection[str] | Callable[[Cells], Collection[str]]
    """Columns that it reads, of any row or of a given one, beside those that `make_sample` reads."""
    group: Callable[[Cells], Hashable] | None = None
    """What the rows have in common that are read together, one behind the other; None if each is read by itself."""

    def unread(self, columns: Cells) -> list[str]:
        """Return the names of the columns with something in them that it does not read, as `unread` has them."""
        names = self.read_columns
        return list(unread(columns, names(columns) if callable(names) else names))


_PAIR = ("chosen", "rejected")
_DIALOGUE = ("conversations", "messages")
_RANKING = ("context", "completions")

FORMATS: Mapping[str, Format] = {
    "trl": Format(
        "prompt, chosen, rejected | prompt, completion | messages | prompt",
        trainers.is_trl, trainers.read_trl, trainers.trl_columns,
    ),
    "rlaifv": Format(
        "question, chosen, rejected | question, image",
        datasets.is_rlaifv, datasets.read_rlaifv, ("question", *_PAIR, "org_infos", "correct"),
    ),
    "rlhfv": Format("text (JSON), ds_name", datasets.is_rlhfv, datasets.read_rlhfv, ("text", "org_infos")),
    "llava": Format("conversations", trainers.is_llava, trainers.read_llava, ("conversations",)),
    "alpaca": Format(
        "instruction, input, output | instruction, chosen, rejected",
        trainers.is_alpaca, trainers.read_alpaca, ("instruction", "input", "output", *_PAIR),
    ),
    "sharegpt": Format(
        "conversations, chosen, rejected", trainers.is_sharegpt, trainers.read_sharegpt, (*_DIALOGUE, *_PAIR),
    ),
    "v1": Format("chosen_messages, rejected_messages", trainers.is_v1, trainers.read_v1, DIALOGUES),
    "kto": Format("conversations, kto_tag", trainers.is_kto, trainers.read_kto, _DIALOGUE),
    "swift": Format(
        "messages, rejected_response | messages, rejected_images",
        trainers.is_swift, trainers.read_swift, ("messages", "rejected_response", "rejected_messages"),
    ),
    "plain": Format(
        "query, response | input, chosen, rejected",
        trainers.is_plain, trainers.read_plain, trainers.plain_columns,
    ),
    "ranks": Format("context, completions", datasets.is_ranking, datasets.read_ranks, _RANKING),
    # A ranking is read as `ranks` unless this one is named.
    "neighbours": Format("context, completions", lambda _: False, datasets.read_neighbours, _RANKING),
    "comparison": Format(
        "question, response_1, response_2, overall_response",
        datasets.is_comparison, datasets.read_comparison, (*PROMPTS, "response_1", "response_2", "overall_response"),
    ),
    "refinement": Format(
        "prompt, response, refinement",
        datasets.is_refinement, datasets.read_refinement, (*PROMPTS, "response", "refinement"),
    ),
    "lists": Format("question, chosen [], rejected []", are_lists, datasets.read_lists, (*PROMPTS, *_PAIR)),
    "verdicts": Format(
        "raw_question, answer, scores, with metainfos or facts",
        rlaifv_verdicts.is_verdicts, rlaifv_verdicts.read_verdicts,
        ("raw_question", "question", "answer", "scores", "metainfos", "facts"), rlaifv_verdicts.question_id,
    ),
}  # fmt: skip


def matching_formats(columns: Cells) -> set[str]:
    """Return the names of the formats that a row looks like."""
    return {name for name, format in FORMATS.items() if format.matches(columns)}


def detect_format(rows: Sequence[SourceRow], keys: Mapping[str, str]) -> str:
    """Detect the format of a source by its first rows, at least one; those that look like none do not count.

    Args:
        rows: the first ones.
        keys: the renaming that was asked for, to name one that helps.

    Raises:
        SourceError: no row looks like any format, or they look like several.
        BadSample: no row can be read.
    """
    readable = [row for row in rows if not row.fault]
    if not readable and rows[0].fault:
        raise rows[0].locate(rows[0].fault)
    matches = list(filter(None, (matching_formats(row.columns) for row in readable)))
    common = reduce(set.intersection, matches) if matches else set()
    if len(common) == 1:
        return common.pop()
    held = frozenset(name for row in readable for name, value in row.columns.items() if value is not None)
    columns = shorten(sorted(held), length=200)
    if matches:
        names = [name for name in FORMATS if any(name in some for some in matches)]
        fault = f"the columns {columns} are of several formats, {' and '.join(names)}. Name one with --format"
    elif misspelled := find_misspelled(held, held):
        cure = f"Add {keys_option(misspelled, keys)}, or name the format with --format"
        fault = f"no known format has the columns {columns}. {cure}"
    else:
        fault = f"no known format has the columns {columns}. Rename them by --keys, or name one with --format"
    where = f"{rows[0].source.path}, rows {rows[0].number} to {rows[-1].number}"
    known = "".join(f"\n  {name}: {format.columns}" for name, format in FORMATS.items())
    raise SourceError(f"{where}: {fault}. Known are{known}")


def refuse_misspelled(rows: Sequence[SourceRow], name: str, keys: Mapping[str, str]) -> None:
    """Refuse a source whose format leaves a column unread that looks like one of ours.

    Args:
        rows: the first ones.
        name: name of the format.
        keys: the renaming that was asked for.

    Raises:
        SourceError: naming the option that reads it.
    """
    for row in rows:
        misspelled: Mapping[str, str] = {}
        with suppress(RecursionError):  # Reading the row names that.
            misspelled = find_misspelled(frozenset(FORMATS[name].unread(row.columns)), frozenset(row.columns))
        if misspelled:
            theirs, ours = next(iter(misspelled.items()))
            raise SourceError(
                f"{row.where}: read as {name}, but its column {theirs!r} looks like {ours!r}. Add "
                f"{keys_option(misspelled, keys)}, or leave it behind with --ignore {quote(','.join(misspelled))}."
            )


def group_rows(rows: Iterable[SourceRow], format: Format) -> Iterator[SourceRow]:
    """Return rows as the format reads them: those that it reads together become one, with a column `rows`."""
    group = format.group
    if group is None:
        yield from rows
        return

    def key(row: SourceRow) -> Hashable:
        with suppress(RecursionError):
            return row.number if row.fault else group(row.columns)
        return row.number

    for _, grouped in groupby(rows, key):
        together = list(grouped)
        yield replace(together[0], columns={"rows": [row.columns for row in together]})
