"""Rows of JSON files: lines, an array, objects one behind the other, columns, or rows below a key."""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from rlaifv_pl.data.bad_samples import Reason
from rlaifv_pl.data.importers.column_names import ANSWERS, DIALOGUES, LISTS, PROMPTS
from rlaifv_pl.data.importers.sources import SourceError, bad_row
from rlaifv_pl.data.importers.text_files import explain_encoding, open_text
from rlaifv_pl.data.strict_json import unique_fields

_FIRST_LINES = 8
"""Number of lines that distinguish JSON lines from JSON that is spread over several lines."""
_BLANKS = re.compile(r"\s*")
_MESSAGE_FIELDS = {"role", "from", "type"}


def read_json(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield number and columns of each row, whatever the suffix says: RLAIF-V's .jsonl hold arrays.

    Raises:
        SourceError: the file is not JSON, or holds several lists of rows; bad lines of JSON lines are a `BadSample`.
    """
    with open_text(path) as file:
        is_lines = _is_lines(file)
        file.seek(0)
        if is_lines:
            yield from _read_lines(file)
        else:
            yield from enumerate(_read_whole(path, file.read()))


def parse_row(text: str) -> Any:
    """Parse JSON as an import takes it; NaN is an empty cell, as pandas writes it.

    Raises:
        ValueError: it is not JSON, says Infinity, or names a field twice.
        RecursionError: it is nested too deeply.
    """
    return _DECODER.decode(text)


def _constant(name: str) -> None:
    if name != "NaN":
        raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=unique_fields, parse_constant=_constant)


def _is_lines(file: TextIO) -> bool:
    """Whether a file has several lines, and each is a value by itself."""
    first = list(islice(filter(str.strip, file), _FIRST_LINES))
    if len(first) < 2 or first[0].lstrip().startswith("["):
        return False
    try:
        return isinstance(parse_row(first[0]), dict)
    except (ValueError, RecursionError):
        return 2 * sum(line.startswith("{") for line in first) > len(first)


def _read_lines(file: TextIO) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(file):
        if line.strip():
            yield number, _parse_line(number, line)


def _parse_line(number: int, line: str) -> Any:
    if fault := explain_encoding(line, number + 1):
        return bad_row(Reason.INVALID_JSON, fault)
    try:
        return parse_row(line)
    except json.JSONDecodeError as error:
        return bad_row(Reason.INVALID_JSON, f"line {number + 1}, column {error.colno}: {_explain(error)}")
    except RecursionError:
        return bad_row(Reason.INVALID_JSON, f"line {number + 1} is nested too deeply")
    except ValueError as error:
        return bad_row(Reason.INVALID_JSON, f"line {number + 1}: {error}")


def _explain(error: json.JSONDecodeError) -> str:
    before = error.doc[: error.pos].rstrip()[-1:]
    after = error.doc[error.pos :].lstrip()[:1]
    if before == "," and after in ("]", "}", ""):
        return f"{error.msg}: a comma too many stands before it"
    return f"{error.msg}: a comma too many" if error.msg == "Extra data" and after == "," else error.msg


def _read_whole(path: Path, text: str) -> Iterator[Any]:
    if fault := explain_encoding(text):
        raise SourceError(f"{path}, {fault}.")
    position = _skip_blanks(text, 0)
    while position < len(text):
        try:
            value, position = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            where = f"{path} cannot be read, line {error.lineno}, column {error.colno}"
            raise SourceError(f"{where}: {_explain(error)}. Mend the file there.") from None
        position = _skip_blanks(text, position)
        if isinstance(value, dict):
            yield from _unfold(path, value)
        elif isinstance(value, list):
            yield from value
        else:
            yield value


def _skip_blanks(text: str, position: int) -> int:
    blanks = _BLANKS.match(text, position)
    return blanks.end() if blanks else position


def _unfold(path: Path, value: dict[str, Any]) -> list[Any]:
    """Return the rows that an object stands for: often itself."""
    cells = list(value.values())
    if {"columns", "data"} <= value.keys() <= {"columns", "data", "index"}:
        return [dict(zip(value["columns"], row, strict=True)) for row in value["data"]]
    if cells and all(isinstance(cell, dict) and cell for cell in cells):
        return _unfold_objects(value)
    if _are_columns(value):
        return [dict(zip(value, row, strict=True)) for row in zip(*cells, strict=True)]
    known = {*PROMPTS, *ANSWERS, *DIALOGUES, *LISTS}
    lists = [name for name, cell in value.items() if name not in known and _are_rows(cell)]
    if len(lists) > 1:
        raise SourceError(
            f"{path} holds several lists of rows, {lists}. Write the one to import to a file of its own, as "
            f"`jq .{lists[0]} {path.name} > {lists[0]}.json` does."
        )
    if not lists:
        return [value]
    # What stands beside the list belongs to each row.
    beside = {name: cell for name, cell in value.items() if name != lists[0]}
    return [{**beside, **row} for row in value[lists[0]]]


def _unfold_objects(value: Mapping[str, dict[str, Any]]) -> list[Any]:
    """Return rows by a key, such as HA-DPO's images, or columns by the number of a row, as pandas writes them."""
    first, *others = value.values()
    numbers = list(first)
    if all(number.isdecimal() for number in numbers) and all(list(other) == numbers for other in others):
        return [{name: cells[number] for name, cells in value.items()} for number in numbers]
    if not any(name in _COLUMNS for row in value.values() for name in row):
        return [value]
    # In HA-DPO's descriptions the key names the image.
    pair = {"chosen", "rejected"}
    return [{("image_id" if row.keys() == pair else "id"): key, **row} for key, row in value.items()]


_COLUMNS = {*PROMPTS, *ANSWERS, *DIALOGUES, "reject"}


def _are_columns(value: Mapping[str, Any]) -> bool:
    """Whether each cell holds a list of as many cells, and they are no cells of one row."""
    cells = list(value.values())
    if not all(isinstance(cell, list) and cell and len(cell) == len(cells[0]) for cell in cells):
        return False
    if any(isinstance(value[name][0], dict) for name in (*PROMPTS, *ANSWERS, *DIALOGUES) if name in value):
        return False  # Messages of one row.
    is_text = any(isinstance(value[name][0], str) for name in PROMPTS if name in value)
    return is_text or any(isinstance(item, list) for cell in cells for item in cell)


def _are_rows(cell: Any) -> bool:
    """Whether a cell is a list of objects, and not of messages or blocks."""
    return (
        isinstance(cell, list)
        and bool(cell)
        and all(isinstance(row, dict) and not _MESSAGE_FIELDS & row.keys() for row in cell)
    )
