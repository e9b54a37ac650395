"""A source of rows (a file, a saved `datasets`, a data set of the hub), and the errors of sources and rows."""

from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, load_dataset

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.text_files import COMPRESSIONS
from rlaifv_pl.data.manifest import hash_file
from rlaifv_pl.errors import UserError

HUB = "hub:"
"""Prefix of the name of a data set on the hub."""
SUFFIXES = (".parquet", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".arrow")


class SourceError(UserError, ValueError):
    """A source that cannot be imported as a whole; the message says what was seen, and what to do."""


def bad_row(reason: Reason, detail: str) -> BadSample:
    """Make the error of a row; `SourceRow.locate` adds file and row to it."""
    return BadSample(reason, "", detail)


@dataclass(frozen=True, slots=True)
class Source:
    """A file of rows, a directory that `datasets` saved, or a data set of the hub."""

    path: Path
    """Path, or `hub:` and the name of a data set."""
    stem: str
    """Prefix of the keys of its samples."""

    @property
    def is_remote(self) -> bool:
        """Whether it is a data set of the hub."""
        return str(self.path).startswith(HUB)


def table_suffix(path: Path) -> str:
    """Return the suffix that selects the reader, without that of a compression; empty for any other file."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else ""


def source_hash(source: Source) -> dict[str, str]:
    """Return name and SHA-256 of each file of a source."""
    if source.is_remote:
        files = [Path(file["filename"]) for file in load_hub(source.path).cache_files]
    elif source.path.is_dir():
        files = sorted(source.path.glob("*.arrow"))
    else:
        files = [source.path]
    return {file.name: hash_file(file) for file in files}


def load_hub(path: Path) -> Dataset:
    """Load the data set of `hub:NAME`, `hub:NAME:SPLIT` or `hub:NAME:CONFIG:SPLIT`.

    Raises:
        SourceError: it cannot be had, or has several splits.
    """
    name, *config = str(path).removeprefix(HUB).split(":")
    try:
        loaded = load_dataset(name, *config[:-1], split=config[-1] if config else None)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be had: {error}. Check name, network and credentials.") from error
    if isinstance(loaded, Dataset):
        return loaded
    splits = {str(split): dataset for split, dataset in loaded.items()}
    first, *others = splits
    if others:
        raise SourceError(f"{path} holds the splits {[*splits]}. Import one of them, as {path}:{first}.")
    return splits[first]
