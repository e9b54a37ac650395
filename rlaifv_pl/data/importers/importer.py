"""Import: sources of any known format to one directory of shards, with an account of what was left out."""

import functools
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rich.progress import track

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.importers.columns import Columns
from rlaifv_pl.data.importers.find_sources import find_sources
from rlaifv_pl.data.importers.formats import (
    FIRST_ROWS,
    FORMATS,
    FormatName,
    detect_format,
    gather,
    refuse_misspelt,
)
from rlaifv_pl.data.importers.images import PictureLoader, image_warnings
from rlaifv_pl.data.importers.import_report import DROPPED_NAME, Account, OnBad
from rlaifv_pl.data.importers.rows import read_source_rows
from rlaifv_pl.data.importers.sources import Source, SourceError, source_hash
from rlaifv_pl.data.manifest import Manifest
from rlaifv_pl.data.shard_writer import ShardWriter


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How rows become shards.

    Args:
        format: of the sources; `auto` tells it for each source by the columns of its first rows.
        keys: columns under other names, as `prompt=query,chosen=good`: ours, and that of the source.
        prompt: question of rows that have none, such as HA-DPO's descriptions.
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
        link_duplicate_images=settings.link_duplicate_images,
        overwrite=settings.overwrite,
    ) as writer:
        with atomic_file(writer.directory / DROPPED_NAME) as file:
            account = Account(writer, file, settings.on_bad)
            for source in found:
                _import_source(source, settings, columns, account)
        account.note()
        command = functools.partial(_command, sources, out, settings)
        for warning in image_warnings(account.findings, account.kept, account.with_images, command):
            account.console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
        if not account.kept:
            listed = writer.directory / DROPPED_NAME
            counts = ", ".join(f"{reason} {count}" for reason, count in writer.drops.items())
            raise SourceError(
                f"not one of the {account.dropped} rows makes a sample ({counts}): see {listed}."
            )
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


def _import_source(source: Source, settings: ImportOptions, columns: Columns, account: Account) -> None:
    base = source.path.parent
    root = base if settings.images_root is None else Path(settings.images_root)
    rows = read_source_rows(source, PictureLoader(root, base, settings.fetch, account.findings))
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
    found = [source_hash(source) for source in sources]
    seen: dict[tuple[str, ...], Path] = {}
    for source, hashes in zip(sources, found, strict=True):
        if (first := seen.setdefault(tuple(hashes.values()), source.path)) is not source.path:
            raise SourceError(f"{source.path} is a copy of {first}. Leave one of them out.")
    return found
