"""What more claims, candidates and pairs of one image cost, with what they share read once and without.

python -m benchmarks.run --only cost
"""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.dpo_step import OurSide
from benchmarks.feedback import Way, agree, conquer_ways, generate_ways
from benchmarks.pairs import draw_pairs
from benchmarks.shapes import SHAPES, build
from benchmarks.table import Cell, Table
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor
from rlaifv_pl.models.vlm import VLM, Batch

COUNTS = (1, 2, 4, 8, 16, 32, 64)
LIMIT = 10.0
"""Seconds."""
NOTE = f"""CPU seconds. A way that took more than {LIMIT:g} of them is not asked for more. Answers, or losses and norms
of gradients, are compared wherever more than one way ran. Above 16 candidates of shape `prop` a layer's cache passes
32 MB, and glibc maps such memory anew for each token's longer cache; with `MALLOC_MMAP_THRESHOLD_=4000000000` in the
environment that step in the curve goes away."""
CANDIDATE_TOKENS = 8
WHAT = {
    "claims": "Conquer, questions about one image",
    "candidates": f"Generate, candidates of {CANDIDATE_TOKENS} tokens of one prompt",
    "pairs": "DPO, all weights, forward of policy and reference and backward, pairs of one prompt",
}


def measure(shape: str, repeats: int, counts: Sequence[int] = COUNTS) -> list[Table]:
    """Time claims, candidates and pairs.

    Args:
        shape: of the random model.
        repeats: of each way and count; the median counts.
        counts: of claims of one image, and of candidates and pairs of one prompt.
    """
    with tempfile.TemporaryDirectory() as name:
        path = build(shape, Path(name) / shape)
        spec = PolicySpec(path=str(path))
        model, chat = VLM(load_model(spec)).eval(), Chat(load_processor(spec))
        side = OurSide(path, None)
    _move(side)
    tasks = {
        "claims": partial(_ends, conquer_ways, model, chat, shape),
        "candidates": partial(_ends, partial(generate_ways, new_tokens=CANDIDATE_TOKENS), model, chat, shape),
        "pairs": partial(pair_ways, side, shape),
    }
    return [cost(unit, prepare, counts, repeats) for unit, prepare in tasks.items()]


def cost(unit: str, prepare: Callable[[int], dict[str, Way]], counts: Sequence[int], repeats: int) -> Table:
    """Seconds of each way by count.

    Args:
        unit: what is counted, of `WHAT`.
        prepare: ways to do it with so many, the naive one first and ours last.
        counts: in rising order.
        repeats: of each.
    """
    names = list(prepare(counts[0]))
    running, rows = list(names), []
    for count in counts:
        ways = prepare(count)
        # Once without being timed: an engine looks first whether the model shares faithfully.
        for name in names if count == counts[0] else names[-1:]:
            ways[name]()
        timed = {name: _time(ways[name], repeats) for name in running}
        if len(timed) > 1:
            agree([answer for _, answer in timed.values()])
        seconds = {name: spent for name, (spent, _) in timed.items()}
        running = [name for name in running if name == names[-1] or seconds[name] <= LIMIT]
        rows.append([count, *(_rounded(seconds.get(name)) for name in names), _gain(seconds, names)])
    columns = (unit, *names, "times as fast")
    return Table(WHAT[unit], columns, rows, picture=f"cost-{unit}", scale="log", unit="CPU seconds")


def pair_ways(side: OurSide, shape: str, count: int) -> dict[str, Way]:
    """Ways to compute the gradient of `count` pairs of one prompt and image."""
    first, *others = draw_pairs(count, 0, SHAPES[shape].vocabulary)
    pairs = [first, *(replace(pair, prompt=first.prompt, images=first.images) for pair in others)]
    together = side.collate(pairs)
    assert together.layout.num_trees == 1, (
        f"{count} pairs of one prompt stand in {together.layout.num_trees} trees"
    )
    each = [side.collate([pair]) for pair in pairs]
    return {
        "rows": lambda: _gradient(side, [together], "rows"),
        "a tree for each pair": lambda: _gradient(side, each, "split"),
        "one tree": lambda: _gradient(side, [together], "split"),
    }


def _gradient(side: OurSide, batches: Sequence[Batch], attention: str) -> list[list[float]]:
    """Mean loss, and log of the norm of its gradient, over batches of equally many pairs."""
    losses, module = [], side.module
    for model in (module.policy, module.reference.copy):
        model.attention = attention
    for batch in batches:
        loss = module.objective(batch).loss / len(batches)
        loss.backward()
        losses.append(loss.item())
    norm = torch.nn.utils.get_total_norm([p.grad for p in side.model.parameters() if p.grad is not None])
    side.model.zero_grad()
    return [[sum(losses), math.log(norm.item())]]


@torch.no_grad()
def _move(side: OurSide) -> None:
    """Away from the reference, where all losses are ln 2."""
    torch.manual_seed(0)
    for parameter in side.model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter), alpha=0.05)


def _ends(prepare: Callable[..., dict[str, Way]], *about: Any) -> dict[str, Way]:
    """The first way and the last: naive and ours."""
    ways = prepare(*about)
    names = list(ways)
    return {name: ways[name] for name in (names[0], names[-1])}


def _time(way: Way, repeats: int) -> tuple[float, Any]:
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        answer = way()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds), answer


def _rounded(seconds: float | None) -> Cell:
    return None if seconds is None else round(seconds, 3)


def _gain(seconds: dict[str, float], names: Sequence[str]) -> Cell:
    """Of ours over the naive way; in words, so that it is not drawn among seconds."""
    naive, ours = seconds.get(names[0]), seconds[names[-1]]
    return None if naive is None else f"{naive / ours:.2f}"
