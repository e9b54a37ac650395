"""Rows of a source, read lazily by its kind of file, cell by cell as they are."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
from datasets import Dataset, load_from_disk
from pyarrow.parquet import ParquetFile

from rlaifv_pl.data.importers.delimited import read_table
from rlaifv_pl.data.importers.json_rows import read_json
from rlaifv_pl.data.importers.sources import Source, SourceError, load_hub, table_suffix
from rlaifv_pl.data.sample_json import shorten

_BATCH_ROWS = 64
"""Rows in memory at once: with photos inside, some 10 MB."""
_POINTER = b"version https://git-lfs"


def read_cells(source: Source) -> Iterator[tuple[int, Any]]:
    """Number and columns of each row, in the source's own order.

    Raises:
        SourceError: the source is damaged as a whole; single bad rows come as `Damaged`.
    """
    if _is_pointer(source.path):
        raise SourceError(
            f"{source.path} is a Git LFS pointer to the file, not the file: run `git lfs pull` there."
        )
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


def _is_pointer(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def _reader(source: Source) -> Callable[[Path], Iterator[tuple[int, Any]]]:
    if source.is_remote:
        return _read_hub
    return _read_saved if source.path.is_dir() else _READERS[table_suffix(source.path)]


def _read_parquet(path: Path) -> Iterator[tuple[int, Any]]:
    with ParquetFile(path, page_checksum_verification=True) as file:
        _check_names(path, file.schema_arrow.names)
        yield from enumerate(_plain_rows(file.iter_batches(_BATCH_ROWS)))


def _read_arrow(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows of an Arrow file, or of a stream, which is what `datasets` keeps in its cache."""
    with pyarrow.memory_map(str(path)) as data:
        try:
            file = pyarrow.ipc.open_file(data)
            batches: Iterable[pyarrow.RecordBatch] = map(file.get_batch, range(file.num_record_batches))
        except pyarrow.ArrowInvalid:
            data.seek(0)
            batches = file = pyarrow.ipc.open_stream(data)
        _check_names(path, file.schema.names)
        yield from enumerate(_plain_rows(batches))


def _check_names(path: Path, names: list[str]) -> None:
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise SourceError(f"{path}: two columns are called {twice}. Rename or remove one of each.")


def _read_saved(path: Path) -> Iterator[tuple[int, Any]]:
    dataset = load_from_disk(path)
    assert isinstance(dataset, Dataset), "find_sources refuses dictionaries of them"
    yield from _read_dataset(dataset)


def _read_hub(path: Path) -> Iterator[tuple[int, Any]]:
    yield from _read_dataset(load_hub(path))


def _read_dataset(dataset: Dataset) -> Iterator[tuple[int, Any]]:
    """In Arrow form, since decoding images would lose their encoded bytes."""
    yield from enumerate(_plain_rows(dataset.with_format("arrow").iter(_BATCH_ROWS)))


def _plain_rows(batches: Iterable[pyarrow.RecordBatch | pyarrow.Table]) -> Iterator[dict[str, Any]]:
    return (row for batch in batches for row in batch.to_pylist(maps_as_pydicts="strict"))


_READERS: Mapping[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".json": read_json,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".csv": read_table,
    ".tsv": read_table,
}
