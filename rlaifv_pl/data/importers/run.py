"""Import: sources of any known format to one directory of shards, with an account of what was left out."""

import functools
import json
import shlex
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
from rlaifv_pl.data.importers.formats import FIRST_ROWS, FORMATS, FormatName, detect_format, gather
from rlaifv_pl.data.importers.pictures import PictureFindings, PictureLoader, image_warnings
from rlaifv_pl.data.importers.rows import Row, read_rows
from rlaifv_pl.data.importers.sources import Source, SourceError, find_sources, fingerprint
from rlaifv_pl.data.importers.turns import simplify
from rlaifv_pl.data.manifest import Manifest
from rlaifv_pl.data.schema import check_sample
from rlaifv_pl.data.shard_writer import ShardWriter
from rlaifv_pl.records import Sample

SHARED_NOTE = "shared_images"
"""Name of the manifest's note on images that are links: how many, and the bytes that they would have taken."""
WITH_IMAGES_NOTE = "samples_with_images"
IMAGE_NOTES = {
    "transparent": "transparent_images",
    "scaled": "scaled_images",
    "first_frame": "images_of_several_frames",
}
"""Names of the manifest's notes on unusual images, by what is unusual about them."""
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
        images_root: folder that image paths start from and must not leave; by default that of the source. Relative
            paths may start from the source's folder, too, as long as they stay below `images_root`.
        fetch: whether images behind URLs are fetched. A row could name any address that this machine reaches.
        on_bad: whether a bad row is skipped and listed in `<out>/dropped.jsonl`, or ends the import.
        samples_per_shard: size of every shard but the last.
        link_duplicate_images: whether an image that a shard holds already is stored as a link to it. That saves its
            bytes, and costs other readers the image: `webdataset` and whatever streams tars skip links.
    """

    format: FormatName = "auto"
    keys: str | None = None
    prompt: str | None = None
    images_root: str | Path | None = None
    fetch: bool = False
    on_bad: OnBad = "skip"
    samples_per_shard: int = 1000
    link_duplicate_images: bool = False
    overwrite: bool = False


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
    columns = Columns.parse(settings.keys, settings.prompt)
    found = find_sources(sources)
    recipe = {
        "verb": "import",
        "sources": [fingerprint(source) for source in found],
        **asdict(settings),
        "images_root": settings.images_root and str(settings.images_root),
    }
    del recipe["overwrite"]  # It decides no sample.
    with ShardWriter(
        out,
        recipe=recipe,
        samples_per_shard=settings.samples_per_shard,
        link_duplicate_images=settings.link_duplicate_images,
        overwrite=settings.overwrite,
    ) as writer:
        with atomic_file(writer.directory / DROPPED_NAME) as file:
            account = _Account(writer, file, settings.on_bad)
            for source in found:
                _import_source(source, settings, columns, account)
        account.note()
        command = functools.partial(_command, sources, out, settings)
        for warning in image_warnings(account.findings, account.kept, account.with_images, command):
            account.console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
        if not account.kept:
            listed = writer.directory / DROPPED_NAME
            raise SourceError(f"not one of the {account.dropped} rows makes a sample: see {listed}.")
    assert writer.manifest is not None
    return writer.manifest


def _command(sources: Sequence[str | Path], out: str | Path, settings: ImportOptions, **changed: str) -> str:
    """The command line of an import with some options changed, to be copied into a shell."""
    named = [str(source) for source in sources]
    default = asdict(ImportOptions())
    options = asdict(settings) | changed | {"overwrite": True}  # By now there are shards in `out`.
    options = {name: value for name, value in options.items() if value != default[name]}
    words = [named[0] if len(named) == 1 else f"[{','.join(named)}]", str(out)]
    for name, value in options.items():
        words += [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]
    return shlex.join(["rlaifv", "shards", "import", *words])


def _import_source(source: Source, settings: ImportOptions, columns: Columns, account: "_Account") -> None:
    base = source.path.parent
    root = base if settings.images_root is None else Path(settings.images_root)
    rows = read_rows(source, PictureLoader(root, base, settings.fetch, account.findings))
    first = list(islice(rows, FIRST_ROWS))
    if not first:
        return
    columns.check(first)
    first = [columns.renamed(row) for row in first]
    format = detect_format(first) if settings.format == "auto" else FORMATS[settings.format]
    console = account.console
    again = chain(first, map(columns.renamed, rows))
    read = track(again, source.path.name, console=console, disable=not console.is_terminal)
    for row in gather(read, format):
        try:
            samples = format.read(row)
        except (BadSample, RecursionError) as error:
            account.drop(row, error)
            continue
        for sample in samples:
            account.take(row, sample)


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
    words: Counter[str] = field(default_factory=Counter)
    longer: Counter[str] = field(default_factory=Counter)
    """Pairs by which side has more words: a bias here is learned before anything else is."""
    with_images: int = 0
    unusual: Counter[str] = field(default_factory=Counter)
    """Stored images by what is unusual about them."""
    findings: PictureFindings = field(default_factory=PictureFindings)

    def take(self, row: Row, sample: Sample) -> None:
        """Write a sample of a row, or count what is wrong with it."""
        try:
            check_sample(sample, row.where)
            turns: Any = sample.prompt  # As the readers make them, never text.
            self.writer.write(replace(sample, prompt=simplify(turns)))
            self.kept += 1
            self.with_images += bool(sample.images)
            self.unusual += self.findings.counts((*sample.images, *sample.rejected_images))
            self._measure(sample)
        except (BadSample, RecursionError) as error:
            self.drop(row, error)

    def note(self) -> None:
        """Put what was measured into the manifest."""
        self.writer.note(WITH_IMAGES_NOTE, self.with_images)
        for trait, count in sorted(self.unusual.items()):
            self.writer.note(IMAGE_NOTES[trait], count)
        if shared := self.writer.shared:
            self.writer.note(SHARED_NOTE, shared)
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
