"""Feedback's two costs: K questions about an image, and n candidates of a prompt, shared prefix or not.

    python -m benchmarks.feedback --shape prop --repeats 3 --json feedback.json

The peer of conquer is RLAIF-V's way, one forward a claim; the peers of generate are n calls of `generate`, and
one call with `num_return_sequences`. All answers are compared before anything is timed.
"""

import io
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.shapes import SHAPES, build, words
from rlaifv_pl.feedback.engine import Request, Sampling
from rlaifv_pl.feedback.engines.live import LiveEngine
from rlaifv_pl.feedback.generate import generate
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.records import Sample

PROMPT_TOKENS, QUESTION_TOKENS = 38, (15, 30)
Way = Callable[[], Any]


def main(
    shape: str = "prop",
    repeats: int = 3,
    claims: Sequence[int] = (1, 4, 12, 32),
    candidates: Sequence[int] = (1, 10),
    new_tokens: int = 96,
    json_file: Path | None = None,
) -> dict[str, Any]:
    """Time conquer and generate, and print and write the ratios.

    Args:
        shape: of the random model.
        repeats: of each way; they run interleaved, and the median of the ratios inside a repeat counts.
        claims: numbers of questions about one image.
        candidates: numbers of candidates of one prompt.
        new_tokens: of each candidate.
        json_file: to write.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        spec = PolicySpec(path=str(build(shape, Path(folder) / shape)))
        model, chat = VLM(load_model(spec)).eval(), Chat(load_processor(spec))
    results = {}
    for count in claims:
        results[f"conquer, {count} claims"] = _race(conquer_ways(model, chat, shape, count), repeats)
    for count in candidates:
        ways = generate_ways(model, chat, shape, count, new_tokens)
        results[f"generate, n={count}"] = _race(ways, repeats)
    _show(results)
    if json_file:
        json_file.write_text(json.dumps({"shape": shape, "repeats": repeats, "results": results}, indent=2))
    return results


def conquer_ways(model: VLM, chat: Chat, shape: str, count: int) -> dict[str, Way]:
    """Ways to ask `count` questions about one image; the first is the peer's."""
    image, lengths = picture(), random.Random(0)
    vocabulary = SHAPES[shape].vocabulary
    asked = [
        Request(words(lengths.randint(*QUESTION_TOKENS), seed, vocabulary), (image,)) for seed in range(count)
    ]
    ours, batched = _engine(model, chat, count), _engine(model, chat, count, plain=True)
    alone = _engine(model, chat, 1, plain=True)
    return {
        "one forward a claim": lambda: alone.choose(asked, ("yes", "no")),
        "claims in a batch": lambda: batched.choose(asked, ("yes", "no")),
        "shared prefix": lambda: ours.choose(asked, ("yes", "no")),
    }


def generate_ways(model: VLM, chat: Chat, shape: str, count: int, new_tokens: int) -> dict[str, Way]:
    """Ways to draw `count` candidates; the first is n calls of generate."""
    prompt = words(PROMPT_TOKENS, 1, SHAPES[shape].vocabulary)
    samples = [Sample(key="p", prompt=prompt, images=(picture(),))]
    sampling = Sampling(n=count, temperature=0.7, max_new_tokens=new_tokens)
    calls = _engine(model, chat, 1, plain=True)
    batched, ours = _engine(model, chat, count, plain=True), _engine(model, chat, count)
    return {
        "n calls": lambda: generate(calls, samples, sampling, 0),
        "num_return_sequences": lambda: generate(batched, samples, sampling, 0),
        "shared prefix": lambda: generate(ours, samples, sampling, 0),
    }


def picture() -> bytes:
    """A photo's worth of noise."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (360, 480, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _engine(model: VLM, chat: Chat, batch_size: int, plain: bool = False) -> LiveEngine:
    return LiveEngine(model, chat, batch_size, shares_prefix=not plain)


def _race(ways: dict[str, Way], repeats: int) -> dict[str, dict[str, float]]:
    """CPU seconds of each way, and how many times as fast as the first it is."""
    first, *others = (way() for way in ways.values())  # Also warms up.
    for other in others:
        _agree(first, other)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats):
        order = random.Random(repeat).sample(list(ways), len(ways))
        for name in order:
            started = time.process_time()
            ways[name]()
            seconds[name].append(time.process_time() - started)
    peer = seconds[next(iter(ways))]
    return {
        name: {
            "seconds": statistics.median(own),
            "ratio": statistics.median(a / b for a, b in zip(peer, own, strict=True)),
        }
        for name, own in seconds.items()
    }


def _agree(first: Any, other: Any) -> None:
    if isinstance(first[0][0], float):
        off = (torch.tensor(first) - torch.tensor(other)).abs().max().item()
        assert off < 1e-4, f"answers differ by {off}"
    else:
        assert first == other, "candidates differ"


def _show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    table = Table("what", "way", "CPU seconds", "times as fast")
    for what, ways in results.items():
        for name, found in ways.items():
            table.add_row(what, name, f"{found['seconds']:.2f}", f"{found['ratio']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
