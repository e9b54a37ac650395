"""Import: sources of any known format to one directory of shards, with an account of what was left out."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

from rich.console import Console
from rich.progress import track

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.importers.columns import Columns
from rlaifv_pl.data.importers.finding import find_sources
from rlaifv_pl.data.importers.formats import (
    FIRST_ROWS,
    FORMATS,
    Format,
    FormatName,
    detect_format,
    gather,
    refuse_misspelt,
)
from rlaifv_pl.data.importers.names import PROMPTS
from rlaifv_pl.data.importers.rows import Row, read_rows
from rlaifv_pl.data.importers.sources import Source, SourceError, fingerprint
from rlaifv_pl.data.importers.turns import simplify
from rlaifv_pl.data.importers.unread import misspelt, refuse_meaning, says_otherwise, unread
from rlaifv_pl.data.manifest import Manifest
from rlaifv_pl.data.schema import check_sample
from rlaifv_pl.data.shard_writer import ShardWriter
from rlaifv_pl.data.texts import without_ends
from rlaifv_pl.records import Sample

ENDS_NOTE = "end_tokens_removed"
"""Name of the manifest's note on samples whose answers ended in an end token already."""
SHARED_NOTE = "shared_images"
"""Name of the manifest's note on images that are links: how many, and the bytes that they would have taken."""
FORMATS_NOTE = "formats"
"""Rows by the format that they were read as."""
UNREAD_NOTE = "columns_not_read"
"""Rows by the columns, with something in them, that were not read."""
CONTRADICTED_NOTE = "rejected_scored_higher"
"""Rows whose own scores say that the rejected answer is the better one."""
DROPPED_NAME = "dropped.jsonl"
MAX_PRINTED_DROPS = 20

OnBad = Literal["skip", "raise"]


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How rows become shards.

    Args:
        format: of the sources; `auto` tells it for each source by the columns of its first rows.
        keys: columns under other names, as `prompt=query,chosen=good`: ours, and that of the source.
        prompt: question of rows that have none, such as HA-DPO's descriptions.
        ignore: columns that are knowingly left behind, as `margin,tools`, where one would be asked about or refused.
        images_root: folder that image paths start from and must not leave; by default that of the source.
        fetch: whether images behind URLs are fetched. A row could name any address that this machine reaches.
        on_bad: whether a bad row is skipped and listed in `<out>/dropped.jsonl`, or ends the import.
        samples_per_shard: size of every shard but the last.
        overwrite: whether shards of another import in `out` are replaced.
        share_images: whether an image that a shard holds already is stored as a link to it, which `webdataset` skips.
    """

    format: FormatName = "auto"
    keys: str | None = None
    prompt: str | None = None
    ignore: str | None = None
    images_root: str | Path | None = None
    fetch: bool = False
    on_bad: OnBad = "skip"
    samples_per_shard: int = 1000
    overwrite: bool = False
    share_images: bool = True


def import_shards(sources: Sequence[str | Path], out: str | Path, **options: Any) -> Manifest:
    """Write the rows of sources as shards, in their order.

    Rows that make no good sample are counted by reason in the manifest, and listed with file, row and
    remedy in `<out>/dropped.jsonl`; the first 20 are printed.

    Args:
        sources: parquet, JSON, JSON lines, CSV or TSV files, directories of such, saved `datasets`, or
            `hub:OWNER/NAME`.
        out: the directory of shards to write.
        options: as of ImportOptions.

    Raises:
        BadSample: a row is bad and `on_bad` is `raise`.
        SourceError: a source has no known format or is damaged as a whole, or not one row is good.
        FileNotFoundError: a source is missing.
        FileExistsError: `out` holds other shards.
    """
    settings = ImportOptions(**options)
    columns = Columns.parse(settings.keys, settings.prompt, settings.ignore)
    found = find_sources(sources)
    recipe = {
        "verb": "import",
        "sources": _fingerprints(found),
        **asdict(settings),
        "images_root": settings.images_root and str(settings.images_root),
    }
    del recipe["overwrite"]  # It decides on what was there, not on the samples.
    with ShardWriter(
        out,
        recipe=recipe,
        samples_per_shard=settings.samples_per_shard,
        share_images=settings.share_images,
        overwrite=settings.overwrite,
    ) as writer:
        with atomic_file(writer.directory / DROPPED_NAME) as file:
            account = _Account(writer, file, settings.on_bad)
            for source in found:
                _import_source(source, settings, columns, account)
        account.note()
        if not account.kept:
            listed = writer.directory / DROPPED_NAME
            counts = ", ".join(f"{reason} {count}" for reason, count in writer.drops.items())
            raise SourceError(
                f"not one of the {account.dropped} rows makes a sample ({counts}): see {listed}."
            )
    assert writer.manifest is not None
    return writer.manifest


def _import_source(source: Source, settings: ImportOptions, columns: Columns, account: "_Account") -> None:
    root = source.path.parent if settings.images_root is None else Path(settings.images_root)
    rows = read_rows(source, root, settings.fetch)
    first = list(islice(rows, FIRST_ROWS))
    if not first:
        return
    columns.check(first)
    first = [columns.renamed(row) for row in first]
    name = detect_format(first, columns.keys) if settings.format == "auto" else settings.format
    refuse_misspelt(first, name, columns.keys)
    format = FORMATS[name]
    console = account.console
    again = chain(first, map(columns.renamed, rows))
    read = track(again, source.path.name, console=console, disable=not console.is_terminal)
    for row in gather(read, format):
        account.formats[name] += 1
        try:
            samples = format.read(row)
            account.leave(row, format, is_named=settings.format != "auto")
        except (BadSample, RecursionError) as error:
            account.drop(row, error)
            continue
        for sample in samples:
            account.take(row, sample)


def _fingerprints(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Name and hash of the files of each source.

    Raises:
        SourceError: two of them are copies of one another.
    """
    found = [fingerprint(source) for source in sources]
    seen: dict[tuple[str, ...], Path] = {}
    for source, hashes in zip(sources, found, strict=True):
        if (first := seen.setdefault(tuple(hashes.values()), source.path)) is not source.path:
            raise SourceError(f"{source.path} is a copy of {first}. Leave one of them out.")
    return found


