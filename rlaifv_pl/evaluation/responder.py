"""A model answers a benchmark's items; its completions are kept batch by batch, then saved in the official format.

Greedy, so that the same model gives the same figures. Killed anywhere, the same command goes on at the first batch
that has no file; several processes share the batches out between them.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

from rich.console import Console

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.images import storable_image
from rlaifv_pl.data.manifest import hash_file
from rlaifv_pl.evaluation.benchmark import Benchmark, Item
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError
from rlaifv_pl.evaluation.chair.ground_truth import image_key
from rlaifv_pl.evaluation.rank_shares import PARTS_SUFFIX, run_share
from rlaifv_pl.feedback.bad_prompts import skip_bad_prompts
from rlaifv_pl.feedback.chunks import UNFINISHED, WAIT_SECONDS, Chunks, RankShare, Row
from rlaifv_pl.feedback.engines.engine import Engine, EngineError, Sampling
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.records import Sample

PROMPT = "{prompt}"
"""Placeholder of the item's own prompt in a prompt template."""
_INNER_FOLDER = "images"
"""Folder that some benchmarks put between a name's folder and its file."""


@dataclass(frozen=True, kw_only=True)
class Responder:
    """A model that answers a benchmark, and the images that it is shown.

    Args:
        images: directory of the images; numbers are found by COCO's names, too, and names without a suffix by any.
        path: directory of the model, such as `rlaifv export` writes, or its hub name.
        dtype: of the weights of `path`; float32 unless given.
        engine: answers in place of `path`, such as `rlaifv_pl.feedback.engines.openai_engine.OpenAIEngine` with
            `--model.engine.model NAME`.
        batch_size: items asked at once, and kept as one chunk.
        max_new_tokens: longest completion.
        prompt_template: text that is asked; {prompt} stands for the benchmark's own prompt.
        limit: number of items, from the first on; all of them unless given.

    Raises:
        ValueError: settings contradict each other or are out of range.
    """

    images: str
    path: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    engine: Engine | None = None
    batch_size: int = 16
    max_new_tokens: int = 512
    prompt_template: str = PROMPT
    limit: int | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.engine is None):
            raise ValueError(
                "the model is either a directory (model.path) or an engine (model.engine): give one of them"
            )
        if self.path is None and self.dtype is not None:
            raise ValueError("model.dtype is of model.path: give an engine its own setting")
        if min(self.batch_size, self.max_new_tokens) < 1:
            raise ValueError(
                f"batch_size and max_new_tokens must be at least 1, got {self.batch_size}, {self.max_new_tokens}"
            )
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1 item, got {self.limit}; leave it out for all of them")

    @property
    def name(self) -> str:
        """Name of the model in reports: its directory, or its engine's identity."""
        return self.path if self.path is not None else self.open().identity

    def open(self) -> Engine:
        """Return the engine; weights are loaded when it is first asked."""
        if self.engine is not None:
            return self.engine
        return TransformersEngine(
            path=str(self.path), dtype=self.dtype or "float32", batch_size=self.batch_size
        )


@dataclass(frozen=True, slots=True)
class BenchmarkPrompt:
    """Prompt and image of one item."""

    key: str
    prompt: str
    path: Path | None
    """File of the image; None where there is none to show."""

    @property
    def sample(self) -> Sample:
        """The prompt as engines take it.

        Raises:
            BadSample: the image cannot be opened.
        """
        images = (storable_image(self.path.read_bytes(), str(self.path)),) if self.path else ()
        return Sample(key=self.key, prompt=self.prompt, images=images)


def answer_benchmark(
    benchmark: Benchmark, responder: Responder, out: Path, share: RankShare | None = None
) -> bool:
    """Save a model's completions in the official format; items that are answered already are not asked again.

    Args:
        out: file or directory, as the benchmark has it; chunks of completions stay beside it, in `<out>.parts`.
        share: of this process; as the launcher says unless given.

    Returns:
        Whether this process wrote them: of several, the first does, when all are done.

    Raises:
        BenchmarkError: an image is missing, or an item has no prompt.
        EngineError: the model cannot be asked.
        TimeoutError: another process does not make its share.
    """
    share, engine = share or RankShare.from_launcher(), responder.open()
    sampling = Sampling(n=1, temperature=0.0, max_new_tokens=responder.max_new_tokens)
    prompts = build_prompts(benchmark.items[: responder.limit], responder.images, responder.prompt_template)
    recipe = {"model": engine.identity, "sampling": asdict(sampling), "asked": _recipe(prompts)}
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = Chunks(
        out.with_name(out.name + PARTS_SUFFIX), "respond", recipe, len(prompts), responder.batch_size
    )

    def answer(numbers: Sequence[int]) -> Iterator[Row]:
        samples = [prompts[number].sample for number in numbers]
        drawn = skip_bad_prompts(
            samples, lambda good: engine.sample([samples[n] for n in good], [[0]] * len(good), sampling)
        )
        for sample, completions in zip(samples, drawn, strict=True):
            if isinstance(completions, BadSample):
                yield {"key": sample.key, "completion": None, "fault": str(completions)}
                continue
            (one,) = completions
            row = {"key": sample.key, "completion": one.text, "ended": one.ended}
            yield row if one.text.strip() else row | {UNFINISHED: True}

    run_share(parts, answer, "respond", share)
    engine.release()
    if share.is_main_process:
        parts.wait(WAIT_SECONDS)
        _write(benchmark, list(parts.rows()), responder, out)
    return share.is_main_process


