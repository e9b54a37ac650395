"""Every benchmark by its name: how it is opened, to measure saved responses or to be answered first."""

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
    """Files and rules of a benchmark."""

    responses: Path
    ground_truth: Path
    variant: Variant | None = None
    similarity: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkSpec:
    """One benchmark, with the format of its responses."""

    open: Callable[[BenchmarkFiles], Benchmark]
    """Opens it to be answered."""
    responses: str
    """Official format, for messages."""
    suffix: str = ".json"
    """Suffix of a file of responses; empty for a directory."""
    answers_included: bool = False
    """True if official responses hold the right answers as well."""
    judged: bool = False
    """True if responses are reviews by a judge."""


def _chair(files: BenchmarkFiles) -> ChairBenchmark:
    # Which variant it is does not matter to a model that answers.
    variant = files.variant or "A"
    return ChairBenchmark(read_objects(files.ground_truth, variant), variant)


def _amber(files: BenchmarkFiles) -> AmberBenchmark:
    similarity = SimilarityTable.load(files.similarity) if files.similarity else None
    return AmberBenchmark(files.ground_truth, similarity)


_REVIEWS = "the reviews that `rlaifv judge {}` writes"
BENCHMARKS = {
    "chair": BenchmarkSpec(open=_chair, responses="JSON lines of {image_id, caption}", suffix=".jsonl"),
    "amber": BenchmarkSpec(open=_amber, responses="a JSON list of {id, response}"),
    "pope": BenchmarkSpec(
        open=lambda files: PopeBenchmark.load(files.ground_truth),
        responses="JSON lines of {question_id, answer}, or of {question, answer} in the order of the questions",
        suffix=".jsonl",
    ),
    "mmstar": BenchmarkSpec(
        open=lambda files: MMStarBenchmark.load(files.ground_truth),
        responses="a workbook (.xlsx), table (.tsv, .csv) or JSON with index and prediction",
        suffix=".xlsx",
        answers_included=True,
    ),
    "mme": BenchmarkSpec(
        open=lambda files: MmeBenchmark.load(files.ground_truth),
        responses="a directory of <category>.txt with lines of image, question, answer and prediction between tabs",
        suffix="",
        answers_included=True,
    ),
    "hallusionbench": BenchmarkSpec(
        open=lambda files: HallusionBenchmark.load(files.ground_truth),
        responses="rows of HallusionBench.json with a model_prediction each",
        answers_included=True,
    ),
    "vqa": BenchmarkSpec(
        open=lambda files: VqaBenchmark.load(files.ground_truth),
        responses="a JSON list of {question_id, answer}",
    ),
    "mmhal": BenchmarkSpec(
        open=lambda files: MmhalBenchmark.load(files.ground_truth),
        responses=_REVIEWS.format("mmhal"),
        answers_included=True,
        judged=True,
    ),
    "objhal": BenchmarkSpec(
        open=lambda files: ObjHalBenchmark.load(files.ground_truth),
        responses=_REVIEWS.format("objhal"),
        suffix=".jsonl",
        judged=True,
    ),
    "llava_bench": BenchmarkSpec(
        open=lambda files: LlavaBenchmark.load(files.ground_truth),
        responses=_REVIEWS.format("llava_bench") + ", or those of its authors' script",
        suffix=".jsonl",
        answers_included=True,
        judged=True,
    ),
    "refomb": BenchmarkSpec(
        open=lambda files: RefombBenchmark.load(files.ground_truth),
        responses=_REVIEWS.format("refomb") + ", or those of its authors' script",
        suffix=".jsonl",
        answers_included=True,
        judged=True,
    ),
}


def check_rules(metric: str, variant: str | None, similarity: str | None) -> None:
    """Check that each rule is given where it means something, and nowhere else.

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
        raise BenchmarkError(f"{metric} compares no words: leave --similarity out")


def read_responses(metric: str, files: BenchmarkFiles) -> tuple[Benchmark, dict[int, str]]:
    """Open a benchmark and read saved responses to it, by the number of their item.

    Raises:
        BenchmarkError: a file cannot be used; of a file of responses it says what was expected.
    """
    spec = BENCHMARKS[metric]
    try:
        if metric == "chair" and files.variant:
            objects = read_objects(files.ground_truth, files.variant)
            benchmark: Benchmark = ChairBenchmark.of_responses(objects, files.variant, files.responses)
        elif metric == "objhal":
            objects = read_objects(files.ground_truth, "C")
            benchmark = ObjHalBenchmark.of_reviews(files.responses, objects)
        else:
            benchmark = spec.open(files)
        return benchmark, benchmark.read(files.responses)
    except BenchmarkError as error:
        if not str(error).startswith(str(files.responses)):
            raise
        raise BenchmarkError(f"{error}. Responses to {metric} are {spec.responses}.") from error


def records(
    benchmark: Benchmark, completions: Mapping[int, str], prompt_template: str = PROMPT
) -> Iterator[dict[str, Any]]:
    """Yield each completion with its item's key, prompt and image, and what the metric makes of it, as JSON.

    Args:
        completions: by the number of their item.
        prompt_template: the one that was asked, where it is known.
    """
    for number, completion in sorted(completions.items()):
        item = benchmark.items[number]
        prompt = {"prompt": prompt_template.replace(PROMPT, item.prompt), "image": item.image}
        known = {name: value for name, value in prompt.items() if value}
        yield {
            "key": item.key,
            **known,
            "completion": completion,
            **benchmark.record(number, completion),
        }
