"""`rlaifv evaluate`: responses to a benchmark, saved or a model's own, to figures; `rlaifv respond`: a model's
responses alone; `rlaifv pope`: questions for one's own images."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, get_args

from rich.console import Console
from rich.table import Table

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.metrics.amber.benchmark import AmberBenchmark
from rlaifv_pl.metrics.amber.similarity import SimilarityTable
from rlaifv_pl.metrics.benchmark import Benchmark
from rlaifv_pl.metrics.chair.benchmark import ChairBenchmark
from rlaifv_pl.metrics.chair.forms import Variant
from rlaifv_pl.metrics.chair.ground_truth import read_objects
from rlaifv_pl.metrics.files import BenchmarkError, read_json
from rlaifv_pl.metrics.hallusion import HallusionBenchmark
from rlaifv_pl.metrics.judged.llava_bench import LlavaBenchmark
from rlaifv_pl.metrics.judged.mmhal import MmhalBenchmark
from rlaifv_pl.metrics.judged.objhal import ObjHalBenchmark
from rlaifv_pl.metrics.judged.refomb import RefombBenchmark
from rlaifv_pl.metrics.mme import MmeBenchmark
from rlaifv_pl.metrics.mmstar import MMStarBenchmark
from rlaifv_pl.metrics.pope import PopeBenchmark
from rlaifv_pl.metrics.pope_builder import Strategy, build_pope
from rlaifv_pl.metrics.respond import Responder, respond_to
from rlaifv_pl.metrics.table import is_count
from rlaifv_pl.metrics.vqa import VqaBenchmark

MetricName = Literal[
    "chair",
    "amber",
    "pope",
    "mmstar",
    "mme",
    "hallusionbench",
    "vqa",
    "mmhal",
    "objhal",
    "llava_bench",
    "refomb",
]

_OF_REVIEWS = ("mmhal", "llava_bench", "refomb")
"""Benchmarks whose figures are of a judge's reviews alone."""
_JUDGED = (*_OF_REVIEWS, "objhal")
_SELF_CONTAINED = ("mmstar", "mme", "hallusionbench", *_OF_REVIEWS)
"""Benchmarks whose official responses hold the right answers as well."""


