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
_LFS_POINTER = b"version https://git-lfs"


def read_cells(source: Source) -> Iterator[tuple[int, Any]]:
    """Yield number and columns of each row, in the source's own order.

    Raises:
        SourceError: the source is damaged as a whole; single bad rows come as a `BadSample`.
    """
    path = source.path
    if path.is_file():
        with open(path, "rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                fault = "is a Git LFS pointer to the file, not the file: run `git lfs pull` there"
                raise SourceError(f"{path} {fault}.")
    try:
        if source.is_remote:
            yield from _read_dataset(load_hub(path))
        elif path.is_dir():
            yield from _read_dataset(load_from_disk(path))
        else:
            yield from _READERS[table_suffix(path)](path)
    except SourceError:
        raise
    except Exception as error:
        # On broken files readers raise whatever they stumble over: ValueError, OSError, RecursionError, Arrow's own.
        detail = shorten(str(error).rstrip("."), length=300)
        raise SourceError(f"{path} cannot be read: {detail}. Download or write the file again.") from error


def _read_parquet(path: Path) -> Iterator[tuple[int, Any]]:
    with ParquetFile(path, page_checksum_verification=True) as file:
        _check_names(path, file.schema_arrow.names)
        yield from _numbered_rows(file.iter_batches(_BATCH_ROWS))


def _read_arrow(path: Path) -> Iterator[tuple[int, Any]]:
    """Read an Arrow file, or a stream, which is what `datasets` keeps in its cache."""
    with pyarrow.memory_map(str(path)) as data:
        try:
            file = pyarrow.ipc.open_file(data)
            batches: Iterable[pyarrow.RecordBatch] = map(file.get_batch, range(file.num_record_batches))
        except pyarrow.ArrowInvalid:
            data.seek(0)
            batches = file = pyarrow.ipc.open_stream(data)
        _check_names(path, file.schema.names)
        yield from _numbered_rows(batches)


def _check_names(path: Path, names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"{path}: two columns are called {twice}. Rename or remove one of each.")


def _read_dataset(dataset: Dataset) -> Iterator[tuple[int, Any]]:
    """Read a data set in Arrow form, since decoding images would lose their encoded bytes."""
    return _numbered_rows(dataset.with_format("arrow").iter(_BATCH_ROWS))


def _numbered_rows(batches: Iterable[pyarrow.RecordBatch | pyarrow.Table]) -> Iterator[tuple[int, Any]]:
    return enumerate(row for batch in batches for row in batch.to_pylist(maps_as_pydicts="strict"))


_READERS: Mapping[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".json": read_json,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".csv": read_table,
    ".tsv": read_table,
}
