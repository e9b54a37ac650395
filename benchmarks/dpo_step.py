"""A step of DPO: answers behind one prefix, with a live or a cached reference, against TRL's DPOTrainer.

    python -m benchmarks.run --only dpo_step

Forward of policy and reference, backward, clipping and AdamW, on batches collated beforehand. TRL computes its head
on the rows of answers on a GPU and on all rows on a CPU. The former is the peer, since this is a framework for GPUs.
Tokens, pixels, losses and norms of gradients are compared before anything is timed.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.pairs import draw_pairs
from benchmarks.race import Race, race
from benchmarks.shapes import SHAPES, build
from benchmarks.table import Table
from benchmarks.trl_side import TRLSide
from rlaifv_pl.models.policy import LoRA, PolicySpec
from rlaifv_pl.models.reference import frozen
from rlaifv_pl.models.vlm import Batch, Precomputed
from rlaifv_pl.objectives import DPOModule
from rlaifv_pl.records import Sample

RATE = 1e-4
LOSS_TOLERANCE, NORM_TOLERANCE = 1e-4, 1e-4
PEER = "TRL, head on answers only"
NOTE = """TRL is driven through its own collator, `training_step` (with its metrics), clipping and AdamW, without the
loop of its trainer; ours goes through objective, clipping and AdamW, without Lightning's loop. Collation is not timed.
Checkpointing is off and the vision tower frozen on both sides; the reference is live unless a row says otherwise, and
with LoRA it is the policy without adapters. On a CPU TRL computes its head on all positions, on a GPU on answers only:
the latter, switched on here, is the base. Driven so, a step of TRL took a median of 5 % more CPU time than one inside
`train()` (all weights, 2 pairs, 7 steps one after the other, from 11 % less to 13 % more): ratios over TRL may be that
much too high. Part of ours is packing: lines of trees have no padding, and rows have some."""
TRAINED = {"all weights": None, "LoRA of rank 16": LoRA(rank=16, alpha=16.0, dropout=0.0)}
CACHED, PASS = "ours, shared prefix, cached reference", "the pass of a cached reference, once"
EPOCHS = (1, 4)


def measure(shape: str, repeats: int, pairs: int = 4) -> list[Race | Table]:
    """Time steps of full fine-tuning and of LoRA, and of full fine-tuning on two pairs of each prompt.

    Args:
        shape: of the random model.
        repeats: of each way, each on a batch of its own.
        pairs: in a batch.
    """
    drawn = [draw_pairs(pairs, seed, SHAPES[shape].vocabulary) for seed in range(repeats)]
    found: list[Race | Table] = []
    with tempfile.TemporaryDirectory() as folder:
        path = build(shape, Path(folder) / shape)
        for trained, lora in TRAINED.items():
            steps = _race(f"{trained}, {pairs} pairs", OurSide(path, lora), path, drawn, Path(folder))
            found += [steps, _paid(steps, trained)]
        doubled = [two_of_each_prompt(pairs) for pairs in drawn]
        what = f"all weights, {pairs} pairs, two of each prompt in a tree"
        return [*found, _race(what, OurSide(path, None), path, doubled, Path(folder))]


def _race(what: str, ours: "OurSide", path: Path, drawn: list[list[Sample]], folder: Path) -> Race:
    theirs = TRLSide(path, drawn[0], ours.adapters, RATE, folder / "trl")
    mine, other = [ours.collate(pairs) for pairs in drawn], [theirs.collate(pairs) for pairs in drawn]
    for one, another in zip(mine, other, strict=True):
        check_inputs(one, another)
    move(ours, theirs)
    loss = check_steps(ours, theirs, mine[0], other[0])
    known = [ours.remember(batch) for batch in mine]
    ways = {
        "TRL": lambda repeat: theirs.step(other[repeat], answers_only=False),
        PEER: lambda repeat: theirs.step(other[repeat], answers_only=True),
        "ours, a row for each answer": lambda repeat: ours.step(mine[repeat], "rows"),
        "ours, shared prefix": lambda repeat: ours.step(mine[repeat], "split"),
        CACHED: lambda repeat: ours.step(known[repeat], "split"),
        PASS: lambda repeat: ours.remember(mine[repeat]),
    }
    tokens, padded = token_ratios(mine)
    return race(
        f"A step of DPO, {what}; rows have {tokens:.2f} times as many tokens as trees, {padded:.2f} times with padding",
        ways,
        len(drawn),
        PEER,
        f"token ids and pixels; losses ({loss:.6f}) to {LOSS_TOLERANCE:g}, norms of gradients to {NORM_TOLERANCE:g} "
        "of themselves",
    )


def _paid(steps: Race, trained: str) -> Table:
    """What a cached reference comes to when its pass is paid over some epochs."""
    peer, step, once = (steps.ways[name].seconds for name in (PEER, CACHED, PASS))
    rows = [[epochs, step + once / epochs, peer / (step + once / epochs)] for epochs in EPOCHS]
    columns = ("epochs", "CPU seconds of a step and its share of the pass", "times as fast as the peer")
    return Table(f"A cached reference with its pass, {trained}, from the medians above", columns, rows)


class OurSide:
    """A step of our DPO without Lightning's loop, as TRL's is without its trainer's."""

    def __init__(self, path: Path, lora: LoRA | None) -> None:
        spec = PolicySpec(path=str(path), lora=lora)
        self.module = DPOModule(policy=spec, optimizer=partial(torch.optim.AdamW, lr=RATE, weight_decay=0.0))
        self.module.configure_model()
        self.model, self.reference = self.module.policy.model, self.module.reference
        self.adapters: Any | None = self.model.peft_config["default"] if lora else None
        self.optimizer, self.collate = self.module.configure_optimizers(), self.module.collator("raise")

    def backward(self, batch: Batch, attention: str) -> tuple[float, float]:
        """Loss, and norm of the gradients before they are clipped; a batch that knows its reference needs none."""
        module = self.module
        for model in (module.policy, self.reference.copy):
            if model is not None:
                model.attention = attention
        module.__dict__["reference"] = self.reference if batch.precomputed.reference_logps is None else None
        loss = module.objective(batch).loss
        loss.backward()
        return loss.item(), torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0).item()

    @torch.no_grad()
    def remember(self, batch: Batch) -> Batch:
        """The batch with its log-ps under the reference, as the pass of a cached one computes them."""
        model = self.reference.copy or self.module.policy
        model.attention = "split"
        with frozen(model, adapters=False):
            return replace(batch, precomputed=Precomputed(model(batch)))

    def step(self, batch: Batch, attention: str) -> None:
        """Train on a batch."""
        self.backward(batch, attention)
        self.optimizer.step()
        self.model.zero_grad()


