"""The commands `rlaifv shards import|verify|show`."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.contact_sheet import draw_contact_sheet
from rlaifv_pl.data.images import open_images
from rlaifv_pl.data.importers.import_report import (
    CONTRADICTED_NOTE,
    ENDS_NOTE,
    FORMATS_NOTE,
    IMAGE_NOTES,
    LONGER_NOTE,
    SHARED_NOTE,
    UNREAD_NOTE,
    WITH_IMAGES_NOTE,
)
from rlaifv_pl.data.importers.importer import ImportOptions, import_shards
from rlaifv_pl.data.manifest import Manifest, ShardInfo, hash_file, read_manifest
from rlaifv_pl.data.remote_directory import redact
from rlaifv_pl.data.schema import Kind, check_sample, kinds
from rlaifv_pl.data.shard_cache import local_copy
from rlaifv_pl.data.shards import Shard, check_length, load_shards
from rlaifv_pl.records import Sample

MAX_PRINTED_FAULTS = 20

_IMAGE_ROWS = {
    IMAGE_NOTES["transparent"]: "transparent images, shown on white",
    IMAGE_NOTES["scaled"]: "images scaled to 8 bits",
    IMAGE_NOTES["first_frame"]: "images of several frames, the first shown",
}
"""Rows of an import's table by the name of the note on images."""


def import_(sources: list[str] | str, out: str, **options: Any) -> None:
    """Turn preference or SFT data into shards; shards/README.md lists the formats.

    Args:
        sources: one or several of: parquet, Arrow, JSON, JSON lines, CSV or TSV file, pattern, directory of such, saved
            `datasets`, folder of a downloaded data set (`DIR:SPLIT`), or a data set of the hub as `hub:OWNER/NAME`,
            `hub:OWNER/NAME:SPLIT` or `hub:OWNER/NAME:CONFIG:SPLIT`.
        out: the directory of shards to write.
        options: fields of ImportOptions.
    """
    settings = ImportOptions(**options)
    manifest = import_shards(_as_list(sources), out, **vars(settings))
    table = Table("samples", "number", title=f"imported to {out}")
    _add_counts(table, manifest.kinds, prefix="")
    _add_counts(table, manifest.drops, prefix="dropped: ")
    for name, value in _note_rows(manifest):
        table.add_row(name, value)
    Console().print(table)


