"""Seconds of a step: of a few that are trained here, in a directory that goes away, or of arithmetic."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning.fabric.utilities.throughput import get_available_flops

from rlaifv_pl.data.shards import ShardSet, ShardWriter
from rlaifv_pl.models.flops import FlopMeter
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.preflight.memory import Situation, in_shapes
from rlaifv_pl.preflight.shapes import Shape
from rlaifv_pl.rounds.ledger import Ledger

PROMPTS = 16
"""That a trial of rounds answers."""
LONGEST = 400
"""Characters of what a failed trial says that are shown."""
FIT = [sys.executable, "-m", "rlaifv_pl.cli.commands", "fit"]
"""Command of a trial, which is a process of its own."""
HERE = ["--trainer.devices", "1", "--trainer.num_nodes", "1", "--trainer.strategy", "auto"]
QUIET = [
    "--trainer.enable_progress_bar=false",
    "--trainer.limit_val_batches=0",
    "--checkpoint.every_n_train_steps=0",
]


@dataclass(frozen=True)
class Timed:
    """What a trial found."""

    step: float
    """Seconds, without the first one, which warms up."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds of feedback for a prompt, by stage."""


class TrialFailed(RuntimeError):
    """The trial did not come to its end; the message is the run's."""


def train(
    arguments: Sequence[str], samples: ShardSet, batches: Sequence[Sequence[int]], place: Path
) -> Timed:
    """Train steps on batches that a run would have.

    Args:
        arguments: of `train.py fit`.
        samples: all of the run's.
        batches: numbers of samples, one list for each batch of a device.
        place: a directory for what the trial writes.

    Raises:
        TrialFailed: a step could not be trained.
    """
    shards = place / "shards"
    with ShardWriter(shards, recipe={"of": [manifest.hash for manifest in samples.manifests]}) as writer:
        for number in dict.fromkeys(number for batch in batches for number in batch):
            writer.write(samples[number])
    data = [f"--data.train={shards}", "--data.val=null", "--data.sources=[]", "--data.num_workers=0"]
    return _fit([*arguments, *data], place, steps=len(batches))


def feedback(arguments: Sequence[str], place: Path, epochs: int, steps: int) -> Timed:
    """A round of few prompts, as far as some steps into its training.

    Args:
        arguments: of `train.py fit`.
        place: a directory for what the trial writes.
        epochs: of a round.
        steps: to train.

    Raises:
        TrialFailed: it could not be done, or no pair came of it.
    """
    few = [
        f"--rounds.prompts_per_round={PROMPTS}",
        "--rounds.evaluator=null",
        f"--trainer.max_epochs={epochs}",
    ]
    timed = _fit([*arguments, *few], place, steps)
    spent = Ledger(place / "run" / "rounds").read().get(1, {}).get("seconds", {})
    return Timed(
        timed.step, {stage: seconds / PROMPTS for stage, seconds in spent.items() if stage != "train"}
    )


def _fit(arguments: Sequence[str], place: Path, steps: int) -> Timed:
    out = place / "clock.json"
    clock = [
        "--trainer.callbacks+=rlaifv_pl.preflight.step_timer.StepTimer",
        f"--trainer.callbacks.out={out}",
    ]
    clock += [f"--trainer.callbacks.steps={steps}", "--trainer.default_root_dir", str(place / "run")]
    done = subprocess.run(
        [*FIT, *arguments, *HERE, *QUIET, *clock],
        capture_output=True,
        text=True,
        env=os.environ | {"WORLD_SIZE": "1"},
    )
    if not out.is_file():
        lines = done.stderr.splitlines()
        said = [line for line in lines if line.startswith("error: ")] or lines
        raise TrialFailed("\n".join(said[-1:])[:LONGEST] or f"it ended with {done.returncode}")
    seconds = json.loads(out.read_text())["seconds"]
    return Timed(statistics.median(seconds[1:] or seconds))


@dataclass(frozen=True)
class Estimate:
    """A step by arithmetic."""

    flops_per_token: float
    """Model FLOPs of policy and reference, forward and backward."""
    peak: float | None
    """FLOPs a second of a device; None where nobody knows them."""
    mfu: float

    def seconds(self, tokens: float) -> float | None:
        """Of so many tokens on a device."""
        return tokens * self.flops_per_token / (self.peak * self.mfu) if self.peak else None


def estimate(module: AlignmentModule, now: Situation, tflops: float | None, mfu: float) -> Estimate:
    """Out of the FLOPs of a batch, which are counted on shapes."""
    module = in_shapes(module, now.spread)
    meter = FlopMeter(module.policy)
    with now.spread.autocast():
        module.policy(now.batch)
    work = meter.read(now.batch, module.reference is not None)
    pairs = [(int(p.meta.numel()) if isinstance(p, Shape) else int(p), cost) for p, cost in work.towers]
    language = work.per_token * work.extents.tokens
    scores = sum(cost * work.extents.pairs(window) for window, cost in work.per_pair.items())
    flops = work.fixed + language + scores + sum(count * cost for count, cost in pairs)
    peak = tflops * 1e12 if tflops else None
    if peak is None and torch.cuda.is_available():
        dtype = now.spread.mixed or now.spread.compute or getattr(torch, module.policy_spec.dtype)
        peak = get_available_flops(torch.device("cuda", 0), dtype)
    return Estimate(flops / work.extents.tokens, peak, mfu)
