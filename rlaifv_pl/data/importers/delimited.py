"""Rows of CSV and TSV files, with the character that separates cells and the way of quoting found out."""

import csv
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from rlaifv_pl.data.bad_samples import Reason
from rlaifv_pl.data.importers.sources import SourceError, bad_row
from rlaifv_pl.data.importers.text_files import explain_encoding, open_text

_DELIMITERS = ",;\t|"
_MAX_CELL = 2**31 - 1
"""Characters of a cell: it may hold a photo in base64."""
_DIALECTS: tuple[dict[str, Any], ...] = ({}, {"escapechar": "\\", "doublequote": False})
"""Ways of quoting: RFC 4180 doubles a quotation mark inside of a cell, Spark puts a backslash before it."""


def read_table(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield rows under a line of column names; an empty cell is None, and a row of empty cells is no row.

    Raises:
        SourceError: two columns have one name, the file is not in the encoding that it begins with, or its quotation
            marks leave open where cells end.
    """
    csv.field_size_limit(_MAX_CELL)
    skipped, layout = _layout(path)
    with open_text(path, newline="") as file:
        reader = csv.reader(file, **layout)
        rows = (cells for cells in reader if any(map(str.strip, cells)) and reader.line_num > skipped)
        names = [name.strip() for name in next(rows, [])]
        if twice := sorted({name for name in names if name and names.count(name) > 1}):
            raise SourceError(f"{path}: two columns are called {twice}. Rename or remove one of each.")
        for number, cells in enumerate(rows):
            for cell in cells:
                if fault := explain_encoding(cell, reader.line_num):
                    raise SourceError(f"{path}, {fault}.")
            if any(cells[len(names) :]):
                # Nobody knows which cell is which.
                detail = f"line {reader.line_num} has {len(cells)} cells under {len(names)} column names"
                yield number, bad_row(Reason.INVALID_JSON, detail)
            else:
                yield number, {name: cell or None for name, cell in zip_longest(names, cells[: len(names)])}


def _layout(path: Path) -> tuple[int, dict[str, Any]]:
    """Return the number of lines before the column names, and the layout for `csv`."""
    with open_text(path, newline="") as file:
        lines = filter(None, (line.rstrip("\r\n") for line in file))
        header = next(lines, "")
        # Excel's own first line.
        skipped = int(header.lower().startswith("sep=") and len(header) == len("sep=") + 1)
        delimiter = header[-1] if skipped else ""
        header = next(lines, "") if skipped else header
    if not delimiter:
        usual = "\t" if ".tsv" in path.name.lower() else ","
        delimiter = max(usual + _DELIMITERS, key=header.count)
    spaced = delimiter != "\t" and f"{delimiter} " in header
    layout: dict[str, Any] = {"delimiter": delimiter, "skipinitialspace": spaced}
    return skipped, layout | _quoting(path, header, skipped, layout)


def _quoting(path: Path, header: str, skipped: int, layout: dict[str, Any]) -> dict[str, Any]:
    """Find out whether cells are quoted, and how; where they are not, a quotation mark is text.

    Where each line by itself has as many cells as there are column names, one line is one row: quotation marks that
    would join lines are text then. So are those of a TSV file that no cell needs, as no writer puts them there.
    """
    is_tsv = layout["delimiter"] == "\t"
    survey = _survey(path, header, layout["delimiter"], skipped)
    if not survey.marks:
        return {"quoting": csv.QUOTE_NONE}
    dialects = _DIALECTS if '\\"' in survey.marks else _DIALECTS[:1]
    counts = [_count_rows(path, layout | dialect) for dialect in dialects]
    for dialect, (rows, broken_line) in zip(dialects, counts, strict=True):
        if not broken_line:
            is_line_a_row = rows == survey.lines and (not is_tsv or survey.needs_quotes)
            if not survey.is_even or is_line_a_row:
                return {**dialect}
            break
    if survey.is_even or is_tsv:
        return {"quoting": csv.QUOTE_NONE}
    raise SourceError(
        f"{path}, line {counts[0][1]}: a cell begins with a quotation mark and goes on behind the next one, so that "
        "nobody knows where it ends. Double the quotation marks inside of cells, as csv.writer does, or write the "
        "rows as JSON lines."
    )


class _Survey(NamedTuple):
    """A table seen line by line."""

    is_even: bool
    """Whether each line has as many cells as there are column names."""
    lines: int
    """Number of lines with text."""
    marks: set[str]
    """Quotation marks: plain, and behind a backslash."""
    needs_quotes: bool
    """Whether column names are quoted, or a cell whose quotes a writer puts there."""


def _survey(path: Path, header: str, delimiter: str, skipped: int) -> _Survey:
    is_even, lines, marks, needs_quotes = True, 0, set(), False
    with open_text(path, newline="") as file:
        for number, line in enumerate(file):
            if text := line.strip("\r\n"):
                lines += 1
                is_even = is_even and (lines <= skipped or text.count(delimiter) == header.count(delimiter))
                marks |= {mark for mark in ('"', '\\"') if mark in text}
                cells = line.rstrip("\r\n").split(delimiter) if '"' in text and not needs_quotes else ()
                needs_quotes = needs_quotes or any(_is_quoted(cell, number == 0) for cell in cells)
    return _Survey(is_even, lines, marks, needs_quotes)


def _is_quoted(cell: str, is_name: bool) -> bool:
    """Whether a cell has quotation marks that a writer puts there."""
    # Excel quotes a cell with a comma, whatever the file's delimiter.
    is_in_quotes = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return is_in_quotes and (is_name or '""' in cell[1:-1] or "," in cell)


def _count_rows(path: Path, layout: Mapping[str, Any]) -> tuple[int, int]:
    """Return the number of rows, and the line on which one begins that is not quoted like this, or 0."""
    rows = end = 0
    with open_text(path, newline="") as file:
        reader = csv.reader(file, strict=True, **layout)
        try:
            for cells in reader:
                rows, end = rows + bool(cells), reader.line_num
        except csv.Error:
            return rows, end + 1
    return rows, 0
