"""Loss curves of TRL's trainer and of ours, from the same weights on the same batches: they lie on each other.

python -m benchmarks.run --only curves
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.dpo_step import OurSide, check_inputs
from benchmarks.pairs import draw_pairs
from benchmarks.shapes import SHAPES, build
from benchmarks.table import Table
from benchmarks.trl_side import TRLSide

NOTE = """Each side takes its own steps (forward of policy and reference, backward, clipping, AdamW), from the same
weights on batches of the same tokens and pixels. What is left between the curves is rounding, which training carries
on."""
RATE = 2e-5
"""Slow enough for a curve."""
TOLERANCE = 1e-3
"""Of a loss, at any step."""
COLUMNS = ("step", "TRL", "ours, rows", "ours, trees", "largest difference")


def measure(shape: str, repeats: int, batches: int = 5, pairs: int = 1) -> list[Table]:
    """Train all sides, one step after the other.

    Args:
        shape: of the random model.
        repeats: epochs.
        batches: in an epoch.
        pairs: in a batch.
    """
    drawn = [draw_pairs(pairs, seed, SHAPES[shape].vocabulary) for seed in range(batches)]
    with tempfile.TemporaryDirectory() as name:
        path = build(shape, Path(name) / shape)
        theirs = TRLSide(path, drawn[0], None, RATE, Path(name) / "trl")
        rows, trees = _ours(path), _ours(path)
        mine, other = [rows.collate(pairs) for pairs in drawn], [theirs.collate(pairs) for pairs in drawn]
    found = []
    for step in range(batches * repeats):
        one, another = mine[step % batches], other[step % batches]
        check_inputs(one, another)
        losses = [
            _trained(theirs.trainer.optimizer, partial(theirs.backward, another, answers_only=True)),
            _trained(rows.optimizer, partial(rows.backward, one, "rows")),
            _trained(trees.optimizer, partial(trees.backward, one, "split")),
        ]
        found.append([step, *losses])
    return [compare(found, f"{batches * repeats} steps on {batches} batches of {pairs}, shape `{shape}`")]


def compare(losses: list[list[float]], about: str) -> Table:
    """A table of step and losses, with their largest difference.

    Raises:
        AssertionError: the curves part, or never leave their first point.
    """
    rows = [[step, *found, max(found) - min(found)] for step, *found in losses]
    off = max(row[-1] for row in rows)
    assert off < TOLERANCE, f"losses differ by up to {off}"
    moved = max(abs(row[1] - rows[0][1]) for row in rows)
    assert moved > 10 * TOLERANCE, f"losses moved by {moved} only, so that equal ones say nothing"
    what = f"Losses of DPO, all weights, {about}"
    note = f"The largest difference of all is {off:.2g}; the loss itself moves by {moved:.2g}."
    return Table(
        what, COLUMNS, [[round(cell, 7) for cell in row] for row in rows], note, "curves", unit="loss"
    )


def _ours(path: Path) -> OurSide:
    side = OurSide(path, None)
    for group in side.optimizer.param_groups:
        group["lr"] = RATE
    return side


def _trained(optimizer: torch.optim.Optimizer, backward: Callable[[], tuple[float, float]]) -> float:
    loss, _ = backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss
