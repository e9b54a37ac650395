"""Cells as formats read them: columns under the names that formats know, and JSON taken out of texts."""

import ast
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rlaifv_pl.data.importers.column_names import (
    ANSWERS,
    DIALOGUES,
    HISTORIES,
    LISTS,
    PROMPTS,
    Cells,
    holds_any,
    is_before_answer,
    readable_name,
)
from rlaifv_pl.data.importers.json_rows import parse_row
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.sources import SourceError
from rlaifv_pl.data.sample_json import shorten

_SPELLINGS = {"reject": "rejected"}
"""Names that some write for one of ours: HA-DPO and SeVa."""
_HOLD_PROMPT = (
    *PROMPTS, "raw_question", "context", "conversations", "messages", "text", "chosen_messages", "chosen_conversations",
)  # fmt: skip
"""Columns that hold a prompt, alone or with its answers."""
_TEXTS = {*PROMPTS, *ANSWERS}
"""Columns that hold a text or messages."""
_STRUCTURED = {*DIALOGUES, *LISTS, *HISTORIES, "image", "image_path", "metainfos", "org_infos"}
"""Columns whose texts never begin with a bracket, unless it is that of a list or an object."""
_NO_COMMA = re.compile(r"""['"]\s+['"]""")
"""Texts of a list without a comma between them, as NumPy prints it: Python reads them as one text."""


@dataclass(frozen=True)
class ColumnMapping:
    """How the columns of rows become those that formats know.

    Args:
        keys: column of the source by our name.
        prompt: prompt of rows that have none.
        ignored: columns of the source that are left behind.
    """

    keys: Mapping[str, str]
    prompt: str | None = None
    ignored: Sequence[str] = ()

    @classmethod
    def parse(cls, keys: str | None, prompt: str | None, ignore: str | None = None) -> "ColumnMapping":
        """Parse options: `keys` as `prompt=query,chosen=good`, `ignore` as `margin,tools`.

        Raises:
            SourceError: they are not written like that.
        """
        pairs = [pair.partition("=") for pair in keys.split(",")] if keys is not None else []
        named = {ours.strip(): readable_name(theirs) for ours, _, theirs in pairs}
        is_whole = all(ours and theirs for ours, theirs in named.items())
        if not is_whole or {len(named), len(set(named.values()))} != {len(pairs)}:
            raise SourceError(
                f"--keys: expected each name once with its column, as in prompt=query,chosen=good, got {shorten(keys)}"
            )
        ignored = [readable_name(name) for name in ignore.split(",")] if ignore is not None else []
        return cls(named, prompt, ignored)

    def check(self, rows: Sequence[SourceRow]) -> None:
        """Refuse a key or an ignored column that none of a source's first rows has.

        Raises:
            SourceError: naming it.
        """
        held = {readable_name(name) for row in rows for name in row.columns}
        for option, names in (("--keys", self.keys.values()), ("--ignore", self.ignored)):
            if missing := sorted({*names} - held):
                raise SourceError(
                    f"{rows[0].source.path}: {option} names the columns {missing}, but its first rows have "
                    f"{shorten(sorted(held), length=200)}. Name columns of the source."
                )

    def apply(self, row: SourceRow) -> SourceRow:
        """Return a row with its columns under the names that formats know; one that could not be read as it is."""
        if row.fault:
            return row
        columns = {readable_name(name): value for name, value in row.columns.items()}
        columns = {name: value for name, value in columns.items() if name not in self.ignored}
        spelled = {ours: theirs for theirs, ours in _SPELLINGS.items() if columns.get(ours) is None}
        names = {theirs: ours for ours, theirs in {**spelled, **self.keys}.items()}
        # A column that another one replaces is kept under a name that no format knows, to be counted as not read.
        names = {name: f"{name} (replaced)" for name in self.keys if name in columns} | names
        renamed = {names.get(name, name): value for name, value in columns.items()}
        renamed = {name: unpack(name, value) for name, value in renamed.items()}
        if self.prompt is not None and not _has_prompt(renamed):
            renamed["prompt"] = self.prompt
        return replace(row, columns=renamed)


def unpack(name: str, value: object) -> object:
    """Return a cell of a column, with what is written in a text of it as JSON, or as Python prints it, taken out.

    >>> unpack("images", "['1.jpg', '2.jpg']"), unpack("chosen", "[1] says no"), unpack("margin", float("nan"))
    (['1.jpg', '2.jpg'], '[1] says no', None)
    """
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str) and name in _STRUCTURED | _TEXTS and value.lstrip()[:1] in ("[", "{"):
        parsed = _parse(value)
        # A text may be about JSON; only messages are surely none.
        is_messages = isinstance(parsed, list) and parsed and all(map(_is_message, parsed))
        return parsed if name in _STRUCTURED or is_messages else value
    if isinstance(value, Mapping) and name in {*DIALOGUES, *HISTORIES, *_TEXTS}:
        return _transpose(value)
    return value


def _has_prompt(columns: Cells) -> bool:
    """Whether a row has a prompt, be it in a dialogue that ends in an answer."""
    chosen = columns.get("chosen")
    is_dialogue = isinstance(chosen, list) and is_before_answer(next(iter(chosen), None))
    return holds_any(columns, *_HOLD_PROMPT) or is_dialogue


def _is_message(value: object) -> bool:
    keys = value.keys() if isinstance(value, Mapping) else set()
    return {"role", "content"} <= keys or {"from", "value"} <= keys


def _parse(text: str) -> object:
    """Parse a text as JSON or in Python's notation; return the text itself if it is neither."""
    try:
        return parse_row(text)
    except (ValueError, RecursionError):
        pass
    try:
        return text if _NO_COMMA.search(text) else ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _transpose(value: Cells) -> object:
    """Turn one list for each field of messages, as `datasets` keeps a sequence of objects, into messages."""
    lists = list(value.values())
    if not _is_message(value) or not all(isinstance(cells, list) for cells in lists):
        return value
    if len({*map(len, lists)}) != 1:
        return value
    return [dict(zip(value, cells, strict=True)) for cells in zip(*lists, strict=True)]