def _of_row(error: BadSample | RecursionError, row: Row) -> BadSample:
    if isinstance(error, RecursionError):
        return BadSample(Reason.INVALID_JSON, row.where, "the row is nested too deeply")
    # What the writer refuses it names by key; a user looks for file and row.
    return BadSample(error.reason, row.where, error.detail)


@dataclass
class _Account:
    """What became of the rows."""

    writer: ShardWriter
    file: BinaryIO
    on_bad: OnBad
    console: Console = field(default_factory=lambda: Console(stderr=True))
    kept: int = 0
    dropped: int = 0
    ends: int = 0
    """Samples whose answers ended in an end token."""
    words: Counter[str] = field(default_factory=Counter)
    longer: Counter[str] = field(default_factory=Counter)
    """Pairs by which side has more words: a bias here is learned before anything else is."""
    formats: Counter[str] = field(default_factory=Counter)
    """Rows by the format that they were read as."""
    unread: Counter[str] = field(default_factory=Counter)
    """Rows by the columns with something in them that were not read."""
    contradicted: int = 0
    """Rows whose own scores say that the rejected answer is the better one."""

    def leave(self, row: Row, format: Format, is_named: bool) -> None:
        """Count what a row's format does not read of it.

        Args:
            row: one that could be read.
            format: of the row.
            is_named: whether the format was asked for by its name, and with it its column of the prompt.

        Raises:
            BadSample: `unread_column` where that is no small matter.
        """
        told = row.parsed()
        for columns in told["rows"] if format.group else [told]:
            names = [*unread(columns, format.reads(columns))]
            self.unread.update(names)
            refuse_meaning(
                columns, [name for name in names if not is_named or name not in PROMPTS], row.where
            )
            self.contradicted += says_otherwise(columns)
            if near := misspelt(frozenset(names), frozenset(columns)):
                looks = ", ".join(f"{theirs!r} looks like {ours!r}" for theirs, ours in near.items())
                raise BadSample(Reason.UNREAD_COLUMN, row.where, f"{looks}: spell it so")

    def take(self, row: Row, sample: Sample) -> None:
        """Write a sample of a row, or count what is wrong with it."""
        try:
            check_sample(sample, row.where)
            ended = without_ends(sample)
            turns: Any = ended.prompt  # As the readers make them, never text.
            self.writer.write(replace(ended, prompt=simplify(turns)))
            self.kept += 1
            self.ends += ended is not sample
            self._measure(ended)
        except (BadSample, RecursionError) as error:
            self.drop(row, error)

    def note(self) -> None:
        """Put what was measured into the manifest."""
        if self.ends:
            self.writer.note(ENDS_NOTE, self.ends)
        if shared := self.writer.shared:
            self.writer.note(SHARED_NOTE, shared)
        self.writer.note(FORMATS_NOTE, dict(self.formats))
        if self.unread:
            self.writer.note(UNREAD_NOTE, dict(sorted(self.unread.items())))
        if self.contradicted:
            self.writer.note(CONTRADICTED_NOTE, self.contradicted)
        if pairs := self.longer.total():
            self.writer.note("longer_side", dict(sorted(self.longer.items())))
            for side, words in sorted(self.words.items()):
                self.writer.note(f"{side}_words", words / pairs)

    def _measure(self, sample: Sample) -> None:
        if sample.chosen is None or sample.rejected is None:
            return
        chosen, rejected = len(sample.chosen.split()), len(sample.rejected.split())
        self.words.update(chosen=chosen, rejected=rejected)
        self.longer["equal" if chosen == rejected else "chosen" if chosen > rejected else "rejected"] += 1

    def drop(self, row: Row, error: BadSample | RecursionError) -> None:
        """Count a row that cannot be used, list it with its remedy, and print it if it is among the first."""
        fault = _of_row(error, row)
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
