"""`rlaifv evaluate`: responses to a benchmark, saved or a model's own, to figures; `rlaifv respond`: a model's
responses alone; `rlaifv pope`: questions for one's own images."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

from rich.console import Console
from rich.table import Table

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.evaluation.benchmark import Benchmark
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, object_names, read_json
from rlaifv_pl.evaluation.benchmarks import (
    BENCHMARKS,
    BenchmarkFiles,
    MetricName,
    check_rules,
    read_responses,
    records,
)
from rlaifv_pl.evaluation.chair.forms import Variant
from rlaifv_pl.evaluation.pope import PopeBenchmark
from rlaifv_pl.evaluation.pope_builder import Strategy, build_pope
from rlaifv_pl.evaluation.responder import PROMPT, Responder, answer_benchmark
from rlaifv_pl.evaluation.table_metric import compute_figures, is_count


class Rules(TypedDict, total=False):
    """Options that only some benchmarks have, and further output.

    Args:
        variant: for chair: A (as the POPE paper's figures) or C (as Object HalBench's rules).
        similarity: for amber: file of two words and their cosine a line; without, only equal words mean the same.
        records: JSON lines to write: each response with its key, its prompt where that is known, and what the metric
            makes of it; for chair the objects that are right, hallucinated and missed.
    """

    variant: Variant | None
    similarity: str | None
    records: str | None


def evaluate(
    metric: MetricName,
    responses: str,
    ground_truth: str | None = None,
    out: str | None = None,
    model: Responder | None = None,
    **rules: Unpack[Rules],
) -> dict[str, Any] | None:
    """Compute figures of a model's responses to a public benchmark, by rules; of saved ones without model or network.

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
        model: answers first, as `rlaifv respond` does; `responses` is then written.
        rules: options that only some benchmarks have, and further output.

    Returns:
        The figures; None in a process that only helped the first one to answer.

    Raises:
        BenchmarkError: a file cannot be used, or an option is missing or too many.
    """
    _check(metric, ground_truth, model, rules)
    if model is not None and not _respond(metric, str(ground_truth), responses, model):
        return None
    variant, similarity = rules.get("variant"), rules.get("similarity")
    files = BenchmarkFiles(
        responses=Path(responses),
        ground_truth=Path(ground_truth or responses),
        variant=variant,
        similarity=Path(similarity) if similarity else None,
    )
    benchmark, completions = read_responses(metric, files)
    name, figures = compute_figures(benchmark, completions)
    sources = {"responses": responses, "ground_truth": ground_truth, "similarity": similarity}
    answered_by = {} if model is None else {"model": model.name}
    report = {"metric": metric, "variant": variant, "name": name, **figures, **sources, **answered_by}
    Console().print(_table(name, figures))
    for note in _notes(benchmark, completions):
        Console(stderr=True).print(note)
    if out is not None:
        _save(Path(out), json.dumps(report, indent=2, allow_nan=False))
    if path := rules.get("records"):
        prompt_template = model.prompt_template if model else PROMPT
        _save(Path(path), *map(json.dumps, records(benchmark, completions, prompt_template)))
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
        model: the model that answers, and the images that it is shown.

    Raises:
        BenchmarkError: a file cannot be used, or an image is missing.
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
            objects, or that lack fewer of all objects named, are left out.
        seed: of the draws.
    """
    by_image = _named_objects(Path(objects))
    questions = build_pope(by_image, strategy, per_side=per_side, seed=seed)
    PopeBenchmark(questions).save(Path(out))
    images = len({question.image for question in questions})
    console = Console(soft_wrap=True)
    console.print(f"{len(questions)} questions about {images} images are in {out}.")
    few = sum(len(set(names)) < per_side for names in by_image.values())
    if few:
        console.print(
            f"{few} of {len(by_image)} images have fewer than {per_side} different objects and are left out: "
            "--per_side N asks about those with N or more."
        )
    if full := len(by_image) - images - few:
        console.print(
            f"{full} of {len(by_image)} images have nearly all objects that are named, so that fewer than {per_side} "
            "are absent, and are left out: lower --per_side, or give more images."
        )


def _respond(metric: str, ground_truth: str, out: str, model: Responder) -> bool:
    """Let a model answer, as `answer_benchmark`."""
    source = Path(ground_truth)
    if Path(out).resolve() == source.resolve():
        raise BenchmarkError(f"{out} holds the questions: name another place for the responses")
    files = BenchmarkFiles(responses=source, ground_truth=source)
    return answer_benchmark(BENCHMARKS[metric].open(files), model, Path(out))


def _check(metric: str, ground_truth: str | None, model: Responder | None, rules: Rules) -> None:
    """Check that each option is given where it means something, and nowhere else."""
    check_rules(metric, rules.get("variant"), rules.get("similarity"))
    spec = BENCHMARKS[metric]
    if spec.judged and model is not None:
        raise BenchmarkError(
            f"figures of {metric} are of reviews: `rlaifv respond`, then `rlaifv judge {metric}`"
        )
    if spec.judged and spec.answers_included and ground_truth is not None:
        raise BenchmarkError(f"reviews of {metric} hold the right answers: leave --ground_truth out")
    if ground_truth is None and model is not None:
        raise BenchmarkError(f"the questions are in the files of {metric}: give --ground_truth")
    if ground_truth is None and not spec.answers_included:
        raise BenchmarkError(f"responses to {metric} do not hold the right answers: give --ground_truth")


def _save(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def _notes(benchmark: Benchmark, completions: Mapping[int, str]) -> Iterator[str]:
    """Yield notes on items without a response, and with several."""
    items = benchmark.items
    if missing := [item.key for number, item in enumerate(items) if number not in completions]:
        yield f"{len(missing)} of {len(items)} items have no response (n_missing), the first of them {missing[0]!r}."
    times = Counter(items[number].key for number in completions)
    if several := [key for key, count in times.items() if count > 1]:
        yield f"{len(several)} items have several responses, and each of them counts; the first is {several[0]!r}."


def _named_objects(path: Path) -> dict[str, list[str]]:
    objects = read_json(path, dict)
    return {image: object_names(names, f"{path}, image {image!r}") for image, names in objects.items()}


def _table(name: str, figures: Mapping[str, float | None]) -> Table:
    table = Table("figure", "value", title=name)
    table.columns[1].justify = "right"
    for figure, value in figures.items():
        text = "undefined" if value is None else f"{value:,}" if is_count(figure) else f"{value:z.2f}"
        table.add_row(figure, text)
    return table
