"""A step of DPO: both answers behind one prefix, against rows with a prefix each.

    python -m benchmarks.prefix_tree --shape prop --repeats 5 --json prefix_tree.json

Policy and live reference, forward, backward, clipping and AdamW, on the same collated batches; the image is
encoded once in every way, and the head computes log-ps of answers only. The losses are compared before anything
is timed.
"""

import io
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.shapes import SHAPES, build, words
from rlaifv_pl.models.policy import PolicySpec
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives import DPOModule
from rlaifv_pl.records import Sample

WAYS = ("rows", "dense", "split")
PROMPT_TOKENS, ANSWER_TOKENS = (20, 60), (60, 200)


def main(shape: str = "prop", repeats: int = 5, pairs: int = 4, json: Path | None = None) -> dict[str, Any]:
    """Time steps, and print and write the ratios.

    Args:
        shape: of the random model.
        repeats: of each way; they run interleaved, and the median of the ratios inside a repeat counts.
        pairs: in a batch.
        json: file to write.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        spec = PolicySpec(path=str(build(shape, Path(folder) / shape)))
        module = DPOModule(policy=spec, optimizer=partial(torch.optim.AdamW, lr=1e-4))
        module.configure_model()
        collate, vocabulary = module.collator("raise"), SHAPES[shape].vocabulary
        batches = [collate(draw_pairs(pairs, seed, vocabulary)) for seed in range(repeats + 1)]
    step = _stepper(module)
    step(batches[-1], "rows")  # Away from ln 2, where all losses are equal.
    results = {way: {"loss": _loss(module, batches[0], way).item()} for way in WAYS}
    off = max(abs(found["loss"] - results["rows"]["loss"]) for found in results.values())
    assert off < 1e-4, f"losses differ by {off}"
    for way, found in _race(step, batches[:repeats]).items():
        results[way] |= found
    found = {
        "shape": shape,
        "repeats": repeats,
        "pairs": pairs,
        "token_ratio": token_ratio(batches[:repeats]),
    }
    _show(results, found["token_ratio"])
    if json:
        json.write_text(dumps(found | {"results": results}, indent=2))
    return results


def draw_pairs(count: int, seed: int, vocabulary: int) -> list[Sample]:
    """Pairs with prompts of 20 to 60 tokens and answers of 60 to 200, about equally long within a pair."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        size = rng.lognormal(np.log(105), 0.35)
        chosen, rejected = (
            words(
                int(np.clip(size * rng.lognormal(0, 0.2), *ANSWER_TOKENS)),
                int(rng.integers(1 << 30)),
                vocabulary,
            )
            for _ in range(2)
        )
        prompt = words(int(rng.integers(*PROMPT_TOKENS)), int(rng.integers(1 << 30)), vocabulary)
        samples.append(
            Sample(key=f"p{number}", prompt=prompt, images=(picture(rng),), chosen=chosen, rejected=rejected)
        )
    return samples


def picture(rng: np.random.Generator) -> bytes:
    """A photo's worth of noise."""
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (360, 480, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def token_ratio(batches: list[Batch]) -> float:
    """Tokens in the rows, to tokens in the trees."""
    branches = [branch for batch in batches for branch in batch.branches]
    return sum(branch.stop for branch in branches) / sum(branch.stop - branch.start for branch in branches)


def _loss(module: DPOModule, batch: Batch, way: str) -> torch.Tensor:
    module.policy.attention = module.reference.copy.attention = way
    return module.objective(batch).loss


def _stepper(module: DPOModule) -> Callable[[Batch, str], None]:
    optimizer = module.configure_optimizers()

    def step(batch: Batch, way: str) -> None:
        _loss(module, batch, way).backward()
        torch.nn.utils.clip_grad_norm_(module.policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _race(step: Callable[[Batch, str], None], batches: list[Batch]) -> dict[str, dict[str, float]]:
    """CPU seconds of a step each way, and how many times as fast as rows it is."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for way in WAYS:
        step(batches[0], way)  # Warms up.
    for repeat, batch in enumerate(batches):
        for way in random.Random(repeat).sample(WAYS, len(WAYS)):
            started = time.process_time()
            step(batch, way)
            seconds[way].append(time.process_time() - started)
    return {
        way: {
            "seconds": statistics.median(own),
            "ratio": statistics.median(a / b for a, b in zip(seconds["rows"], own, strict=True)),
        }
        for way, own in seconds.items()
    }


def _show(results: dict[str, dict[str, float]], tokens: float) -> None:
    table = Table(
        "way",
        "loss",
        "CPU seconds a step",
        "times as fast",
        title=f"{tokens:.2f} times as many tokens in rows",
    )
    for way, found in results.items():
        table.add_row(way, f"{found['loss']:.6f}", f"{found['seconds']:.2f}", f"{found['ratio']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