def _write(benchmark: Benchmark, rows: Sequence[Row], responder: Responder, out: Path) -> None:
    """Write the completions, and report items without one and answers that the limit cut off, which are measured as
    they are, as the benchmarks' authors do."""
    if rows and all(row.get(UNFINISHED) for row in rows):
        raise EngineError(
            f"{responder.name} gave an empty answer to each of {len(rows)} items. Look at the server's log, allow "
            "a model that thinks first more tokens (model.max_new_tokens), or turn thinking off; the same command "
            "asks again."
        )
    faults = [row["fault"] for row in rows if row["completion"] is None]
    if faults and len(faults) == len(rows):
        raise BenchmarkError(f"none of the {len(rows)} items can be asked: {faults[0]}")
    completions = {n: row["completion"] for n, row in enumerate(rows) if row["completion"] is not None}
    benchmark.write(out, completions)
    report = partial(Console(stderr=True).print, markup=False, highlight=False, soft_wrap=True)
    if faults:
        report(f"left out: {len(faults)} of {len(rows)} items cannot be asked, the first: {faults[0]}")
    if cut := sum(not row.get("ended", True) for row in rows):
        report(
            f"warning: {cut} of {len(rows)} answers are cut off, most likely at model.max_new_tokens "
            f"({responder.max_new_tokens}): the rest of them is not measured."
        )


def build_prompts(
    items: Sequence[Item], images: str | Path, prompt_template: str = PROMPT
) -> list[BenchmarkPrompt]:
    """Return the prompt and image of each item.

    Args:
        images: directory, as of a `Responder`.
        prompt_template: as of a `Responder`.

    Raises:
        BenchmarkError: an image is missing, or an item has no prompt.
    """
    paths = find_images([item.image for item in items], Path(images))
    return [
        BenchmarkPrompt(item.key, _prompt(item, prompt_template), path)
        for item, path in zip(items, paths, strict=True)
    ]


def find_images(names: Sequence[str], directory: Path) -> list[Path | None]:
    """Return the file of each image; None for an empty name.

    Raises:
        BenchmarkError: one has none below the directory, or several that it might be.
    """
    files_by_key = cache(_files_by_key)
    candidates = {name: _candidates(name, directory, files_by_key) for name in dict.fromkeys(names) if name}
    missing = [name for name, paths in candidates.items() if not paths]
    if missing:
        raise BenchmarkError(
            f"{directory}: expected an image {missing[0]!r}, got none ({len(missing)} of {len(candidates)} are missing)"
        )
    for name, paths in candidates.items():
        if len(paths) > 1:
            raise BenchmarkError(
                f"{directory}: expected one image {name!r}, got {paths[0].name} and {paths[1].name}"
            )
    return [candidates[name][0] if name else None for name in names]


def _candidates(
    name: str, directory: Path, files_by_key: Callable[[Path], dict[str, list[Path]]]
) -> list[Path]:
    # Lexically: a link below the directory was put there by its owner.
    path = Path(os.path.abspath(directory / name))
    if not path.is_relative_to(os.path.abspath(directory)):
        raise BenchmarkError(f"{directory}: expected images below it, got one named {name!r}")
    folders = (path.parent, path.parent / _INNER_FOLDER)
    if exact := [folder / path.name for folder in folders if (folder / path.name).is_file()]:
        return exact[:1]
    return [file for folder in folders for file in files_by_key(folder).get(image_key(path.name), [])]


def _files_by_key(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder by all keys that may mean them."""
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        for key in {image_key(file.name), image_key(file.stem)} if file.is_file() else ():
            files.setdefault(key, []).append(file)
    return files


def _prompt(item: Item, prompt_template: str) -> str:
    if not item.prompt and PROMPT in prompt_template:
        raise BenchmarkError(
            f"item {item.key!r} has no prompt. Give the benchmark's file of questions as well, or a prompt_template."
        )
    return prompt_template.replace(PROMPT, item.prompt)


def _recipe(prompts: Sequence[BenchmarkPrompt]) -> list[list[str | None]]:
    """Return all prompts as JSON: each image by the hash of its bytes, wherever it lies."""
    hashes = {path: hash_file(path) for path in {one.path for one in prompts} if path}
    return [[one.key, one.prompt, hashes.get(one.path) if one.path else None] for one in prompts]
