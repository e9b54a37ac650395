"""What can be imported from: files, saved `datasets`, the hub; each read lazily, cell by cell as it is."""

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import pyarrow
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from pyarrow.parquet import ParquetFile

from rlaifv_pl.data.fields import shorten
from rlaifv_pl.data.manifest import hash_file
from rlaifv_pl.data.strict_json import unique_fields
from rlaifv_pl.explained import Explained

HUB = "hub:"
"""Begins the name of a data set on the hub."""
_BATCH_ROWS = 64
"""Rows in memory at once: with photos inside, some 10 MB."""
_MAX_STEM_LENGTH = 60
_MAX_CELL = 2**27
"""Characters of a cell in a table: it may hold a photo in base64."""


class SourceError(Explained, ValueError):
    """A source that cannot be imported as a whole; the message says what was seen, and what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of rows, a directory that `datasets` saved, or a data set of the hub."""

    path: Path
    """Of a data set of the hub, `hub:` and its name."""
    stem: str
    """What its keys begin with."""

    @property
    def is_remote(self) -> bool:
        """Whether it is a data set of the hub."""
        return str(self.path).startswith(HUB)


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


def read_cells(source: Source) -> Iterator[tuple[int, Any]]:
    """Number and columns of each row, in the source's own order.

    Raises:
        SourceError: the source is damaged as a whole; single bad lines become rows that do not parse.
    """
    try:
        yield from _reader(source)(source.path)
    except SourceError:
        raise
    except Exception as error:
        # On broken files readers raise whatever they stumble over: ValueError, OSError, RecursionError, Arrow's own.
        detail = shorten(str(error).rstrip("."), length=300)
        raise SourceError(
            f"{source.path} cannot be read: {detail}. Download or write the file again."
        ) from error


def fingerprint(source: Source) -> dict[str, str]:
    """What the source was: name and SHA-256 of each of its files."""
    if source.is_remote:
        files = [Path(file["filename"]) for file in _load_hub(source.path).cache_files]
    elif source.path.is_dir():
        files = sorted(source.path.glob("*.arrow"))
    else:
        files = [source.path]
    return {file.name: hash_file(file) for file in files}


def _expand(path: Path) -> list[Path]:
    if str(path).startswith(HUB) or (path.is_file() and path.suffix.lower() in _READERS):
        return [path]
    if (path / "dataset_info.json").exists():
        return [path]
    if (path / "dataset_dict.json").exists():
        splits = sorted(inner.parent.name for inner in path.glob("*/dataset_info.json"))
        raise FileNotFoundError(f"{path} holds the splits {splits}. Import one of them.")
    files = [file for file in sorted(path.glob("*")) if file.suffix.lower() in _READERS and file.is_file()]
    if not files:
        raise FileNotFoundError(
            f"{path} is no file ending in {', '.join(_READERS)}, no directory of such files, and no directory "
            f"written by `Dataset.save_to_disk`. Check the path; a data set of the hub is {HUB}OWNER/NAME."
        )
    return files


def _reader(source: Source) -> Callable[[Path], Iterator[tuple[int, Any]]]:
    if source.is_remote:
        return _read_hub
    return _read_saved if source.path.is_dir() else _READERS[source.path.suffix.lower()]


def _read_parquet(path: Path) -> Iterator[tuple[int, Any]]:
    with ParquetFile(path, page_checksum_verification=True) as file:
        yield from enumerate(_plain_rows(file.iter_batches(_BATCH_ROWS)))


def _read_saved(path: Path) -> Iterator[tuple[int, Any]]:
    dataset = load_from_disk(path)
    assert not isinstance(dataset, DatasetDict), "find_sources refuses these"
    yield from _read_dataset(dataset)


def _read_hub(path: Path) -> Iterator[tuple[int, Any]]:
    yield from _read_dataset(_load_hub(path))


def _load_hub(path: Path) -> Dataset:
    """The data set of `hub:NAME`, `hub:NAME:SPLIT` or `hub:NAME:CONFIG:SPLIT`."""
    name, *config = str(path).removeprefix(HUB).split(":")
    try:
        found = load_dataset(name, *config[:-1], split=config[-1] if config else None)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be had: {error}. Check name, network and credentials.") from error
    splits = {"": found} if config else dict(found)
    first, *others = splits
    if others:
        raise SourceError(f"{path} holds the splits {[*splits]}. Import one of them, as {path}:{first}.")
    return splits[first]


def _read_dataset(dataset: Dataset) -> Iterator[tuple[int, Any]]:
    """In Arrow form, since decoding images would lose their encoded bytes."""
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


def _read_table(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows under a line of column names; an empty cell is none."""
    csv.field_size_limit(_MAX_CELL)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with open(path, encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file, delimiter=delimiter, restkey="")):
            # More cells than names: nobody knows which is which.
            yield number, delimiter.join(row[""]) if "" in row else {k: v or None for k, v in row.items()}


_READERS = {
    ".parquet": _read_parquet,
    ".json": _read_json,
    ".jsonl": _read_json,
    ".csv": _read_table,
    ".tsv": _read_table,
}
