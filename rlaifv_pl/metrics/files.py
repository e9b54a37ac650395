"""Rows of the files that benchmarks come in; what is wrong with one is said with file, line and field."""

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, TypeVar

from rlaifv_pl.explained import Explained

Value = TypeVar("Value")

LONGEST_SHOWN = 60
_KINDS = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


class BenchmarkError(Explained, ValueError):
    """A file of a benchmark, or of responses to it, is not as it must be; the message says where and how."""


@dataclass(frozen=True, slots=True)
class Row:
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
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
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
        raise BenchmarkError(
            f"{path}, line {error.lineno}: expected JSON, got an error: {error.msg}"
        ) from error
    if not isinstance(value, kind):
        raise BenchmarkError(f"{path}: expected {_KINDS[kind]}, got {shown(value)}")
    return value


def read_rows(path: Path) -> list[Row]:
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


def as_row(value: Any, where: str) -> Row:
    """A JSON object as a row.

    Raises:
        BenchmarkError: it is no object.
    """
    if not isinstance(value, Mapping):
        raise BenchmarkError(f"{where}: expected an object, got {shown(value)}")
    return Row(value, where)


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
            raise BenchmarkError(
                f"{path}, line {error.lineno}: expected JSON, got an error: {error.msg}"
            ) from error
        yield line, value
