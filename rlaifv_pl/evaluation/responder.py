"""A model answers a benchmark's items; what it says is kept batch by batch, then saved in the official format.

Greedy, so that the same model gives the same figures. Killed anywhere, the same command goes on at the first batch
that has no file; several processes share the batches out between them.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
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
_BETWEEN = "images"
"""Folder that some benchmarks put between a name's folder and its file."""


@dataclass(frozen=True, kw_only=True)
class Responder:
    """A model that answers a benchmark, and the images that it is shown.

    Args:
        images: directory of the images; numbers are found by COCO's names, too, and names without a suffix by any.
        path: directory of the model, such as `rlaifv export` writes, or its hub name.
        dtype: of the weights of `path`; float32 unless given.
        engine: who answers in place of `path`, such as `rlaifv_pl.feedback.engines.openai_engine.OpenAIEngine` with
            `--model.engine.model NAME`.
        batch_size: items asked at once, and kept as one part.
        max_new_tokens: of a completion.
        prompt_template: text that is asked; {prompt} stands for the benchmark's own prompt.
        limit: the first so many items only; all of them unless given.

    Raises:
        ValueError: a setting that makes no sense.
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
        """Of the model, in reports: its directory, or what its engine is known by."""
        return self.path if self.path is not None else self.open().identity

    def open(self) -> Engine:
        """Who answers; weights are loaded when it is first asked."""
        if self.engine is not None:
            return self.engine
        return TransformersEngine(
            path=str(self.path), dtype=self.dtype or "float32", batch_size=self.batch_size
        )


@dataclass(frozen=True, slots=True)
class BenchmarkPrompt:
    """One item as it is put to a model."""

    key: str
    prompt: str
    path: Path | None
    """Of the image; None where there is none to show."""

    @property
    def sample(self) -> Sample:
        """What an engine takes.

        Raises:
            BadSample: the image cannot be opened.
        """
        images = (storable_image(self.path.read_bytes(), str(self.path)),) if self.path else ()
        return Sample(key=self.key, prompt=self.prompt, images=images)


def answer_benchmark(
    benchmark: Benchmark, responder: Responder, out: Path, share: RankShare | None = None
) -> bool:
    """Save a model's completions of the items in the official format; what is answered already is not asked again.

    Args:
        benchmark: to answer.
        responder: who does.
        out: file or directory, as the benchmark wants it; the parts stay beside it, in `<out>.parts`.
        share: of this process; as the launcher says unless given.

    Returns:
        whether this process wrote them: of several, the first does, when all are done.

    Raises:
        BenchmarkError: an image is missing, or an item has no prompt.
        EngineError: the model cannot be asked.
        TimeoutError: another process does not make its share.
    """
    share, engine = share or RankShare.from_launcher(), responder.open()
    sampling = Sampling(n=1, temperature=0.0, max_new_tokens=responder.max_new_tokens)
    asked = ask(benchmark.items[: responder.limit], responder.images, responder.prompt_template)
    recipe = {"model": engine.identity, "sampling": asdict(sampling), "asked": _recipe(asked)}
    parts = Chunks(_beside(out), "respond", recipe, len(asked), responder.batch_size)

    def answer(some: Sequence[int]) -> Iterator[Row]:
        samples = [asked[number].sample for number in some]
        drawn = skip_bad_prompts(
            samples, lambda good: engine.sample([samples[n] for n in good], [[0]] * len(good), sampling)
        )
        for sample, said in zip(samples, drawn, strict=True):
            if isinstance(said, BadSample):
                yield {"key": sample.key, "completion": None, "fault": str(said)}
                continue
            row = {"key": sample.key, "completion": said[0].text, "ended": said[0].ended}
            yield row if said[0].text.strip() else row | {UNFINISHED: True}

    run_share(parts, answer, "respond", share)
    engine.release()
    if share.is_main_process:
        parts.wait(WAIT_SECONDS)
        rows = list(parts.rows())
        if rows and all(row.get(UNFINISHED) for row in rows):
            raise EngineError(
                f"{responder.name} gave an empty answer to each of {len(rows)} items. Look at the server's log, allow "
                "a model that thinks first more tokens (model.max_new_tokens), or turn thinking off; the same command "
                "asks again."
            )
        _tell_faults([row["fault"] for row in rows if row["completion"] is None], len(rows))
        kept = {n: row["completion"] for n, row in enumerate(rows) if row["completion"] is not None}
        benchmark.write(out, kept)
        _tell_cut(sum(not row.get("ended", True) for row in rows), len(rows), responder.max_new_tokens)
    return share.is_main_process


def _tell_cut(cut: int, answers: int, limit: int) -> None:
    """Say how many answers a limit cut off: they are measured as they are, as the benchmarks' authors do."""
    if cut:
        Console(stderr=True).print(
            f"warning: {cut} of {answers} answers are cut off, most likely at model.max_new_tokens ({limit}): what "
            "they would have said then is not measured.",
            soft_wrap=True,
        )


