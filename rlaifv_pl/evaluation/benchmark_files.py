"""Files of benchmarks: rows of JSON, read with errors that name file, line and field, and written."""

import gzip
import json
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, TypeVar

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.errors import UserError

Value = TypeVar("Value")

MAX_SHOWN = 60
"""Characters of a value that a message quotes."""
_KINDS = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


class BenchmarkError(UserError, ValueError):
    """A file of a benchmark, or of responses to it, cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class FileRow:
    """One object of a file."""

    fields: Mapping[str, Any]
    where: str
    """File and line, for messages."""

    def get(self, kind: type[Value], *names: str) -> Value:
        """Return the value of the first of these fields that the row has.

        Raises:
            BenchmarkError: the row has none of them, or the value is of another kind.
        """
        name = next((name for name in names if name in self.fields), None)
        if name is None:
            expected = " or ".join(repr(name) for name in names)
            raise self.error(f"expected a field {expected}, got only {sorted(self.fields)}")
        value = self.fields[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.error(f"field {name!r}: expected {_KINDS[kind]}, got {shown(value)}")
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of texts.

        Raises:
            BenchmarkError: as `get`, or an entry is no text.
        """
        values = self.get(list, name)
        if not all(isinstance(value, str) for value in values):
            raise self.error(f"field {name!r}: expected a list of texts, got {shown(values)}")
        return values

    def key(self, *names: str) -> str:
        """Return an identity: a text, or a whole number as text.

        Raises:
            BenchmarkError: as `get`.
        """
        name = next((name for name in names if name in self.fields), names[0])
        return str(self.get(int if isinstance(self.fields.get(name), int) else str, name))

    def one_of(self, choices: Mapping[str, Value], name: str) -> Value:
        """Return what a text stands for, whatever its case.

        Raises:
            BenchmarkError: as `get`, or the text is none of the choices.
        """
        text = self.key(name).strip().lower()
        if text not in choices:
            raise self.error(f"field {name!r}: expected one of {sorted(choices)}, got {shown(text)}")
        return choices[text]

    def error(self, message: str) -> BenchmarkError:
        """Return an error that says where the row is."""
        return BenchmarkError(f"{self.where}: {message}")


def read_text(path: Path) -> str:
    """Read a file as text; one that ends in .gz is unpacked.

    Raises:
        BenchmarkError: there is no such file, or it is no text.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        return data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except IsADirectoryError as error:
        raise BenchmarkError(f"{path} cannot be read: expected a file, got a directory") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BenchmarkError(f"{path} cannot be read: there is no such file") from error
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise BenchmarkError(f"{path} cannot be read: {error}") from error


def read_json(path: Path, kind: type[Value]) -> Value:
    """Read the one JSON value of a file.

    Raises:
        BenchmarkError: it is no JSON, or not of this kind.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except JSONDecodeError as error:
        raise _not_json(path, text, error) from error
    if not isinstance(value, kind):
        raise BenchmarkError(f"{path}: expected {_KINDS[kind]}, got {shown(value)}")
    return value


def read_file_rows(path: Path) -> list[FileRow]:
    """Read the objects of a file: JSON lines, objects one behind the other, or a list of them; at least one.

    Raises:
        BenchmarkError: something in it is no JSON, or no object, or it is empty.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        values = [(f"{path}, entry {number}", value) for number, value in enumerate(read_json(path, list))]
    else:
        values = [(f"{path}, line {line}", value) for line, value in _values(text, path)]
    if not values:
        raise BenchmarkError(f"{path}: expected objects, got an empty file")
    return [as_row(value, where) for where, value in values]


def write_rows(path: Path, rows: Sequence[Mapping[str, object]], *, as_list: bool = False) -> None:
    """Write objects as JSON lines, or as one JSON list."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = json.dumps(rows, indent=1, ensure_ascii=False) if as_list else "\n".join(lines)
    with atomic_file(path) as file:
        file.write(f"{text}\n".encode())


def as_row(value: Any, where: str) -> FileRow:
    """Return a JSON object as a row.

    Raises:
        BenchmarkError: it is no object.
    """
    if not isinstance(value, Mapping):
        raise BenchmarkError(f"{where}: expected an object, got {shown(value)}")
    return FileRow(value, where)


def inner_rows(row: FileRow, name: str) -> list[FileRow]:
    """Return the objects of a list that a row holds.

    Raises:
        BenchmarkError: there is no such list, or an entry is no object.
    """
    return [
        as_row(value, f"{row.where}, {name}[{number}]") for number, value in enumerate(row.get(list, name))
    ]


def object_names(value: Any, where: str) -> list[str]:
    """Return a list of names, or the keys of the `counts` beside boxes that annotations of objects often have.

    Raises:
        BenchmarkError: it is neither.
    """
    counts = value.get("counts") if isinstance(value, Mapping) else None
    names = list(counts) if isinstance(counts, Mapping) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise BenchmarkError(
            f"{where}: expected a list of names, or an object whose `counts` has them as keys, got {shown(value)}"
        )
    return names


def number_or_text(key: str) -> int | str:
    """Return a key as official files have it: a whole number where it is one."""
    return int(key) if key.isdecimal() else key


def shown(value: Any) -> str:
    """Return a value as messages quote it, cut short."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} ..."


def _values(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """Yield each JSON value with the line that it begins in."""
    decoder, at, line, counted = JSONDecoder(), 0, 1, 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except JSONDecodeError as error:
            raise _not_json(path, text, error) from error
        yield line, value


def _not_json(path: Path, text: str, error: JSONDecodeError) -> BenchmarkError:
    """Say what a file is that does not begin with JSON, or where its JSON breaks off."""
    start, first = text.lstrip().lower(), text.lstrip().splitlines()[:1]
    problem = f"an error: {error.msg}"
    if not start:
        problem = "an empty file"
    elif start.startswith(("<!doctype", "<html", "<?xml")):
        problem = "a web page: download the file itself, not the page that shows it"
    elif start.startswith("version https://git-lfs"):
        problem = "a pointer of Git LFS: fetch the file itself with `git lfs pull`"
    elif error.msg == "Extra data":
        problem = "one value with more behind it: put all rows into one list"
    elif start[0] not in '{["':
        problem = f"a table or plain text that begins {shown(first[0])}: write a JSON object for each row"
    return BenchmarkError(f"{path}, line {error.lineno}: expected JSON, got {problem}")
