"""`rlaifv report`, and `rlaifv shards show` with a page."""

from pathlib import Path
from typing import Literal, TypedDict, Unpack

from rich.console import Console

from rlaifv_pl.cli import shards as data
from rlaifv_pl.report.content import Content, Limits, run_content, shards_content
from rlaifv_pl.report.page import write_page
from rlaifv_pl.report.run_files import read_run

DEFAULT = Limits()


class PageOptions(TypedDict, total=False):
    """Options of a page of shards.

    Args:
        images: distinct images, at most; 2000 unless given.
        prompts: shards that these were made of, for the images of what was left out; found beside them unless given.
    """

    images: int | Literal["all", "none"]
    prompts: list[str] | str


def report(
    run: str,
    *,
    out: str | None = None,
    images: int | Literal["all", "none"] = 2000,
    size: int = DEFAULT.size,
    pairs: int = DEFAULT.pairs,
    prompts: list[str] | str | None = None,
) -> None:
    """Write one HTML file about a run: curves, figures by round, what was left out, and its pairs to look through.

    The file needs no network and can be opened and sent as it is. A run that has not ended has a page too.

    Args:
        run: directory of the run (its trainer.default_root_dir).
        out: the file to write; `report.html` in the run's directory unless given.
        images: distinct images that are put in, at most.
        size: of an image, longest side in pixels.
        pairs: samples that can be looked at, at most; figures are of all.
        prompts: shards that the pairs were made of, for the images of what was left out; found by the run's config, or
            beside the shards, unless given.

    Raises:
        ReportError: there is no run, or a file of it is damaged.
        ManifestError, BadSample: shards of the run are damaged.
    """
    limits = Limits(pairs=pairs, images=_limit(images), size=size)
    content = run_content(read_run(run), limits, _listed(prompts))
    _write(content, Path(out) if out else Path(run) / "report.html")


def show(
    paths: list[str] | str,
    *,
    out: str | None = None,
    count: int = 12,
    seed: int = 0,
    html: str | None = None,
    **page: Unpack[PageOptions],
) -> None:
    """Print what shards hold; if asked to, draw some samples on a contact sheet, and make a page of all of them.

    Args:
        paths: one directory of shards or a list of them; a URL is copied to the cache first (RLAIFV_PL_CACHE).
        out: the contact sheet to write, a PNG; none unless given.
        count: samples on the sheet.
        seed: picks the samples.
        html: a page to write, in which the samples can be searched, filtered and looked through.
        page: of the page.
    """
    data.show(paths, out=out, count=count, seed=seed)
    if html is not None:
        limits = Limits(images=_limit(page.get("images", 2000)))
        _write(shards_content(_listed(paths), limits, _listed(page.get("prompts"))), Path(html))


def _listed(paths: list[str] | str | None) -> list[str]:
    return [paths] if isinstance(paths, str) else paths or []


def _limit(images: int | str) -> int | None:
    return {"all": None, "none": 0}[images] if isinstance(images, str) else images


def _write(content: Content, path: Path) -> None:
    size = write_page(content, path)
    held = f"{len(content.page['rows']):,} samples, {len(content.thumbnails.places):,} images"
    console = Console(stderr=True)
    for note in content.page["notes"]:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"page: {path}, {size / 1e6:.1f} MB: {held}", markup=False, highlight=False, soft_wrap=True)