def _note_rows(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield table rows of what an import noted: formats, images, unread columns, end tokens, lengths of pairs."""
    notes = manifest.notes
    yield "format", ", ".join(notes[FORMATS_NOTE])
    yield "samples with images", f"{notes[WITH_IMAGES_NOTE]} of {manifest.samples}"
    for name, row in _IMAGE_ROWS.items():
        if name in notes:
            yield row, str(notes[name])
    if unread := notes.get(UNREAD_NOTE):
        yield (
            "columns not read",
            ", ".join(f"{name or '(no name)'} ({rows})" for name, rows in unread.items()),
        )
    if rows := notes.get(CONTRADICTED_NOTE):
        yield "rejected scored higher", f"{rows}: check which column is the better answer"
    if ends := notes.get(ENDS_NOTE):
        yield "end tokens removed", f"from the answers of {ends} samples"
    if shared := notes.get(SHARED_NOTE):
        yield "images shared", f"{shared['images']}, {shared['bytes'] / 1e6:.1f} MB saved"
    if longer := notes.get(LONGER_NOTE):
        shares = (f"{side} {count / sum(longer.values()):.0%}" for side, count in longer.items())
        yield "longer side", ", ".join(shares)
        yield "words", ", ".join(f"{side} {notes[f'{side}_words']:.1f}" for side in ("chosen", "rejected"))


def verify(paths: list[str] | str) -> None:
    """Read every byte of shards: hashes, tar structure, samples, images; count the images that are shared, too.

    Args:
        paths: one directory of shards or a list of them; a URL is copied to the cache first (RLAIFV_PL_CACHE).

    Raises:
        ManifestError: a directory is unfinished, or its shards do not have the sizes it says.
        SystemExit: something is bad; all faults are counted, and the first 20 printed.
    """
    console = Console()
    paths = _as_list(paths)
    shards = [(path, info) for path in map(local_copy, paths) for info in read_manifest(path).shards]
    faults: Counter[str] = Counter()
    shared: Counter[str] = Counter()
    for path, info in track(shards, "verifying", console=console, disable=not console.is_terminal):
        for fault in _find_faults(path / info.name, info, shared):
            faults[fault.reason] += 1
            if faults.total() <= MAX_PRINTED_FAULTS:
                console.print(f"bad: {fault}", markup=False, highlight=False, soft_wrap=True)
    table = Table("what", "number", title="verified")
    _add_counts(table, {"shards": len(shards), "samples": sum(info.samples for _, info in shards)}, prefix="")
    _add_counts(table, shared, prefix="")
    _add_counts(table, faults, prefix="bad: ")
    console.print(table)
    if faults:
        counts = ", ".join(f"{reason} {count}" for reason, count in faults.items())
        raise SystemExit(f"faults in {', '.join(map(redact, paths))}: {counts}")


def show(paths: list[str] | str, *, out: str | None = None, count: int = 12, seed: int = 0) -> None:
    """Print what shards hold, and draw some of their samples on a contact sheet if one is asked for.

    Args:
        paths: one directory of shards or a list of them; a URL is copied to the cache first (RLAIFV_PL_CACHE).
        out: the PNG to write; none unless given.
        count: samples on the sheet.
        seed: picks the samples.
    """
    paths = _as_list(paths)
    shards = load_shards(paths)
    samples = (shards[index] for index in range(len(shards)))
    table = Table("what", "value", title=", ".join(map(redact, paths)))
    for name, value in _statistics(samples):
        table.add_row(name, value)
    for manifest in shards.manifests:
        _add_counts(table, manifest.drops, prefix="dropped: ")
    console = Console()
    console.print(table)
    if out is None:
        return
    drawn = np.random.default_rng(seed).choice(len(shards), min(count, len(shards)), replace=False)
    draw_contact_sheet([shards[index] for index in sorted(drawn.tolist())], Path(out))
    console.print(f"contact sheet: {out}")


def _as_list(paths: list[str] | str) -> list[str]:
    return [paths] if isinstance(paths, str) else paths


def _find_faults(path: Path, info: ShardInfo, shared: Counter[str]) -> Iterator[BadSample]:
    """Yield all that is wrong with one shard, up to where its tar is damaged; add its links to `shared`."""
    if (sha256 := hash_file(path)) != info.sha256:
        detail = f"SHA-256 is {sha256}, the manifest says {info.sha256}"
        yield BadSample(Reason.CHANGED_SHARD, str(path), detail)
    try:
        shard = Shard(path)
        check_length(shard, info.samples)
    except BadSample as fault:
        yield fault
        return
    if shard.shared.images:
        shared.update({"images shared": shard.shared.images, "bytes saved by it": shard.shared.bytes})
    for index in range(len(shard)):
        where = shard.where(index)
        try:
            sample = shard.read(index)
            check_sample(sample, where)
            open_images(sample.images, f"{where}, images")
            open_images(sample.rejected_images, f"{where}, rejected_images")
        except BadSample as fault:
            yield fault


def _statistics(samples: Iterator[Sample]) -> Iterator[tuple[str, str]]:
    """Yield table rows: how many samples of which kind, how many images, how long the answers are."""
    by_kind: Counter[str] = Counter()
    images: Counter[int] = Counter()
    lengths: dict[str, list[int]] = {"chosen": [], "rejected": [], "completion": [], "corrections": []}
    differences: list[int] = []
    for sample in samples:
        by_kind.update(kinds(sample))
        images[len(sample.images)] += 1
        for side in ("chosen", "rejected", "completion"):
            if (text := getattr(sample, side)) is not None:
                lengths[side].append(len(text.split()))
        if sample.chosen is not None and sample.rejected is not None:
            differences.append(lengths["chosen"][-1] - lengths["rejected"][-1])
        lengths["corrections"] += [len(turn.answer.split()) for turn in sample.corrections]
    yield "samples", str(images.total())
    for kind in Kind:
        if by_kind[kind]:
            yield f"  of kind {kind}", str(by_kind[kind])
    yield "with images", ", ".join(f"{many}: {number}" for many, number in sorted(images.items()))
    for side, words in lengths.items():
        if words:
            yield f"words of {side}", _describe(words)
    if differences:
        yield "longer side", _longer_side(np.array(differences))


def _add_counts(table: Table, counts: Mapping[str, int], prefix: str) -> None:
    for name, count in counts.items():
        table.add_row(f"{prefix}{name}", str(count))


def _describe(words: Sequence[int]) -> str:
    median, high = np.percentile(words, [50, 95])
    return f"mean {np.mean(words):.1f}, p50 {median:.0f}, p95 {high:.0f}"


def _longer_side(difference: np.ndarray) -> str:
    """Describe how often each side has more words: a bias here is learned before anything else is."""
    shares = {
        "chosen": np.mean(difference > 0),
        "rejected": np.mean(difference < 0),
        "equal": np.mean(difference == 0),
    }
    return ", ".join(f"{side} {share:.0%}" for side, share in shares.items())
