"""A step of DPO: both answers behind one prefix, against rows with a prefix each, against TRL's DPOTrainer.

    python -m benchmarks.run --only dpo_step

Forward of policy and reference, backward, clipping and AdamW, on batches collated beforehand. TRL computes its head
on the rows of answers on a GPU and on all rows on a CPU. The former is the peer, since this is a framework for GPUs.
Tokens, pixels, losses and norms of gradients are compared before anything is timed.
"""

import math
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.race import Race, race
from benchmarks.shapes import SHAPES, build, picture, words
from benchmarks.trl_side import TRLSide
from rlaifv_pl.models.policy import LoRA, PolicySpec
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives import DPOModule
from rlaifv_pl.records import Sample

PROMPT_TOKENS, ANSWER_TOKENS = (20, 60), (60, 200)
RATE = 1e-4
LOSS_TOLERANCE, NORM_TOLERANCE = 1e-4, 1e-4
PEER = "TRL, head on answers only"
NOTE = """TRL is driven through its own collator, `training_step` (with its metrics), clipping and AdamW, without the
loop of its trainer; ours goes through objective, clipping and AdamW, without Lightning's loop. Collation is not timed.
Checkpointing is off and the vision tower frozen on both sides; the reference is live, and with LoRA it is the policy
without adapters. On a CPU TRL computes its head on all positions, on a GPU on answers only: the latter, switched on
here, is the base. Driven so, a step of TRL took a median of 5 % more CPU time than one inside `train()` (all weights,
2 pairs, 7 steps one after the other, from 11 % less to 13 % more): ratios over TRL may be that much too high.
Part of ours is packing: lines of trees have no padding, and rows have some."""
TRAINED = {"all weights": None, "LoRA of rank 16": LoRA(rank=16, alpha=16.0, dropout=0.0)}


def measure(shape: str, repeats: int, pairs: int = 4) -> list[Race]:
    """Time steps of full fine-tuning and of LoRA.

    Args:
        shape: of the random model.
        repeats: of each way, each on a batch of its own.
        pairs: in a batch.
    """
    drawn = [draw_pairs(pairs, seed, SHAPES[shape].vocabulary) for seed in range(repeats)]
    with tempfile.TemporaryDirectory() as folder:
        path = build(shape, Path(folder) / shape)
        return [_measure(trained, path, drawn, Path(folder)) for trained in TRAINED]


def _measure(trained: str, path: Path, drawn: list[list[Sample]], folder: Path) -> Race:
    ours = OurSide(path, TRAINED[trained])
    theirs = TRLSide(path, drawn[0], ours.adapters, RATE, folder / "trl")
    mine, other = [ours.collate(pairs) for pairs in drawn], [theirs.collate(pairs) for pairs in drawn]
    for one, another in zip(mine, other, strict=True):
        check_inputs(one, another)
    move(ours, theirs)
    loss = check_steps(ours, theirs, mine[0], other[0])
    ways = {
        "TRL": lambda repeat: theirs.step(other[repeat], answers_only=False),
        PEER: lambda repeat: theirs.step(other[repeat], answers_only=True),
        "ours, a row for each answer": lambda repeat: ours.step(mine[repeat], "rows"),
        "ours, answers share their prefix": lambda repeat: ours.step(mine[repeat], "split"),
    }
    tokens, padded = token_ratios(mine)
    what = (
        f"A step of DPO, {trained}, {len(drawn[0])} pairs; rows have {tokens:.2f} times as many tokens as trees, "
        f"{padded:.2f} times with padding"
    )
    checked = (
        f"token ids and pixels; losses ({loss:.6f}) to {LOSS_TOLERANCE:g}, norms of gradients to {NORM_TOLERANCE:g} "
        "of themselves"
    )
    return race(what, ways, len(drawn), PEER, checked)


class OurSide:
    """A step of our DPO without Lightning's loop, as TRL's is without its trainer's."""

    def __init__(self, path: Path, lora: LoRA | None) -> None:
        spec = PolicySpec(path=str(path), lora=lora)
        self.module = DPOModule(policy=spec, optimizer=partial(torch.optim.AdamW, lr=RATE, weight_decay=0.0))
        self.module.configure_model()
        self.model = self.module.policy.model
        self.adapters: Any | None = self.model.peft_config["default"] if lora else None
        self.optimizer, self.collate = self.module.configure_optimizers(), self.module.collator("raise")

    def backward(self, batch: Batch, attention: str) -> tuple[float, float]:
        """Loss, and norm of the gradients before they are clipped."""
        module = self.module
        for model in (module.policy, module.reference.copy):
            if model is not None:
                model.attention = attention
        loss = module.objective(batch).loss
        loss.backward()
        return loss.item(), torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0).item()

    def step(self, batch: Batch, attention: str) -> None:
        """Train on a batch."""
        self.backward(batch, attention)
        self.optimizer.step()
        self.model.zero_grad()


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


def token_ratios(batches: Sequence[Batch]) -> tuple[float, float]:
    """Tokens in the rows, without their padding and with it, to tokens in the trees."""
    branches = [branch for batch in batches for branch in batch.branches]
    trees = sum(branch.stop - branch.start for branch in branches)
    padded = sum(batch.rows["input_ids"].numel() for batch in batches)
    return sum(branch.stop for branch in branches) / trees, padded / trees


def check_inputs(mine: Batch, other: dict[str, Any]) -> None:
    """That both sides read the same tokens, learn from the same of them, and see the same pixels."""
    for row in range(mine.num_groups):
        ids = mine.rows["input_ids"][row][mine.rows["attention_mask"][row].bool()]
        theirs, answer = other["input_ids"][row], other["completion_mask"][row].bool()
        assert torch.equal(ids, theirs[other["attention_mask"][row].bool()]), f"tokens of row {row} differ"
        assert torch.equal(mine.target[mine.group == row], theirs[answer]), f"targets of row {row} differ"
    pixels = mine.images["pixel_values"]
    # TRL brings the pixels of a pair to each of its rows.
    assert torch.equal(torch.cat([pixels] * mine.copies), other["pixel_values"]), "pixels differ"


@torch.no_grad()
def move(ours: OurSide, theirs: TRLSide) -> None:
    """Give both policies the same weights away from their reference's, where all losses are ln 2."""
    torch.manual_seed(0)
    trained = {name: p for name, p in theirs.trainer.model.named_parameters() if p.requires_grad}
    for name, parameter in ours.model.named_parameters():
        assert parameter.requires_grad == (name in trained), f"{name} trains on one side only"
        if parameter.requires_grad:
            trained[name].copy_(parameter.add_(torch.randn_like(parameter), alpha=0.05))


def check_steps(ours: OurSide, theirs: TRLSide, mine: Batch, other: dict[str, Any]) -> float:
    """The loss, which is equal in all ways, as is the norm of the gradients."""
    runs = [partial(theirs.backward, other, answers_only) for answers_only in (False, True)]
    runs += [partial(ours.backward, mine, attention) for attention in ("rows", "split")]
    found = []
    for run in runs:
        ours.model.zero_grad()
        theirs.trainer.model.zero_grad()
        found.append(run())
    losses, norms = zip(*found, strict=True)
    assert abs(losses[0] - math.log(2)) > 10 * LOSS_TOLERANCE, f"loss {losses[0]} says nothing, it is ln 2"
    assert max(losses) - min(losses) < LOSS_TOLERANCE, f"losses differ: {losses}"
    assert max(norms) / min(norms) - 1 < NORM_TOLERANCE, f"norms of gradients differ: {norms}"
    ours.model.zero_grad()
    return losses[0]
