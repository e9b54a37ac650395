"""The rows of a source file, one by one, each knowing where it comes from."""

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import pyarrow
from datasets import DatasetDict, load_from_disk
from pyarrow.parquet import ParquetFile

from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.fields import shorten
from rlaifv_pl.data.importers.pictures import load_pictures
from rlaifv_pl.data.strict_json import unique_fields

FILE_SUFFIXES = (".parquet", ".json", ".jsonl")
_BATCH_ROWS = 64
"""Rows in memory at once: with photos inside, some 10 MB."""
_MAX_STEM_LENGTH = 60


class SourceError(ValueError):
    """A source cannot be read, or no importer knows what it holds; the message names it, and what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of rows, or a directory that `datasets` saved, with the name that its keys begin with."""

    path: Path
    stem: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source."""

    columns: Any
    """An object, unless the source is broken here; `parsed` checks."""
    source: Source
    number: int
    """Counted from 0; in JSON lines, the line."""
    images_root: Path

    @property
    def key(self) -> str:
        """Key of its sample."""
        return f"{self.source.stem}_{self.number:08d}"

    @property
    def where(self) -> str:
        """File and row, for messages."""
        return f"{self.source.path}, row {self.number}"

    def parsed(self) -> Mapping[str, Any]:
        """The columns.

        Raises:
            BadSample: `invalid_json` if the row is no object.
        """
        if not isinstance(self.columns, Mapping):
            detail = f"expected a JSON object, got {shorten(self.columns)}"
            raise BadSample(Reason.INVALID_JSON, self.where, detail)
        return self.columns

    def require(self, column: str) -> Any:
        """The value of a column.

        Raises:
            BadSample: `missing_field` if there is no such column, or nothing in it.
        """
        value = self.parsed().get(column)
        if value is None:
            detail = f"there is no {column!r} among the columns {shorten(sorted(self.parsed()), length=200)}"
            raise BadSample(Reason.MISSING_FIELD, self.where, detail)
        return value

    def pictures(self, *columns: str) -> tuple[bytes, ...]:
        """The images of the first of these columns that holds any.

        Raises:
            BadSample: as `load_pictures`.
        """
        for column in columns:
            if pictures := load_pictures(self.parsed().get(column), self.images_root, self.where):
                return pictures
        return ()

    def provenance(self, *columns: str) -> dict[str, Any]:
        """Source and row, and what the row itself says about its origin."""
        told = {name: value for name in columns if (value := self.parsed().get(name)) is not None}
        return {"source": self.source.path.name, "row": self.number, **told}


def find_sources(paths: Sequence[str | Path]) -> list[Source]:
    """List the files to read: directories are expanded in alphabetical order, the rest stays in order.

    Raises:
        FileNotFoundError: a path does not exist, or a directory holds nothing to import.
    """
    files = [file for path in paths for file in _expand(Path(path))]
    sources: dict[str, Source] = {}
    for file in files:
        stem = re.sub(r"[^a-z0-9_-]+", "_", file.stem.lower())[:_MAX_STEM_LENGTH]
        names = chain([stem], (f"{stem}-{number}" for number in count(2)))
        name = next(name for name in names if name not in sources)
        sources[name] = Source(file, name)
    return list(sources.values())


def read_rows(source: Source, images_root: Path) -> Iterator[Row]:
    """Read a source lazily, in its own order.

    Raises:
        SourceError: the file is damaged as a whole; single bad lines become rows that do not parse.
    """
    reader = _read_saved if source.path.is_dir() else _READERS[source.path.suffix.lower()]
    try:
        for number, columns in reader(source.path):
            yield Row(columns, source, number, images_root)
    except Exception as error:
        # On broken files readers raise whatever they stumble over: ValueError, OSError, RecursionError, Arrow's own.
        detail = shorten(str(error).rstrip("."), length=300)
        raise SourceError(
            f"{source.path} cannot be read: {detail}. Download or write the file again."
        ) from error


def _expand(path: Path) -> list[Path]:
    if path.is_file() and path.suffix.lower() in FILE_SUFFIXES:
        return [path]
    if (path / "dataset_info.json").exists():
        return [path]
    if (path / "dataset_dict.json").exists():
        splits = sorted(inner.parent.name for inner in path.glob("*/dataset_info.json"))
        raise FileNotFoundError(f"{path} holds the splits {splits}. Import one of them.")
    files = [
        file for file in sorted(path.glob("*")) if file.suffix.lower() in FILE_SUFFIXES and file.is_file()
    ]
    if not files:
        raise FileNotFoundError(
            f"{path} is no file ending in {', '.join(FILE_SUFFIXES)}, no directory of such files, and no "
            "directory written by `Dataset.save_to_disk`. Check the path."
        )
    return files


def _read_parquet(path: Path) -> Iterator[tuple[int, Any]]:
    with ParquetFile(path, page_checksum_verification=True) as file:
        yield from enumerate(_plain_rows(file.iter_batches(_BATCH_ROWS)))


def _read_saved(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows of a saved dataset. In Arrow form, since decoding images would lose their encoded bytes."""
    dataset = load_from_disk(path)
    assert not isinstance(dataset, DatasetDict), "find_sources refuses these"
    yield from enumerate(_plain_rows(dataset.with_format("arrow").iter(_BATCH_ROWS)))


def _plain_rows(batches: Iterable[pyarrow.RecordBatch | pyarrow.Table]) -> Iterator[dict[str, Any]]:
    return (row for batch in batches for row in batch.to_pylist())


def _read_json(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows of a JSON array or of JSON lines, whatever the suffix says: RLAIF-V's .jsonl hold arrays."""
    with open(path, "rb") as file:
        first = file.read(1024).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        file.seek(0)
        if first == b"[":
            yield from enumerate(json.load(file, object_pairs_hook=unique_fields))
        else:
            yield from _read_lines(file)


def _read_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line, object_pairs_hook=unique_fields)
        except (ValueError, RecursionError):
            yield number, line.decode(errors="replace")


_READERS = {".parquet": _read_parquet, ".json": _read_json, ".jsonl": _read_json}
