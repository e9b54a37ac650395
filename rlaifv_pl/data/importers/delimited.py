"""Rows of CSV and TSV files: which character separates their cells, and whether quotation marks belong to the text."""

import csv
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rlaifv_pl.data.bad_samples import Reason
from rlaifv_pl.data.importers.sources import SourceError, bad_row
from rlaifv_pl.data.importers.text_files import explain_encoding, open_text

_DELIMITERS = ",;\t|"
_LONGEST_CELL = 2**31 - 1
"""Characters of a cell: it may hold a photo in base64."""
_DIALECTS: tuple[dict[str, Any], ...] = ({}, {"escapechar": "\\", "doublequote": False})
"""How writers quote: RFC 4180 doubles a quotation mark inside of a cell, Spark puts a backslash before it."""


def read_table(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows under a line of column names; an empty cell is none, and so is a row of empty cells.

    Raises:
        SourceError: two columns have one name, the file is not in the encoding that it begins with, or its quotation
            marks leave open where cells end.
    """
    csv.field_size_limit(_LONGEST_CELL)
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
    """Number of lines before the column names, and how `csv` is to read the file."""
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
    """Tell whether cells are quoted, and how; where they are not, a quotation mark is text.

    Where each line by itself has as many cells as there are column names, one line is one row: quotation marks that
    would join lines are text then. So are those of a TSV file that no cell needs, as no writer puts them there.
    """
    delimiter = layout["delimiter"]
    is_even, lines, marks = _survey(path, delimiter, header.count(delimiter) + 1, skipped)
    if not marks:
        return {"quoting": csv.QUOTE_NONE}
    dialects = _DIALECTS if '\\"' in marks else _DIALECTS[:1]
    counts = [_count_rows(path, layout | dialect) for dialect in dialects]
    for dialect, (rows, broken) in zip(dialects, counts, strict=True):
        if broken:
            continue
        if not is_even or (rows == lines and (delimiter != "\t" or _needs_quotes(path))):
            return {**dialect}
        break
    if is_even or delimiter == "\t":
        return {"quoting": csv.QUOTE_NONE}
    raise SourceError(
        f"{path}, line {counts[0][1]}: a cell begins with a quotation mark and goes on behind the next one, so that "
        "nobody knows where it ends. Double the quotation marks inside of cells, as csv.writer does, or write the "
        "rows as JSON lines."
    )


def _survey(path: Path, delimiter: str, width: int, skipped: int) -> tuple[bool, int, set[str]]:
    """Whether each line has as many cells, the number of lines with text, and which quotation marks there are."""
    is_even, lines, marks = True, 0, set()
    with open_text(path, newline="") as file:
        for line in file:
            if line.strip("\r\n"):
                lines += 1
                is_even = is_even and (lines <= skipped or line.count(delimiter) + 1 == width)
                marks |= {mark for mark in ('"', '\\"') if mark in line}
    return is_even, lines, marks


def _count_rows(path: Path, layout: Mapping[str, Any]) -> tuple[int, int]:
    """Number of rows, and the line on which one begins that is not quoted like this, or 0."""
    rows = end = 0
    with open_text(path, newline="") as file:
        reader = csv.reader(file, strict=True, **layout)
        try:
            for cells in reader:
                rows, end = rows + bool(cells), reader.line_num
        except csv.Error:
            return rows, end + 1
    return rows, 0


def _needs_quotes(path: Path) -> bool:
    """Whether a TSV file with one row a line has quoted column names, or a cell whose quotes a writer puts there."""
    with open_text(path, newline="") as file:
        for number, line in enumerate(file):
            for cell in line.rstrip("\r\n").split("\t"):
                is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
                # Excel quotes a cell with a comma, whatever the file's delimiter.
                if is_quoted and (number == 0 or '""' in cell[1:-1] or "," in cell):
                    return True
    return False
