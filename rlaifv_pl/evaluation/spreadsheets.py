"""Tables with a header row: tab-separated, comma-separated, or the first sheet of an Excel workbook.

A workbook is a zip of XML, of which little is needed here: texts and numbers in rows.
"""

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, read_file_rows, read_text

_SEPARATORS = {".tsv": "\t", ".csv": ","}
_NAMESPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_SHEET = "xl/worksheets/sheet1.xml"
_STRINGS = "xl/sharedStrings.xml"
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")
"""Excel's form of a character that XML cannot hold, and of what looks like that."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""Characters that XML cannot hold."""

_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_TYPES = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_FRAME = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPES}.sheet.main+xml"/>'
    f'<Override PartName="/{_SHEET}" ContentType="{_TYPES}.worksheet+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_RELATIONS}"><Relationship Id="rId1" Type="{_OFFICE}/officeDocument" '
    'Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_NAMESPACE[1:-1]}" xmlns:r="{_OFFICE}"><sheets><sheet name="Sheet1" '
    'sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_RELATIONS}"><Relationship Id="rId1" '
    f'Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
}
"""The other files of a workbook of one sheet."""


def read_table(path: Path) -> list[FileRow]:
    """Read the rows of a table as texts, or of a file of JSON objects as they are.

    Raises:
        BenchmarkError: the file is not what its ending says.
    """
    if path.suffix == ".xlsx":
        lines = _workbook(path)
    elif path.suffix in _SEPARATORS:
        text = read_text(path)
        csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=_SEPARATORS[path.suffix]))
    else:
        return read_file_rows(path)
    if len(lines) < 2:
        raise BenchmarkError(f"{path}: expected a header and rows below it, got {len(lines)} lines")
    head, *body = lines
    # Cells at the end of a line that hold nothing may not be there.
    padded = ([*line, *[""] * (len(head) - len(line))] for line in body)
    return [
        FileRow(dict(zip(head, line, strict=False)), f"{path}, row {number}")
        for number, line in enumerate(padded, start=2)
    ]


def write_xlsx(file: BinaryIO, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of one kind as a workbook; whole numbers stay numbers."""
    lines: list[list[object]] = [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []
    cells = "".join(f"<row>{''.join(map(_cell, line))}</row>" for line in lines)
    sheet = f'<worksheet xmlns="{_NAMESPACE[1:-1]}"><sheetData>{cells}</sheetData></worksheet>'
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as book:
        for name, content in {**_FRAME, _SHEET: sheet}.items():
            # A fixed date: equal rows make equal bytes.
            book.writestr(zipfile.ZipInfo(name), _HEAD + content, zipfile.ZIP_DEFLATED)


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f"<c><v>{value}</v></c>"
    text = escape(_CONTROL.sub(" ", str(value)))
    return f'<c t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'


def _workbook(path: Path) -> list[list[str]]:
    try:
        with zipfile.ZipFile(path) as book:
            strings = ElementTree.fromstring(book.read(_STRINGS)) if _STRINGS in book.namelist() else ()
            sheet = ElementTree.fromstring(book.read(_SHEET))
    except (OSError, KeyError, zipfile.BadZipFile, ElementTree.ParseError) as error:
        raise BenchmarkError(f"{path}: expected an Excel workbook, got an error: {error}") from error
    shared = [_ESCAPED.sub(lambda found: chr(int(found[1], 16)), _text(entry)) for entry in strings]
    return [_line(row, shared) for row in sheet.iter(f"{_NAMESPACE}row")]


def _line(row: Iterable[ElementTree.Element], shared: Sequence[str]) -> list[str]:
    cells: list[str] = []
    for cell in row:
        place = _column(cell.get("r"), len(cells))
        cells += [""] * (place - len(cells))
        value = _text(cell)
        cells.append(shared[int(value)] if cell.get("t") == "s" else value)
    return cells


def _column(reference: str | None, following: int) -> int:
    """Return the column of a cell such as AB12, counted from 0; the next one if the cell names none.

    >>> _column("A1", 5), _column("AB12", 5), _column(None, 5)
    (0, 27, 5)
    """
    number = 0
    for letter in (reference or "").rstrip("0123456789"):
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1 if number else following


def _text(element: ElementTree.Element) -> str:
    """Return all text and the value below an element, without the reading aids of East Asian texts."""
    parts = [f"{_NAMESPACE}t", f"{_NAMESPACE}v"]
    aids = {part for aid in element.iter(f"{_NAMESPACE}rPh") for part in aid.iter()}
    return "".join(part.text or "" for part in element.iter() if part.tag in parts and part not in aids)
