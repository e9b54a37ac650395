"""How each benchmark is opened: to measure responses that are there, or to be answered and measured afterwards."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rlaifv_pl.evaluation.amber.benchmark import AmberBenchmark
from rlaifv_pl.evaluation.amber.similarity import SimilarityTable
from rlaifv_pl.evaluation.benchmark import Benchmark
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError
from rlaifv_pl.evaluation.chair.benchmark import ChairBenchmark
from rlaifv_pl.evaluation.chair.forms import Variant
from rlaifv_pl.evaluation.chair.ground_truth import read_objects
from rlaifv_pl.evaluation.hallusion import HallusionBenchmark
from rlaifv_pl.evaluation.judged.llava_bench import LlavaBenchmark
from rlaifv_pl.evaluation.judged.mmhal import MmhalBenchmark
from rlaifv_pl.evaluation.judged.objhal import ObjHalBenchmark
from rlaifv_pl.evaluation.judged.refomb import RefombBenchmark
from rlaifv_pl.evaluation.mme import MmeBenchmark
from rlaifv_pl.evaluation.mmstar import MMStarBenchmark
from rlaifv_pl.evaluation.pope import PopeBenchmark
from rlaifv_pl.evaluation.responder import PROMPT
from rlaifv_pl.evaluation.table_metric import is_count
from rlaifv_pl.evaluation.vqa import VqaBenchmark

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


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkFiles:
    """What is said of a benchmark's files and rules."""

    metric: str
    responses: Path
    ground_truth: Path
    variant: Variant | None
    similarity: Path | None


def check_rules(metric: str, variant: str | None, similarity: str | None) -> None:
    """That each rule is given where it means something, and nowhere else.

    Raises:
        BenchmarkError: one is missing, or too many.
    """
    if metric == "chair" and variant is None:
        raise BenchmarkError(
            f"chair has variants whose figures differ: give --variant, one of {get_args(Variant)}"
        )
    if metric != "chair" and variant is not None:
        raise BenchmarkError(f"{metric} has no variants: leave --variant out")
    if metric != "amber" and similarity is not None:
        raise BenchmarkError(f"{metric} asks for no similarity of words: leave --similarity out")


def compute_figures(
    benchmark: Benchmark, completions: Mapping[int, str]
) -> tuple[str, dict[str, float | None]]:
    """Name and figures of a benchmark's metric; None where a figure is not defined.

    Args:
        completions: by the number of their item.
    """
    metric = benchmark.metric()
    # All completions are here, and other processes may be elsewhere: nothing is brought together.
    metric._to_sync = metric.sync_on_compute = False
    metric.update(list(completions.values()), list(completions))
    figures = {name: value.item() for name, value in metric.compute().items()}
    return metric.name, {
        name: None if math.isnan(value) else int(value) if is_count(name) else value
        for name, value in figures.items()
    }


def records(
    benchmark: Benchmark, completions: Mapping[int, str], prompt_template: str = PROMPT
) -> Iterator[dict[str, Any]]:
    """Each completion with its item's key, prompt and image, and what the metric makes of it, as JSON.

    Args:
        completions: by the number of their item.
        prompt_template: the one that was asked, where it is known.
    """
    metric = benchmark.metric()
    for number, completion in sorted(completions.items()):
        item = benchmark.items[number]
        asked = {"prompt": prompt_template.replace(PROMPT, item.prompt), "image": item.image}
        known = {name: value for name, value in asked.items() if value}
        yield {"key": item.key, **known, "completion": completion, **metric.record(number, completion)}


def _chair(given: BenchmarkFiles) -> ChairBenchmark:
    objects = read_objects(given.ground_truth, given.variant)
    return ChairBenchmark.of_responses(objects, given.variant, given.responses)


def _all_images(given: BenchmarkFiles) -> ChairBenchmark:
    # Of which variant does not matter to whoever only answers.
    variant = given.variant or "A"
    return ChairBenchmark(read_objects(given.ground_truth, variant), variant)


def _amber(given: BenchmarkFiles) -> AmberBenchmark:
    similarity = SimilarityTable.load(given.similarity) if given.similarity else None
    return AmberBenchmark(given.ground_truth, similarity)


OPENED: dict[str, Callable[[BenchmarkFiles], Benchmark]] = {
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

BENCHMARKS = OPENED | {"chair": _all_images, "objhal": lambda given: ObjHalBenchmark.load(given.ground_truth)}
"""And how to be answered."""

SUFFIXES = {
    "chair": ".jsonl",
    "amber": ".json",
    "pope": ".jsonl",
    "mmstar": ".xlsx",
    "mme": "",
    "hallusionbench": ".json",
    "vqa": ".json",
}
"""Of files of responses in the official format; those of MME are a directory."""