class Rules(TypedDict, total=False):
    """Options that only some benchmarks have.

    Args:
        variant: of chair: A (as the POPE paper's figures) or C (as Object HalBench's rules).
        similarity: of amber: file of two words and their cosine a line; without, only equal words mean the same.
    """

    variant: Variant | None
    similarity: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What the command line says."""

    metric: str
    responses: Path
    ground_truth: Path
    variant: Variant | None
    similarity: Path | None


def evaluate(
    metric: MetricName,
    responses: str,
    ground_truth: str | None = None,
    out: str | None = None,
    model: Responder | None = None,
    **rules: Unpack[Rules],
) -> dict[str, Any] | None:
    """Figures of a model's responses to a public benchmark, by rules. Of saved ones: no model, no network.

    Args:
        metric: the benchmark.
        responses: in the official format. chair: JSON lines of image_id and caption; amber: a list of id and
            response; pope: JSON lines of question and answer; mmstar: a workbook with index and prediction; mme: a
            directory of files with a prediction at the end of each line; hallusionbench: its JSON with
            model_prediction; vqa: a list of question_id and answer; mmhal, objhal, llava_bench and refomb: reviews that
            `rlaifv judge` wrote, llava_bench and refomb also those of the authors' scripts.
        ground_truth: official files. chair: JSON of image to classes, or a directory of COCO's instances and
            captions, and objhal the same; amber: its directory `data`; pope: a file of questions; vqa: annotations.
            mmstar, mme and hallusionbench: only if the responses do not hold the answers.
        out: JSON file to write the figures to.
        model: who answers first, as `rlaifv respond` does; `responses` is then what is written.
        rules: options that only some benchmarks have.

    Returns:
        the figures; None in a process that only helped the first one to answer.

    Raises:
        BenchmarkError: a file is not as it must be, or an option is missing or too many.
    """
    _check(metric, ground_truth, model, rules)
    if model is not None and not _respond(metric, str(ground_truth), responses, model):
        return None
    variant, similarity = rules.get("variant"), rules.get("similarity")
    given = Given(
        metric=metric,
        responses=Path(responses),
        ground_truth=Path(ground_truth or responses),
        variant=variant,
        similarity=Path(similarity) if similarity else None,
    )
    benchmark = OPENED[metric](given)
    name, figures = measure(benchmark, benchmark.read(given.responses))
    sources = {"responses": responses, "ground_truth": ground_truth, "similarity": similarity}
    answered_by = {} if model is None else {"model": model.name}
    report = {"metric": metric, "variant": variant, "name": name, **figures, **sources, **answered_by}
    Console().print(_table(name, figures))
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(Path(out)) as file:
            file.write((json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    return report


def respond(metric: MetricName, ground_truth: str, out: str, model: Responder) -> None:
    """Let a model answer a public benchmark, greedily, and save its responses for `rlaifv evaluate` or `rlaifv judge`.

    Killed anywhere, the same command goes on where it was. Several processes share the work when a launcher
    starts them: `torchrun --nproc-per-node 8 --no-python rlaifv respond ...`.

    Args:
        metric: the benchmark.
        ground_truth: official files, as of `rlaifv evaluate`, which hold the prompts; vqa: a directory of questions
            and annotations; mmhal: the authors' template; chair: every image of it is described; others: questions.
        out: responses to write, in the official format: JSON, JSON lines, a workbook (mmstar) or a directory (mme).
        model: who answers, and what it is shown.

    Raises:
        BenchmarkError: a file is not as it must be, or an image is missing.
    """
    if _respond(metric, ground_truth, out, model):
        Console().print(f"responses are in {out}")


def pope(
    objects: str, out: str, strategy: Strategy = "adversarial", per_side: int = 3, seed: int = 0
) -> None:
    """Write yes/no questions about objects for images whose objects are known, by POPE's rules.

    Args:
        objects: JSON of image to names of objects, of any vocabulary.
        out: JSON lines to write, in POPE's format.
        strategy: which absent objects are asked for.
        per_side: questions of an image whose answer is yes, and as many whose answer is no; images with fewer
            objects are left out.
        seed: of what is drawn.
    """
    questions = build_pope(_named_objects(Path(objects)), strategy, per_side=per_side, seed=seed)
    PopeBenchmark(questions).save(Path(out))
    images = len({question.image for question in questions})
    Console().print(f"{len(questions)} questions about {images} images are in {out}.")


def measure(benchmark: Benchmark, completions: Mapping[int, str]) -> tuple[str, dict[str, float | None]]:
    """Name and figures of a benchmark's metric; None where a figure is not defined.

    Args:
        completions: by the number of their item.
    """
    metric = benchmark.metric()
    metric.update(list(completions.values()), list(completions))
    figures = {name: value.item() for name, value in metric.compute().items()}
    return metric.name, {
        name: None if math.isnan(value) else int(value) if is_count(name) else value
        for name, value in figures.items()
    }


def _chair(given: Given) -> ChairBenchmark:
    objects = read_objects(given.ground_truth, given.variant)
    return ChairBenchmark.of_responses(objects, given.variant, given.responses)


def _amber(given: Given) -> AmberBenchmark:
    similarity = SimilarityTable.load(given.similarity) if given.similarity else None
    return AmberBenchmark(given.ground_truth, similarity)


def _respond(metric: str, ground_truth: str, out: str, model: Responder) -> bool:
    """As `respond_to`."""
    source = Path(ground_truth)
    if Path(out).resolve() == source.resolve():
        raise BenchmarkError(f"{out} holds what is asked: name another place for the responses")
    given = Given(metric=metric, responses=source, ground_truth=source, variant=None, similarity=None)
    return respond_to(ASKED[metric](given), model, Path(out))


def _all_images(given: Given) -> ChairBenchmark:
    # The variant decides which objects there are, and not which images.
    return ChairBenchmark(read_objects(given.ground_truth, "A"), "A")


OPENED: dict[str, Callable[[Given], Benchmark]] = {
    "chair": _chair,
    "amber": _amber,
    "pope": lambda given: PopeBenchmark.load(given.ground_truth),
    "mmstar": lambda given: MMStarBenchmark.load(given.ground_truth),
    "mme": lambda given: MmeBenchmark.load(given.ground_truth),
    "hallusionbench": lambda given: HallusionBenchmark.load(given.ground_truth),
    "vqa": lambda given: VqaBenchmark.load(given.ground_truth),
    "mmhal": lambda given: MmhalBenchmark.load(given.responses),
    "objhal": lambda given: ObjHalBenchmark.load(given.responses, read_objects(given.ground_truth, "C")),
    "llava_bench": lambda given: LlavaBenchmark.load(given.responses),
    "refomb": lambda given: RefombBenchmark.load(given.responses),
}
"""How each benchmark is opened, to measure responses."""

ASKED = OPENED | {"chair": _all_images, "objhal": lambda given: ObjHalBenchmark.load(given.ground_truth)}
"""And how to be answered."""


def _check(metric: str, ground_truth: str | None, model: Responder | None, rules: Rules) -> None:
    """That each option is given where it means something, and nowhere else."""
    variant = rules.get("variant")
    if metric == "chair" and variant is None:
        raise BenchmarkError(
            f"chair has variants whose figures differ: give --variant, one of {get_args(Variant)}"
        )
    if metric != "chair" and variant is not None:
        raise BenchmarkError(f"{metric} has no variants: leave --variant out")
    if metric != "amber" and rules.get("similarity") is not None:
        raise BenchmarkError(f"{metric} asks for no similarity of words: leave --similarity out")
    if metric in _JUDGED and model is not None:
        raise BenchmarkError(
            f"figures of {metric} are of reviews: `rlaifv respond`, then `rlaifv judge {metric}`"
        )
    if metric in _OF_REVIEWS and ground_truth is not None:
        raise BenchmarkError(f"reviews of {metric} hold what is right: leave --ground_truth out")
    if ground_truth is None and model is not None:
        raise BenchmarkError(f"what a model is asked is in the files of {metric}: give --ground_truth")
    if ground_truth is None and metric not in _SELF_CONTAINED:
        raise BenchmarkError(f"responses of {metric} do not hold what is right: give --ground_truth")


def _named_objects(path: Path) -> dict[str, list[str]]:
    objects = read_json(path, dict)
    for image, names in objects.items():
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise BenchmarkError(f"{path}, image {image!r}: expected a list of names, got {names!r:.60}")
    return objects


def _table(name: str, figures: Mapping[str, float | None]) -> Table:
    table = Table("figure", "value", title=name)
    table.columns[1].justify = "right"
    for figure, value in figures.items():
        shown = f"{value:,}" if is_count(figure) else "undefined" if value is None else f"{value:.2f}"
        table.add_row(figure, shown)
    return table
