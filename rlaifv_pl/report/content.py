"""Content of a page, as JSON: of a run, or of shards by themselves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rlaifv_pl.data.manifest import Manifest
from rlaifv_pl.data.remote_directory import is_url, redact
from rlaifv_pl.data.shards import ShardSet, load_shards
from rlaifv_pl.records import Correction
from rlaifv_pl.report.curves import curves, round_starts
from rlaifv_pl.report.dropped import dropped_rows
from rlaifv_pl.report.held_out import answer_rows, figures_of, round_rows
from rlaifv_pl.report.histograms import ValueCounts, distributions
from rlaifv_pl.report.left_out import MEANINGS, NOT_AT_HAND, PromptImages, find_prompts, left_out_rows
from rlaifv_pl.report.pairs import rows
from rlaifv_pl.report.run_files import ROUNDS, ReportError, RunFiles
from rlaifv_pl.report.thumbnails import Thumbnails
from rlaifv_pl.rounds.summary import STAGES
from rlaifv_pl.training.held_out_figures import FOLDER


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of what a page shows.

    Args:
        pairs: samples that can be looked at, at most; figures are of all.
        images: distinct images, at most; None for all.
        size: of an image, longest side in pixels.
    """

    pairs: int = 20_000
    images: int | None = 2000
    size: int = 224

    def __post_init__(self) -> None:
        if self.pairs < 0 or (self.images or 0) < 0 or self.size < 16:
            raise ValueError(
                f"expected pairs >= 0, images >= 0 and size >= 16, got {self.pairs}, {self.images}, {self.size}."
            )


@dataclass
class Content:
    """A page in the making.

    Args:
        limits: of the samples and pictures that it takes up.
    """

    limits: Limits
    page: dict[str, Any] = field(
        default_factory=lambda: {
            "notes": [],
            "directories": [],
            "rows": [],
            "left_out": [],
            "dropped": [],
            "reasons": MEANINGS,
        }
    )
    spreads: list[ValueCounts] = field(default_factory=list)
    samples: int = 0

    def __post_init__(self) -> None:
        self.thumbnails = Thumbnails(self.limits.size, self.limits.images)

    def note(self, text: str) -> None:
        """Say on the page what a reader would miss."""
        self.page["notes"].append(text)

    def take(
        self,
        label: str,
        directory: str | Path,
        corrections: Path | None = None,
        prompts: Sequence[str] = (),
    ) -> None:
        """Take up the shards of a directory under a label.

        Args:
            corrections: where those of its samples lie apart from them.
            prompts: where the shards of prompts are that feedback made these of; looked for beside these unless given.

        Raises:
            ManifestError, BadSample: as `load_shards`, and as it reads.
        """
        shards = load_shards(directory)
        number, spread = len(self.spreads), ValueCounts()
        self.spreads.append(spread)
        self.page["directories"].append(
            {"label": label, "samples": len(shards), **_origin(shards.manifests[0])}
        )
        self.page["dropped"] += dropped_rows(directory, number)
        # Few as they are, their images come first, lest those of the pairs leave no room.
        asked = find_prompts(directory, shards.manifests[0].parents, prompts)
        self._take_left_out(directory, number, PromptImages(shards, asked))
        turns = _corrections(corrections)
        for index in range(len(shards)):
            sample = shards[index]
            spread.add(sample)
            if len(self.page["rows"]) < self.limits.pairs:
                self.page["rows"] += rows([sample], number, self.thumbnails, turns)
        self.samples += len(shards)

    def _take_left_out(self, directory: str | Path, number: int, prompt_images: PromptImages) -> None:
        examples = left_out_rows(directory, number, prompt_images, self.thumbnails)
        found = list(islice(examples, self.limits.pairs))
        self.page["left_out"] += found
        if many := sum(NOT_AT_HAND in row["images"] for row in found):
            self.note(
                f"{many} examples of what {self.page['directories'][number]['label']} left out have no image here: the "
                "shards of their prompts do not lie beside, are not where they were, or no longer what they were. Name "
                "them with --prompts DIR."
            )

    def finish(self) -> None:
        """Add what is known once all shards are taken."""
        shown = len(self.page["rows"])
        if shown < self.samples:
            self.note(
                f"The first {shown:,} of {self.samples:,} samples can be looked at (--pairs); figures are of all."
            )
        if self.thumbnails.left_out and self.limits.images:
            self.note(
                f"{len(self.thumbnails.places):,} distinct images are on this page; others were left out (--images)."
            )
        self.page |= {"samples": self.samples, "distributions": distributions(self.spreads)}
        self.page["images"] = self.thumbnails.places


def shards_content(paths: Sequence[str], limits: Limits, prompts: Sequence[str] = ()) -> Content:
    """The page of one or more directories of shards; URLs through the cache.

    Args:
        prompts: shards of the prompts that feedback made them of.
    """
    content = Content(limits)
    for path in paths:
        content.take(redact(path), path, prompts=prompts)
    content.page |= {"kind": "shards", "title": ", ".join(map(redact, paths)), "rounds": [], "curves": []}
    content.finish()
    return content