def two_of_each_prompt(pairs: Sequence[Sample]) -> list[Sample]:
    """The pairs with every second one asked what the one before it is asked, of the same picture."""
    first = [pairs[place - place % 2] for place in range(len(pairs))]
    return [
        replace(pair, prompt=asked.prompt, images=asked.images)
        for pair, asked in zip(pairs, first, strict=True)
    ]


def token_ratios(batches: Sequence[Batch]) -> tuple[float, float]:
    """Tokens in the rows, without their padding and with it, to tokens in the trees."""
    branches = [branch for batch in batches for branch in batch.layout.branches]
    trees = sum(branch.stop - branch.start for branch in branches)
    padded = sum(batch.tokens.rows["input_ids"].numel() for batch in batches)
    return sum(branch.stop for branch in branches) / trees, padded / trees


def check_inputs(mine: Batch, other: dict[str, Any]) -> None:
    """That both sides read the same tokens, learn from the same of them, and see the same pixels."""
    width = mine.tokens.rows["input_ids"].shape[1]
    for group in range(mine.num_sequences):
        row = int(mine.tokens.logit_index[mine.tokens.sequence_id == group][0]) // width
        ids = mine.tokens.rows["input_ids"][row][mine.tokens.rows["attention_mask"][row].bool()]
        theirs, answer = other["input_ids"][group], other["completion_mask"][group].bool()
        assert torch.equal(ids, theirs[other["attention_mask"][group].bool()]), (
            f"tokens of row {group} differ"
        )
        assert torch.equal(mine.tokens.labels[mine.tokens.sequence_id == group], theirs[answer]), (
            f"targets of row {group} differ"
        )
        # TRL brings the pixels of a pair to each of its rows.
        pixels = mine.tokens.images["pixel_values"][row % mine.layout.num_trees]
        assert torch.equal(pixels, other["pixel_values"][group]), f"pixels of row {group} differ"


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
    runs.append(partial(ours.backward, ours.remember(mine), "split"))
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
