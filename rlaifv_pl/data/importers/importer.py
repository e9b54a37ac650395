"""Import: sources of any known format to one directory of shards, with a report of what was left out."""

import functools
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rich.progress import track

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.data.importers.columns import ColumnMapping
from rlaifv_pl.data.importers.find_sources import find_sources
from rlaifv_pl.data.importers.formats import (
    FIRST_ROWS,
    FORMATS,
    FormatName,
    detect_format,
    group_rows,
    refuse_misspelled,
)
from rlaifv_pl.data.importers.images import ImageLoader
from rlaifv_pl.data.importers.import_report import DROPPED_NAME, WITH_IMAGES_NOTE, ImportReport, OnBad
from rlaifv_pl.data.importers.rows import read_source_rows
from rlaifv_pl.data.importers.sources import Source, SourceError, source_hash
from rlaifv_pl.data.manifest import Manifest, read_manifest
from rlaifv_pl.data.shard_writer import ShardWriter


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How rows become shards.

    Args:
        format: format of the sources; `auto` detects it for each source by the columns of its first rows.
        keys: columns under other names, as `prompt=query,chosen=good`: ours, and that of the source.
        prompt: prompt of rows that have none, such as HA-DPO's descriptions.
        ignore: columns that are knowingly left behind, as `margin,tools`, where one would be asked about or refused.
        images_root: folder that image paths start from and must not leave; by default that of the source. Relative
            paths may start from the source's folder, too, as long as they stay below `images_root`.
        fetch: whether images behind URLs are fetched. A row could name any address that this machine reaches.
        on_bad: whether a bad row is skipped and listed in `<out>/dropped.jsonl`, or ends the import.
        samples_per_shard: size of every shard but the last.
        link_duplicate_images: whether an image that a shard holds already is stored as a link to it. That saves its
            bytes, and costs other readers the image: `webdataset` and whatever streams tars skip links.
        overwrite: whether shards of another import in `out` are replaced.
    """

    format: FormatName = "auto"
    keys: str | None = None
    prompt: str | None = None
    ignore: str | None = None
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
    mapping = ColumnMapping.parse(settings.keys, settings.prompt, settings.ignore)
    files = find_sources(sources)
    recipe = {
        "verb": "import",
        "sources": _fingerprints(files),
        **asdict(settings),
        "images_root": settings.images_root and str(settings.images_root),
    }
    del recipe["overwrite"]  # It decides on what was there, not on the samples.
    with ShardWriter(
        out,
        recipe=recipe,
        samples_per_shard=settings.samples_per_shard,
        link_duplicate_images=settings.link_duplicate_images,
        overwrite=settings.overwrite,
    ) as writer:
        with atomic_file(writer.directory / DROPPED_NAME) as file:
            report = ImportReport(writer, file, settings.on_bad, settings.format != "auto")
            for source in files:
                _import_source(source, settings, mapping, report)
        report.add_notes()
        for warning in _image_warnings(report, functools.partial(_command, sources, out, settings)):
            report.console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
        if not report.kept:
            listed = writer.directory / DROPPED_NAME
            counts = ", ".join(f"{reason} {count}" for reason, count in writer.drops.items())
            raise SourceError(
                f"not one of the {report.dropped} rows makes a sample ({counts}): see {listed}."
            )
    return read_manifest(writer.directory)


def _import_source(
    source: Source, settings: ImportOptions, mapping: ColumnMapping, report: ImportReport
) -> None:
    base = source.path.parent
    root = base if settings.images_root is None else Path(settings.images_root)
    rows = read_source_rows(source, ImageLoader(root, base, settings.fetch, report.findings))
    first = list(islice(rows, FIRST_ROWS))
    if not first:
        return
    mapping.check(first)
    first = [mapping.apply(row) for row in first]
    name = detect_format(first, mapping.keys) if settings.format == "auto" else settings.format
    refuse_misspelled(first, name, mapping.keys)
    console = report.console
    all_rows = chain(first, map(mapping.apply, rows))
    tracked = track(all_rows, source.path.name, console=console, disable=not console.is_terminal)
    for row in group_rows(tracked, FORMATS[name]):
        report.import_row(row, name)


def _image_warnings(report: ImportReport, command: Callable[..., str]) -> Iterator[str]:
    """Say what an import may have missed of the images, each with the option that mends it.

    Args:
        report: the finished import.
        command: writes the command line of the import with options changed.
    """
    findings, samples = report.findings, report.kept
    if findings.unread:
        name, example = next(iter(findings.unread.items()))
        listed = ", ".join(map(repr, findings.unread))
        yield (
            f"the columns {listed} look like images ({name}: {example}) and were not read; `--keys image={name}` reads "
            "one as the image"
        )
    without = samples - report.notes[WITH_IMAGES_NOTE]
    if samples and without == samples:
        yield f"none of the {samples} samples has an image"
    elif without:
        yield f"{without} of the {samples} samples have no image"
    if findings.outside is not None:
        folder = os.path.commonpath([findings.outside, *findings.roots])
        yield (
            f"images outside of images_root were refused; if these rows may read all files of {folder!r}, the command "
            f"is\n  {command(images_root=folder)}"
        )


def _command(sources: Sequence[str | Path], out: str | Path, settings: ImportOptions, **changed: str) -> str:
    """Return the command line of an import with some options changed, to be copied into a shell."""
    default = asdict(ImportOptions())
    options = asdict(settings) | changed | {"overwrite": True}  # By now there are shards in `out`.
    names = [str(source) for source in sources]
    words = [names[0] if len(names) == 1 else f"[{','.join(names)}]", str(out)]
    for name, value in options.items():
        if value != default[name]:
            words += [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]
    return shlex.join(["rlaifv", "shards", "import", *words])


def _fingerprints(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Return name and hash of the files of each source.

    Raises:
        SourceError: two of them are copies of one another.
    """
    fingerprints = [source_hash(source) for source in sources]
    seen: dict[tuple[str, ...], Path] = {}
    for source, hashes in zip(sources, fingerprints, strict=True):
        if (first := seen.setdefault(tuple(hashes.values()), source.path)) is not source.path:
            raise SourceError(f"{source.path} is a copy of {first}. Leave one of them out.")
    return fingerprints
