"""Ways to train whose memory is measured, each built from a job."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.pairs import draw_pairs
from benchmarks.shapes import SHAPES, words
from benchmarks.trl_side import TRLSide
from rlaifv_pl.models.policy import LoRA, PolicySpec, load_model
from rlaifv_pl.models.vlm import VLM, Batch
from rlaifv_pl.objectives import DPOModule, NSFTModule
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.records import Correction, Sample

QUESTION_TOKENS, CORRECTION_TOKENS = 15, 40
RATE = 1e-5
TRL, TRL_ANSWERS = "TRL", "TRL, head on answers only"
STEP_WAYS = (TRL, TRL_ANSWERS, "ours, rows", "ours, trees")
NSFT, SEPARATE = "nSFT", "DPO, rows, a second model as reference"
OURS = "DPO, trees, our reference"
CACHED = "DPO, trees, cached reference"
OBJECTIVE_WAYS = (NSFT, SEPARATE, OURS, CACHED)

Step = Callable[[], float]
"""Trains once on its batch and returns the loss."""


@dataclass(frozen=True)
class Job:
    """What a process trains.

    Args:
        way: a name of `WAYS`.
        path: of the model.
        shape: of the model.
        pairs: in the batch.
        lora: train adapters of rank 16 instead of all weights.
    """

    way: str
    path: Path
    shape: str
    pairs: int
    lora: bool = False


def _trl(answers_only: bool, job: Job) -> Step:
    pairs = _pairs(job)
    side = TRLSide(job.path, pairs, None, RATE, job.path.parent / "trl", checkpointing=True)
    batch = side.collate(pairs)

    def step() -> float:
        loss, _ = side.backward(batch, answers_only)
        side.trainer.optimizer.step()
        side.trainer.model.zero_grad()
        return loss

    return step


def _dpo(attention: str, job: Job) -> Step:
    module = _module(DPOModule, job, attention)
    return _training(module, _collate(module, _pairs(job)))


def _dpo_with_second_model(job: Job) -> Step:
    module = with_second_model(job)
    return _training(module, _collate(module, _pairs(job)))


def _dpo_with_cached_reference(job: Job) -> Step:
    module = _module(DPOModule, job, "split", reference="cached")
    batch = _collate(module, _pairs(job))
    with torch.no_grad():
        # As the loader would bring them; adapters, if there are any, change nothing yet.
        batch.precomputed.reference_logps = module.policy(batch)
    return _training(module, batch)


def with_second_model(job: Job) -> DPOModule:
    """DPO as others hold it: the reference is a whole model of its own."""
    module = _module(DPOModule, job, "rows", reference="live")
    second = VLM(load_model(PolicySpec(path=str(job.path))), "rows")
    module.reference.copy = second.requires_grad_(False).eval()
    return module


def _nsft(job: Job) -> Step:
    vocabulary = SHAPES[job.shape].vocabulary
    correction = Correction(
        question=words(QUESTION_TOKENS, 1, vocabulary), answer=words(CORRECTION_TOKENS, 2, vocabulary)
    )
    samples = [replace(pair, corrections=(correction,)) for pair in _pairs(job)]
    module = _module(NSFTModule, job, "auto")
    return _training(module, _collate(module, samples))


def _pairs(job: Job) -> list[Sample]:
    return draw_pairs(job.pairs, 0, SHAPES[job.shape].vocabulary)


def _module(kind: type[AlignmentModule], job: Job, attention: str, **options: str) -> AlignmentModule:
    spec = PolicySpec(
        path=str(job.path),
        attention=attention,
        lora=LoRA(rank=16, alpha=16.0, dropout=0.0) if job.lora else None,
        gradient_checkpointing=True,
    )
    adamw = partial(torch.optim.AdamW, lr=RATE, weight_decay=0.0)
    module = kind(policy=spec, optimizer=adamw, **options)
    torch.manual_seed(0)  # Adapters begin with random numbers.
    module.configure_model()
    return module


def _collate(module: AlignmentModule, samples: Sequence[Sample]) -> Batch:
    return module.collator("raise")(samples)


def _training(module: AlignmentModule, batch: Batch) -> Step:
    optimizer = module.configure_optimizers()

    def step() -> float:
        loss = module.objective(batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


WAYS: dict[str, Callable[[Job], Step]] = {
    TRL: partial(_trl, False),
    TRL_ANSWERS: partial(_trl, True),
    "ours, rows": partial(_dpo, "rows"),
    "ours, trees": partial(_dpo, "split"),
    NSFT: _nsft,
    SEPARATE: _dpo_with_second_model,
    OURS: partial(_dpo, "split"),
    CACHED: _dpo_with_cached_reference,
}