def _tell_faults(faults: Sequence[str], items: int) -> None:
    """Say which items have no response, since the model could not be asked them."""
    if faults and len(faults) == items:
        raise BenchmarkError(f"none of the {items} items can be asked: {faults[0]}")
    if faults:
        Console(stderr=True).print(
            f"left out: {len(faults)} of {items} items cannot be asked, the first: {faults[0]}",
            markup=False,
            highlight=False,
        )


def ask(items: Sequence[Item], images: str, prompt_template: str = PROMPT) -> list[BenchmarkPrompt]:
    """What a model is asked, item by item.

    Args:
        images: directory of the images, as a responder's.
        prompt_template: as a responder's.

    Raises:
        BenchmarkError: an image is missing, or an item has no prompt.
    """
    paths = find_images([item.image for item in items], Path(images))
    return [
        BenchmarkPrompt(item.key, _prompt(item, prompt_template), path)
        for item, path in zip(items, paths, strict=True)
    ]


def find_images(names: Sequence[str], directory: Path) -> list[Path | None]:
    """The file of each image; None for an empty name.

    Raises:
        BenchmarkError: one has none below the directory, or several that it might be.
    """
    listed = cache(_by_key)
    found = {name: _candidates(name, directory, listed) for name in dict.fromkeys(names) if name}
    missing = [name for name, paths in found.items() if not paths]
    if missing:
        raise BenchmarkError(
            f"{directory}: expected an image {missing[0]!r}, got none ({len(missing)} of {len(found)} are missing)"
        )
    for name, paths in found.items():
        if len(paths) > 1:
            raise BenchmarkError(
                f"{directory}: expected one image {name!r}, got {paths[0].name} and {paths[1].name}"
            )
    return [found[name][0] if name else None for name in names]


def _candidates(name: str, directory: Path, listed: Callable[[Path], dict[str, list[Path]]]) -> list[Path]:
    # Lexically: a link below the directory was put there by its owner.
    path = Path(os.path.abspath(directory / name))
    if not path.is_relative_to(os.path.abspath(directory)):
        raise BenchmarkError(f"{directory}: expected images below it, got one named {name!r}")
    folders = (path.parent, path.parent / _BETWEEN)
    if exact := [folder / path.name for folder in folders if (folder / path.name).is_file()]:
        return exact[:1]
    return [file for folder in folders for file in listed(folder).get(image_key(path.name), [])]


def _by_key(folder: Path) -> dict[str, list[Path]]:
    """Files of a folder by all keys that may mean them."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        for key in {image_key(file.name), image_key(file.stem)} if file.is_file() else ():
            found.setdefault(key, []).append(file)
    return found


def _prompt(item: Item, prompt_template: str) -> str:
    if not item.prompt and PROMPT in prompt_template:
        raise BenchmarkError(
            f"item {item.key!r} has no prompt. Give the benchmark's file of questions as well, or a prompt_template."
        )
    return prompt_template.replace(PROMPT, item.prompt)


def _recipe(asked: Sequence[BenchmarkPrompt]) -> list[list[str | None]]:
    """What is asked, as JSON: each image by its bytes, wherever it lies."""
    hashes = {path: hash_file(path) for path in {one.path for one in asked} if path}
    return [[one.key, one.prompt, hashes.get(one.path)] for one in asked]


def _beside(out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.with_name(out.name + PARTS_SUFFIX)
