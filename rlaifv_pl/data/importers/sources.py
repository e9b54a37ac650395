"""What can be imported from: a file, a saved `datasets`, a data set of the hub."""

from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, load_dataset

from rlaifv_pl.data.importers.text_files import COMPRESSIONS
from rlaifv_pl.data.manifest import hash_file
from rlaifv_pl.errors import UserError

HUB = "hub:"
"""Begins the name of a data set on the hub."""
SUFFIXES = (".parquet", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".arrow")


class SourceError(UserError, ValueError):
    """A source that cannot be imported as a whole; the message says what was seen, and what to do."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A row that could not be read."""

    detail: str
    """Line and fault."""


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


def table_suffix(path: Path) -> str:
    """The suffix that tells how a file is read, less that of its compression; empty for any other file."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else ""


def source_hash(source: Source) -> dict[str, str]:
    """What the source was: name and SHA-256 of each of its files."""
    if source.is_remote:
        files = [Path(file["filename"]) for file in load_hub(source.path).cache_files]
    elif source.path.is_dir():
        files = sorted(source.path.glob("*.arrow"))
    else:
        files = [source.path]
    return {file.name: hash_file(file) for file in files}


def load_hub(path: Path) -> Dataset:
    """The data set of `hub:NAME`, `hub:NAME:SPLIT` or `hub:NAME:CONFIG:SPLIT`.

    Raises:
        SourceError: it cannot be had, or has several splits.
    """
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
