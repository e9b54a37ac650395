"""Cells as a source keeps them, in the form in which formats read them: JSON in a text, lists of a struct."""

import ast
import math
import re
from collections.abc import Mapping
from typing import Any

from rlaifv_pl.data.importers.column_names import ANSWERS, DIALOGUES, HISTORIES, LISTS, PROMPTS
from rlaifv_pl.data.importers.json_rows import parse_row

_UNPACKED = {
    *DIALOGUES,
    *LISTS,
    *HISTORIES,
    "image",
    "image_path",
    "metainfos",
    "org_infos",
    "scores",
    "facts",
}
"""Columns whose texts never begin with a bracket, unless it is that of a list or an object."""
_TEXTS = {*PROMPTS, *ANSWERS}
"""Columns that hold a text or messages."""
_JOINED = re.compile(r"""['"]\s+['"]""")
"""Texts of a list without a comma between them, as NumPy prints it: Python reads them as one text."""


def unpack(name: str, value: Any) -> Any:
    """A cell of a column, with what is written in a text of it as JSON, or as Python prints it, taken out.

    >>> unpack("images", "['1.jpg', '2.jpg']"), unpack("chosen", "[1] says no"), unpack("margin", float("nan"))
    (['1.jpg', '2.jpg'], '[1] says no', None)
    """
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str) and name in _UNPACKED | _TEXTS and value.lstrip()[:1] in ("[", "{"):
        found = _parse(value)
        # A text may be about JSON; only messages are surely none.
        return found if name in _UNPACKED or are_messages(found) else value
    if isinstance(value, Mapping) and name in {*DIALOGUES, *HISTORIES, *_TEXTS}:
        return _transpose(value)
    return value


def are_messages(value: Any) -> bool:
    """Whether it is a list of messages, at least one."""
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def _is_message(value: Any) -> bool:
    keys = value.keys() if isinstance(value, Mapping) else set()
    return {"role", "content"} <= keys or {"from", "value"} <= keys


def _parse(text: str) -> Any:
    """What a text says as JSON or in Python's notation; the text itself if it says nothing."""
    try:
        return parse_row(text)
    except (ValueError, RecursionError):
        pass
    try:
        return text if _JOINED.search(text) else ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _transpose(value: Mapping[str, Any]) -> Any:
    """Messages out of one list for each of their fields, as `datasets` keeps a sequence of objects."""
    lists = list(value.values())
    if not _is_message(value) or not all(isinstance(cells, list) for cells in lists):
        return value
    if len({*map(len, lists)}) != 1:
        return value
    return [dict(zip(value, cells, strict=True)) for cells in zip(*lists, strict=True)]
