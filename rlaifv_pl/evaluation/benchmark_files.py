"""Rows of the files that benchmarks come in; what is wrong with one is said with file, line and field."""

import gzip
import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, TypeVar

from rlaifv_pl.errors import UserError

Value = TypeVar("Value")

LONGEST_SHOWN = 60
_KINDS = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


class BenchmarkError(UserError, ValueError):
    """A file of a benchmark, or of responses to it, is not as it must be; the message says where and how."""


@dataclass(frozen=True, slots=True)
class FileRow:
    """One object of a file."""

    fields: Mapping[str, Any]
    where: str
    """File and line, for messages."""

    def get(self, kind: type[Value], *names: str) -> Value:
        """The value of the first of these fields that the row has.

        Raises:
            BenchmarkError: it has none of them, or its value is of another kind.
        """
        name = next((name for name in names if name in self.fields), None)
        if name is None:
            expected = " or ".join(repr(name) for name in names)
            raise self.error(f"expected a field {expected}, got only {sorted(self.fields)}")
        value = self.fields[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.error(f"field {name!r}: expected {_KINDS[kind]}, got {shown(value)}")
        return value

    def key(self, *names: str) -> str:
        """An identity: a text, or a number as text.

        Raises:
            BenchmarkError: as `get`.
        """
        name = next((name for name in names if name in self.fields), names[0])
        return str(self.get(int if isinstance(self.fields.get(name), int) else str, name))

    def one_of(self, choices: Mapping[str, Value], *names: str) -> Value:
        """What a text stands for, in whatever case.

        Raises:
            BenchmarkError: as `get`, or the text is none of the choices.
        """
        text = self.key(*names).strip().lower()
        if text not in choices:
            raise self.error(f"field {names[0]!r}: expected one of {sorted(choices)}, got {shown(text)}")
        return choices[text]

    def error(self, message: str) -> BenchmarkError:
        """What is wrong with this row, and where it stands."""
        return BenchmarkError(f"{self.where}: {message}")


def read_text(path: Path) -> str:
    """A file as text; one that ends in .gz is unpacked.

    Raises:
        BenchmarkError: there is none, or it is no text.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        return data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path} cannot be read: {error}") from error


def read_json(path: Path, kind: type[Value]) -> Value:
    """The one JSON value of a file.

    Raises:
        BenchmarkError: it is no JSON, or not of this kind.
    """
    try:
        value = json.loads(read_text(path))
    except JSONDecodeError as error:
        raise _no_json(path, read_text(path), error) from error
    if not isinstance(value, kind):
        raise BenchmarkError(f"{path}: expected {_KINDS[kind]}, got {shown(value)}")
    return value


def read_file_rows(path: Path) -> list[FileRow]:
    """The objects of a file: JSON lines, objects one behind the other, or a list of them.

    Raises:
        BenchmarkError: something in it is no JSON, or no object.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        listed = enumerate(read_json(path, list))
        found = [(f"{path}, entry {number}", value) for number, value in listed]
    else:
        found = [(f"{path}, line {line}", value) for line, value in _values(text, path)]
    if not found:
        raise BenchmarkError(f"{path}: expected objects, got an empty file")
    return [as_row(value, where) for where, value in found]


def as_row(value: Any, where: str) -> FileRow:
    """A JSON object as a row.

    Raises:
        BenchmarkError: it is no object.
    """
    if not isinstance(value, Mapping):
        raise BenchmarkError(f"{where}: expected an object, got {shown(value)}")
    return FileRow(value, where)


def listed(value: Any, where: str) -> list[Any]:
    """The list that a value is, or the keys of the `counts` beside boxes, as annotations of objects often have them.

    Raises:
        BenchmarkError: it is neither.
    """
    counts = value.get("counts") if isinstance(value, Mapping) else None
    found = list(counts) if isinstance(counts, Mapping) else value
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
        raise BenchmarkError(
            f"{where}: expected a list of names, or an object whose `counts` has them as keys, got {shown(value)}"
        )
    return found


def shown(value: Any) -> str:
    """A value as it stands in a message, cut short."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} ..."


def _values(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """Each JSON value with the line that it begins in."""
    decoder, at, line, counted = JSONDecoder(), 0, 1, 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except JSONDecodeError as error:
            raise _no_json(path, text, error) from error
        yield line, value


def _no_json(path: Path, text: str, error: JSONDecodeError) -> BenchmarkError:
    """What a file is that begins in no JSON, and else where the JSON breaks off."""
    begin, first = text.lstrip().lower(), text.lstrip().splitlines()[:1]
    what = f"an error: {error.msg}"
    if begin.startswith(("<!doctype", "<html", "<?xml")):
        what = "a web page: download the file itself, not the page that shows it"
    elif begin.startswith("version https://git-lfs"):
        what = "a pointer of Git LFS: fetch the file itself with `git lfs pull`"
    elif error.msg == "Extra data":
        what = "one value with more behind it: put all rows into one list"
    elif begin and begin[0] not in '{["':
        what = f"a table or plain text that begins {shown(first[0])}: write a JSON object for each row"
    return BenchmarkError(f"{path}, line {error.lineno}: expected JSON, got {what}")