def run_content(run: RunFiles, limits: Limits, prompts: Sequence[str] = ()) -> Content:
    """The page of a run.

    Args:
        prompts: shards of the prompts of its rounds, or of feedback; where the config says unless given.
    """
    content = Content(limits)
    epochs = run.epochs_per_round
    content.page |= {
        "kind": "run",
        "title": run.path.resolve().name,
        "facts": _facts(run),
        "rounds": [{"round": number, **entry} for number, entry in run.ledger.items()],
        "stages": STAGES,
        "curves": curves(_of_training(run.metrics)),
        "round_starts": round_starts(run.metrics, epochs),
        "config": run.config_text,
    }
    if not run.metrics:
        content.note("There is no metrics.csv, or no row in it yet: no step has been logged.")
    for sign in run.mixed:
        content.note(f"{sign}.")
    if run.held_out or run.measured:
        _take_held_out(content, run)
    if run.ledger or epochs:
        _take_rounds(content, run, prompts or run.prompts())
    else:
        _take_training_shards(content, run, prompts)
    content.finish()
    return content


def _take_held_out(content: Content, run: RunFiles) -> None:
    taken: list[dict[str, Any]] = []
    found = [
        answer_rows(run.path / FOLDER, name, entry, content.thumbnails)
        for name, entry in run.held_out.items()
    ]
    for rows_of_one in (round_rows(run.path / ROUNDS, run.measured, content.thumbnails), *found):
        try:
            taken += rows_of_one
        except ReportError as error:
            content.note(f"Answers to held-out items cannot be shown. {error}")
    if len(taken) > content.limits.pairs:
        content.note(
            f"The first {content.limits.pairs:,} of {len(taken):,} held-out items can be looked at (--pairs)."
        )
    benchmarks = figures_of(run.held_out)
    content.page["held_out"] = {"benchmarks": benchmarks, "rows": taken[: content.limits.pairs]}


def _of_training(metrics: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Rows without held-out figures, which have charts of their own."""
    return [
        {name: cell for name, cell in row.items() if not name.startswith(f"{FOLDER}/")} for row in metrics
    ]


def _take_rounds(content: Content, run: RunFiles, prompts: Sequence[str]) -> None:
    numbers = [number for number in run.ledger if number]
    if not numbers:
        content.note("No round has begun yet.")
    for number in numbers:
        if (directory := run.shards(number)) is None:
            content.note(f"Round {number} is in the making, or was broken off: it has no finished pairs yet.")
        else:
            content.take(f"round {number}", directory, run.corrections(number), prompts)
    if not run.summary:
        content.note("The run has not ended: there is no summary.json. The page shows what is there so far.")


def _take_training_shards(content: Content, run: RunFiles, prompts: Sequence[str]) -> None:
    content.note("A run without rounds: it has no ledger, and made no pairs of its own.")
    for path in run.train_shards():
        if is_url(path):
            content.note(
                f"The shards that it trained on lie at {redact(path)} and were not fetched for this page."
            )
        elif not Path(path).is_dir():
            content.note(f"The shards that it trained on are no longer at {path}.")
        else:
            content.take(path, path, prompts=prompts)


def _facts(run: RunFiles) -> list[list[str]]:
    """Rows of the run's table: name and value."""
    model = run.config.get("model") or {}
    options = model.get("init_args") or {}
    policy = options.get("policy") or {}
    known = {
        "objective": str(model.get("class_path") or "").rpartition(".")[2],
        "policy": policy.get("path") if isinstance(policy, dict) else policy,
        "reference": options.get("reference"),
        "seed": run.summary.get("seed", run.config.get("seed_everything")),
        "steps logged": len({row["step"] for row in run.metrics}) or None,
        "rounds done": sum("train" in entry.get("seconds", {}) for entry in run.ledger.values()) or None,
        "seconds of the last start": run.summary.get("seconds"),
        "directory": str(run.path),
    }
    return [[name, str(value)] for name, value in known.items() if value not in (None, "")]


def _origin(manifest: Manifest) -> dict[str, Any]:
    """Return the origin of shards, as their manifest has it."""
    return {
        "hash": manifest.hash,
        "recipe_hash": manifest.recipe_hash,
        "parents": list(manifest.parents),
        "kinds": dict(manifest.kinds),
        "drops": dict(manifest.drops),
        "notes": {name: value for name, value in manifest.notes.items() if _is_number(value)},
        "versions": dict(manifest.versions),
        "shards": [
            {"name": one.name, "samples": one.samples, "sha256": one.sha256} for one in manifest.shards
        ],
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _corrections(directory: Path | None) -> Mapping[str, Sequence[Correction]]:
    if directory is None:
        return {}
    shards: ShardSet = load_shards(directory)
    samples = (shards[index] for index in range(len(shards)))
    return {sample.key: sample.corrections for sample in samples}
