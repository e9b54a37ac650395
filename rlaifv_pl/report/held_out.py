"""Held-out figures of a run: figures over steps, and first and last answers to the same items side by side."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaifv_pl.evaluation.benchmark import Benchmark
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError
from rlaifv_pl.evaluation.benchmarks import records
from rlaifv_pl.evaluation.responder import build_prompts
from rlaifv_pl.evaluation.table_metric import better
from rlaifv_pl.report.run_files import ReportError
from rlaifv_pl.report.thumbnails import Thumbnails
from rlaifv_pl.rounds.answers import answers_path, read_answers
from rlaifv_pl.training.held_out import HeldOutBenchmark, responses_path

CURVES = 5
"""Figures of a benchmark that are drawn; a table has them all."""
EVALUATOR = "evaluator of the rounds"
"""Stands where those of benchmarks have their names."""


def figures_of(entries: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each benchmark with its figures by step: `{name, metric, steps, series: [{figure, y}], drawn}`."""
    found = []
    for name, entry in entries.items():
        steps = entry["steps"]
        names = dict.fromkeys(figure for one in steps for figure in one["figures"])
        series = [{"figure": each, "y": [one["figures"].get(each) for one in steps]} for each in names]
        drawn = [each for each in names if better(each)][:CURVES]
        known = {"name": name, "metric": entry["metric"], "steps": [one["step"] for one in steps]}
        found.append(known | {"series": series, "drawn": drawn})
    return found


def answer_rows(
    directory: Path, name: str, entry: Mapping[str, Any], thumbnails: Thumbnails
) -> Iterator[dict[str, Any]]:
    """Items of a benchmark with what was answered at the first step and at the last.

    Args:
        directory: `<run>/held_out`.
        entry: of the benchmark, as the file of figures has it.
        thumbnails: takes up the images.

    Raises:
        ReportError: files of the benchmark are no longer there, or no longer what they were.
    """
    settings = HeldOutBenchmark.from_json(entry)
    steps = sorted({entry["steps"][0]["step"], entry["steps"][-1]["step"]})
    try:
        benchmark = settings.open()
        prompts = build_prompts(
            benchmark.items[: settings.limit], settings.images or "", settings.prompt_template
        )
        paths = [responses_path(directory, name, settings.metric, step) for step in steps]
        answers = [_answers(benchmark, path, step) for path, step in zip(paths, steps, strict=True)]
    except BenchmarkError as error:
        raise ReportError(f"{name}: {error}") from error
    for item in prompts:
        said = [by_key[item.key] for by_key in answers if item.key in by_key]
        images = [thumbnails.add(data, item.key) for data in item.sample.images]
        yield _row(name, item.key, item.prompt, images, said)


def round_rows(rounds: Path, numbers: Sequence[int], thumbnails: Thumbnails) -> Iterator[dict[str, Any]]:
    """Held-out prompts of a run's evaluator with what was answered at the first measurement and at the last.

    Args:
        rounds: directory of the run's rounds.
        numbers: of the rounds after which was measured, in order.
        thumbnails: takes up the images.

    Raises:
        ReportError: a file of answers is damaged, or an image is missing.
    """
    kept = [number for number in numbers if answers_path(rounds, number).is_file()]
    said: dict[str, list[dict[str, Any]]] = {}
    asked: dict[str, tuple[str, Sequence[bytes]]] = {}
    for number in sorted({*kept[:1], *kept[-1:]}):
        try:
            for row, images in read_answers(rounds, number):
                asked[row["key"]] = row["prompt"], images
                when = f"after round {number}" if number else "at the start"
                said.setdefault(row["key"], []).append(_answer(when, row["completion"], row["mentions"]))
        except (ValueError, OSError) as error:
            raise ReportError(f"{answers_path(rounds, number)}: {error}") from error
    for key, (prompt, pictures) in asked.items():
        yield _row(EVALUATOR, key, prompt, [thumbnails.add(data, key) for data in pictures], said[key])


def _answer(when: str, text: str, marks: Sequence[Sequence[Any]]) -> dict[str, Any]:
    return {"when": when, "text": text, "right": None, "expected": None, "marks": list(map(list, marks))}


def _row(
    name: str, key: str, prompt: str, images: list[int | str], said: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "benchmark": name,
        "key": key,
        "prompt": prompt,
        "images": images,
        "answers": said,
        "changed": len({each["text"] for each in said}) > 1,
    }


def _answers(benchmark: Benchmark, path: Path, step: int) -> dict[str, dict[str, Any]]:
    """Answers of a step by their item's key."""
    return {
        record["key"]: {
            "when": f"step {step:,}",
            "text": record["completion"],
            "right": record.get("right"),
            "expected": record.get("expected"),
            "marks": [[one["start"], one["end"], one["right"]] for one in record.get("mentions", ())],
        }
        for record in records(benchmark, benchmark.read(path))
    }
