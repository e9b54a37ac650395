"""Preference shards into shards with the dialogues that nSFT learns from (Zhu et al., CVPR 2025).

G(y_r; y_c, Q): a rejected answer, the chosen one beside it and the list of error types become a short conversation
about the image that gets right what the rejected answer got wrong. A `Corrector` writes it; its work is kept in chunks.
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
from rlaifv_pl.feedback.corrections.dialogue_rules import UNANSWERED, UNUSABLE, CorrectionResult, polarity
from rlaifv_pl.feedback.engines.engine import EngineError
from rlaifv_pl.feedback.pairs.samples import is_finished
from rlaifv_pl.feedback.preconditions import STAGES, check_out, check_samples
from rlaifv_pl.records import Correction, Sample

SAMPLES_PER_CHUNK = 64
"""Number of samples that a model is asked about together, and that a kill can cost."""
REMEDY = (
    "The same command asks about them again. Look at the log of the corrector's server, raise its fill_tokens or "
    "fill_tries, set its `structured` as the server has it, or take a better model."
)
ORIGIN = ("corrector", "engine", "codebook")
"""Keys of a corrector's recipe that go into each sample's provenance; the manifest has all of it."""


class Corrector(Protocol):
    """Writes corrections."""

    def recipe(self) -> dict[str, Any]:
        """Return the settings that decide the outcome, as JSON: among them `corrector`, its name, and `codebook`, the
        hash of the error types."""

    def correct(self, samples: Sequence[Sample], seed: int) -> list[CorrectionResult]:
        """Write the corrections of each preference sample, the same whatever others it is given with.

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
    are left out. `drops` of the manifest counts them by reason. `notes` holds the numbers of turns, of those that
    answer yes, no or something else (`open`), of those about each error type (`codes`), and of removed turns and
    errors (`removed`).

    Args:
        shards: directories of preference samples.
        out: directory of the corrected shards; `stages` in it holds the chunks.
        corrector: writes the corrections.
        seed: decides all draws, together with the samples' keys.
        samples_per_shard: size of every shard but the last.
        writing: options of the writer of shards.

    Raises:
        BadSample: a sample is no preference sample, or lacks what the corrector reads, or two have one key.
        EngineError: a model gave nothing that can be used.
        FileExistsError: `out` holds shards of another recipe, or the samples themselves.
    """
    source = load_shards(shards)
    parents = [manifest.hash for manifest in source.manifests]
    settings: dict[str, Any] = {"correct": corrector.recipe(), "seed": seed, "shards": parents}
    linked = writing.get("link_duplicate_images", False)
    recipe = {**settings, "samples_per_shard": samples_per_shard} | (
        {"link_duplicate_images": True} if linked else {}
    )
    if is_finished(out, recipe) and not read_manifest(out).notes.get("unfinished"):
        return read_manifest(out)
    check_out(out, {Path(shard.path).parent for shard in source.shards}, "correct")
    check_samples(source)
    chunks = Chunks(out / STAGES, "correct", settings, len(source), SAMPLES_PER_CHUNK)
    # What lies there beside chunks of this very recipe is an earlier attempt's.
    overwrite = writing.get("overwrite", False) or chunks.directory.is_dir()
    with ShardWriter(
        out,
        recipe=recipe,
        samples_per_shard=samples_per_shard,
        parents=parents,
        link_duplicate_images=linked,
        overwrite=overwrite,
    ) as writer:
        origin = {name: value for name, value in settings["correct"].items() if name in ORIGIN}
        results = _read_results(chunks, source, partial(_rows, source, corrector, seed))
        _write(writer, track(results, "correct", len(source)), origin)
    return read_manifest(out)


def _rows(source: ShardSet, corrector: Corrector, seed: int, indices: Sequence[int]) -> list[dict[str, Any]]:
    samples = [source[index] for index in indices]
    for index, sample in zip(indices, samples, strict=True):
        if sample.chosen is None or sample.rejected is None:
            detail = "corrections are made from a chosen and a rejected answer"
            raise BadSample(Reason.MISSING_ANSWER, source.where(index), detail)
    return [
        asdict(result) | ({UNFINISHED: True} if result.drop in (UNANSWERED, UNUSABLE) else {})
        for result in corrector.correct(samples, seed)
    ]


def _read_results(chunks: Chunks, source: ShardSet, make: Rows) -> Iterator[tuple[Sample, CorrectionResult]]:
    """Yield each sample with its result; a chunk is made when its first sample is read."""
    for number, _ in enumerate(chunks.make(make)):
        for index, row in zip(chunks.slices[number], chunks.read(number), strict=True):
            corrections = (
                Correction(**turn | {"codes": tuple(turn["codes"])}) for turn in row["corrections"]
            )
            yield (
                source[index],
                CorrectionResult(corrections=tuple(corrections), drop=row["drop"], removed=row["removed"]),
            )


def _write(
    writer: ShardWriter, results: Iterable[tuple[Sample, CorrectionResult]], origin: Mapping[str, str]
) -> None:
    answers, codes, removed, drops = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for sample, result in results:
        answers.update(polarity(turn.answer) or "open" for turn in result.corrections)
        codes.update(code for turn in result.corrections for code in turn.codes)
        removed.update(result.removed)
        if result.drop is not None:
            drops[result.drop] += 1
            writer.drop(result.drop)
            continue
        provenance = {**sample.provenance, **origin}
        writer.write(replace(sample, corrections=result.corrections, provenance=provenance))
    writer.note("turns", answers.total())
    for answer in ("yes", "no", "open"):
        writer.note(answer, answers[answer])
    writer.note("codes", dict(sorted(codes.items())))
    writer.note("removed", dict(sorted(removed.items())))
    if unfinished := drops[UNANSWERED] + drops[UNUSABLE]:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(drops.items()))
        fault = (
            f"{unfinished} samples were left out, as the model's output cannot be used ({counts}). {REMEDY}"
        )
        if not answers:
            raise EngineError(f"No correction was made: {fault}")
        stderr.print(f"warning: {fault}", soft_wrap=True)
        writer.note(UNFINISHED, unfinished)
