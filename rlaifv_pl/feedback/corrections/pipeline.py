"""Correct: preference shards into shards with the dialogues that nSFT learns from (Zhu et al., CVPR 2025).

G(y_r; y_c, Q): from a rejected answer, the chosen one beside it and the list of error types comes a short
conversation about the image that gets right what the rejected answer got wrong. Who writes it is a
`Corrector`; what it costs is kept part by part (see `parts`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypedDict, Unpack

from rlaifv_pl.console import stderr, track
from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.manifest import Manifest, read_manifest
from rlaifv_pl.data.shards import ShardSet, ShardWriter, load_shards
from rlaifv_pl.feedback.chunks import UNFINISHED, Chunks, Rows
from rlaifv_pl.feedback.corrections.dialogue_rules import UNANSWERED, UNUSABLE, Corrected, polarity
from rlaifv_pl.feedback.engines.engine import EngineError
from rlaifv_pl.feedback.pairs.samples import is_finished
from rlaifv_pl.feedback.preconditions import STAGES, check_out, check_samples
from rlaifv_pl.records import Correction, Sample

SAMPLES_PER_PART = 64
"""As many are asked about at a time, and as many a kill can cost."""
REMEDY = (
    "The same command asks about them again. Look at the log of the corrector's server, raise its fill_tokens or "
    "fill_tries, set its `structured` as the server has it, or take a better model."
)
ORIGIN = ("corrector", "engine", "codebook")
"""What of a corrector's recipe goes into each sample's provenance; the manifest has all of it."""


class Corrector(Protocol):
    """Who writes corrections."""

    def recipe(self) -> dict[str, Any]:
        """The settings that decide the outcome, as JSON: among them `corrector`, its name, and
        `codebook`, the hash of the error types."""

    def correct(self, samples: Sequence[Sample], seed: int) -> list[Corrected]:
        """What comes of each preference sample, whatever others it is asked with.

        Raises:
            BadSample: a sample lacks what the corrector reads.
        """


class Writing(TypedDict, total=False):
    """Options of `ShardWriter`.

    Args:
        overwrite: replace shards of another recipe.
        link_duplicate_images: store equal images of a shard once, as links that `webdataset` skips.
    """

    overwrite: bool
    link_duplicate_images: bool


def correct_shards(
    shards: str | Path | Sequence[str | Path],
    out: Path,
    corrector: Corrector,
    seed: int = 0,
    samples_per_shard: int = 1000,
    **writing: Unpack[Writing],
) -> Manifest:
    """Write corrections to preference samples; what is made already is not made again.

    The samples stay as they are but for `corrections` and their provenance; those without any correction
    are left out. `drops` of the manifest counts them by reason. `notes` holds how many turns there are,
    how many of them answer yes, no or something else (`open`), how many are about each error type
    (`codes`), and what did not hold of what was written (`removed`).

    Args:
        shards: directories of preference samples.
        out: directory of the corrected shards; `stages` in it holds the parts.
        corrector: writes the corrections.
        seed: decides all draws, together with the samples' keys.
        samples_per_shard: size of every shard but the last.
        writing: how shards are written.

    Raises:
        BadSample: a sample is no preference sample, or lacks what the corrector reads, or two have one key.
        EngineError: a model gave nothing at all that can be used.
        FileExistsError: `out` holds shards of another recipe, or the samples themselves.
    """
    source = load_shards(shards)
    parents = [manifest.hash for manifest in source.manifests]
    asked: dict[str, Any] = {"correct": corrector.recipe(), "seed": seed, "shards": parents}
    linked = writing.get("link_duplicate_images", False)
    recipe = {**asked, "samples_per_shard": samples_per_shard} | (
        {"link_duplicate_images": True} if linked else {}
    )
    if is_finished(out, recipe) and not read_manifest(out).notes.get("unfinished"):
        return read_manifest(out)
    check_out(out, {Path(shard.path).parent for shard in source.shards}, "correct")
    check_samples(source)
    parts = Chunks(out / STAGES, "correct", asked, len(source), SAMPLES_PER_PART)
    # What lies there beside parts of this very recipe is an earlier attempt's.
    overwrite = writing.get("overwrite", False) or parts.directory.is_dir()
    with ShardWriter(
        out,
        recipe=recipe,
        samples_per_shard=samples_per_shard,
        parents=parents,
        link_duplicate_images=linked,
        overwrite=overwrite,
    ) as writer:
        made = _corrected(parts, source, partial(_rows, source, corrector, seed))
        steps = track(made, "correct", len(source))
        _write(writer, steps, {name: asked["correct"][name] for name in ORIGIN if name in asked["correct"]})
    return read_manifest(out)


def _rows(source: ShardSet, corrector: Corrector, seed: int, indices: Sequence[int]) -> list[dict[str, Any]]:
    samples = [source[index] for index in indices]
    for index, sample in zip(indices, samples, strict=True):
        if sample.chosen is None or sample.rejected is None:
            detail = "corrections are made from a chosen and a rejected answer"
            raise BadSample(Reason.MISSING_ANSWER, source.where(index), detail)
    return [
        asdict(corrected) | ({UNFINISHED: True} if corrected.drop in (UNANSWERED, UNUSABLE) else {})
        for corrected in corrector.correct(samples, seed)
    ]


def _corrected(parts: Chunks, source: ShardSet, make: Rows) -> Iterator[tuple[Sample, Corrected]]:
    """Each sample with what comes of it; a part is made when its first sample is asked for."""
    for number, _ in enumerate(parts.make(make)):
        for index, row in zip(parts.slices[number], parts.read(number), strict=True):
            yield source[index], _decode(row)


def _write(writer: ShardWriter, steps: Iterable[tuple[Sample, Corrected]], origin: Mapping[str, str]) -> None:
    tally = CorrectionCounts()
    for sample, corrected in steps:
        tally.add(corrected)
        if corrected.drop is not None:
            writer.drop(corrected.drop)
            continue
        provenance = {**sample.provenance, **origin}
        writer.write(replace(sample, corrections=corrected.corrections, provenance=provenance))
    for name, value in tally.notes().items():
        writer.note(name, value)
    if not (unfinished := tally.drops[UNANSWERED] + tally.drops[UNUSABLE]):
        return
    told = ", ".join(f"{name} {count}" for name, count in sorted(tally.drops.items()))
    told = f"what a model wrote could not be used of {unfinished} samples (left out: {told}). {REMEDY}"
    if tally.answers.total() == 0:
        raise EngineError(f"No correction was made: {told}")
    stderr.print(f"warning: {told}", soft_wrap=True)
    writer.note(UNFINISHED, unfinished)


class CorrectionCounts:
    """Counts what corrections say."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.removed: Counter[str] = Counter()
        self.drops: Counter[str] = Counter()

    def add(self, corrected: Corrected) -> None:
        """Count one sample's."""
        self.answers.update(polarity(turn.answer) or "open" for turn in corrected.corrections)
        self.codes.update(code for turn in corrected.corrections for code in turn.codes)
        self.removed.update(corrected.removed)
        self.drops.update([corrected.drop] if corrected.drop else [])

    def notes(self) -> dict[str, Any]:
        """For the manifest."""
        answers = {name: self.answers[name] for name in ("yes", "no", "open")}
        counts = {"codes": self.codes, "removed": self.removed}
        return {"turns": self.answers.total(), **answers} | {
            name: dict(sorted(count.items())) for name, count in counts.items()
        }


def _decode(row: Mapping[str, Any]) -> Corrected:
    corrections = tuple(
        Correction(question=turn["question"], answer=turn["answer"], codes=tuple(turn["codes"]))
        for turn in row["corrections"]
    )
    return Corrected(corrections=corrections, drop=row["drop"], removed=row["removed"])
