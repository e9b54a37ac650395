"""Import: sources of any known format to one directory of shards, with an account of what was left out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

from rich.console import Console
from rich.progress import track

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.fields import shorten
from rlaifv_pl.data.importers import llava, rlaifv, trl
from rlaifv_pl.data.importers.rows import Row, Source, SourceError, find_sources, read_rows
from rlaifv_pl.data.importers.turns import simplify
from rlaifv_pl.data.manifest import Manifest, hash_file
from rlaifv_pl.data.schema import check_sample
from rlaifv_pl.data.shard_writer import ShardWriter
from rlaifv_pl.records import Sample

DROPPED_NAME = "dropped.jsonl"
MAX_PRINTED_DROPS = 20

Format = Literal["auto", "trl", "rlaifv", "llava"]
OnBad = Literal["skip", "raise"]


class Family(Protocol):
    """What the module of a family of formats offers."""

    def recognises(self, columns: Mapping[str, Any]) -> bool:
        """Whether a row looks like this family."""

    def read_row(self, row: Row) -> Sample:
        """Turn a row into a sample, or raise `BadSample`."""


# In the order in which `auto` asks them: the most particular first.
FAMILIES: Mapping[str, Family] = {"llava": llava, "rlaifv": rlaifv, "trl": trl}


def import_shards(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    format: Format = "auto",
    images_root: str | Path | None = None,
    on_bad: OnBad = "skip",
    samples_per_shard: int = 1000,
) -> Manifest:
    """Write the rows of sources as shards, in their order.

    Rows that make no good sample are counted by reason in the manifest, and listed with file, row and
    remedy in `<out>/dropped.jsonl`; the first 20 are printed.

    Args:
        sources: parquet, JSON or JSON lines files, directories of such, or saved `datasets`.
        out: the directory of shards to write.
        format: family of the sources; `auto` decides for each source by its first row.
        images_root: folder that image paths start from; by default that of the source.
        on_bad: whether a bad row is skipped, or ends the import.
        samples_per_shard: size of every shard but the last.

    Raises:
        BadSample: a row is bad and `on_bad` is `raise`.
        SourceError: a source has no known format or is damaged as a whole, or not one row is good.
        FileNotFoundError: a source is missing.
        FileExistsError: `out` holds other shards.
    """
    found = find_sources(sources)
    recipe = {
        "verb": "import",
        "sources": [_fingerprint(source) for source in found],
        "format": format,
        "images_root": images_root and str(images_root),
        "on_bad": on_bad,
        "samples_per_shard": samples_per_shard,
    }
    with ShardWriter(out, recipe=recipe, samples_per_shard=samples_per_shard) as writer:
        with atomic_file(writer.directory / DROPPED_NAME) as file:
            account = _Account(writer, file, on_bad)
            for source in found:
                root = source.path.parent if images_root is None else Path(images_root)
                _import_source(source, root, FAMILIES.get(format), account)
        if not account.kept:
            listed = writer.directory / DROPPED_NAME
            raise SourceError(f"not one of the {account.dropped} rows makes a sample: see {listed}.")
    assert writer.manifest is not None
    return writer.manifest


def detect_family(row: Row) -> Family:
    """Tell the family of formats by the columns of a row.

    Raises:
        SourceError: no family knows such rows.
    """
    for family in FAMILIES.values():
        if family.recognises(row.parsed()):
            return family
    raise SourceError(
        f"{row.where}: no known format has the columns {shorten(sorted(row.parsed()), length=200)}. Known are TRL "
        "(prompt, chosen, rejected, images), RLAIF-V (question, chosen, rejected, image) and LLaVA "
        "(conversations, image): rename the columns to one of these."
    )


def _import_source(source: Source, root: Path, family: Family | None, account: "_Account") -> None:
    rows = read_rows(source, root)
    for row in track(
        rows, source.path.name, console=account.console, disable=not account.console.is_terminal
    ):
        try:
            family = family or detect_family(row)
            sample = family.read_row(row)
            check_sample(sample, row.where)
            account.keep(replace(sample, prompt=simplify(sample.prompt)))
        except BadSample as fault:
            account.drop(row, fault)
        except RecursionError:
            account.drop(row, BadSample(Reason.INVALID_JSON, row.where, "the row is nested too deeply"))


def _fingerprint(source: Source) -> dict[str, str]:
    """What the source was: name and SHA-256 of each of its files."""
    files = sorted(source.path.glob("*.arrow")) if source.path.is_dir() else [source.path]
    return {file.name: hash_file(file) for file in files}


@dataclass
class _Account:
    """What became of the rows."""

    writer: ShardWriter
    file: BinaryIO
    on_bad: OnBad
    console: Console = field(default_factory=lambda: Console(stderr=True))
    kept: int = 0
    dropped: int = 0

    def keep(self, sample: Sample) -> None:
        self.writer.write(sample)
        self.kept += 1

    def drop(self, row: Row, fault: BadSample) -> None:
        """Count a row that cannot be used, list it with its remedy, and print it if it is among the first."""
        # What the writer refuses it names by key; a user looks for file and row.
        fault = BadSample(fault.reason, row.where, fault.detail)
        if self.on_bad == "raise":
            raise fault
        self.writer.drop(fault.reason)
        self.dropped += 1
        record = {
            "file": str(row.source.path),
            "row": row.number,
            "reason": fault.reason,
            "detail": fault.detail,
            "remedy": fault.reason.remedy,
        }
        self.file.write(json.dumps(record).encode() + b"\n")
        if self.dropped <= MAX_PRINTED_DROPS:
            self.console.print(f"dropped {fault}", markup=False, highlight=False)
        elif self.dropped == MAX_PRINTED_DROPS + 1:
            self.console.print(f"further drops are only listed in {self.writer.directory / DROPPED_NAME}")
