"""Feedback without a model: an engine that makes its answers up from seeds and hashes, and counts what it is asked.

As a program it is one of several processes that make feedback together, with the shipped models:
`python -m tests.feedback.scripted OUT PROMPTS KNOWN RANK OF`.
"""

import random
import re
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.chunks import Executor, RankShare
from rlaifv_pl.feedback.claims.splitter import PromptedAnswer
from rlaifv_pl.feedback.config import FeedbackConfig, PromptSet
from rlaifv_pl.feedback.engines.engine import Completion, EngineError, Request, Sampling
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.feedback.judges.gate import Gate
from rlaifv_pl.feedback.judges.labeler import ModelLabeler
from rlaifv_pl.feedback.pipeline import FeedbackPipeline
from rlaifv_pl.miniature import packaged_model
from rlaifv_pl.miniature.claims import SceneSplitter
from rlaifv_pl.records import Claim, Sample
from rlaifv_pl.seeds import derive

THINGS = ("a red cup", "a blue ring", "a green moon", "a white star")


class Script:
    """An engine whose answers are fixed by seeds and texts.

    Args:
        identity: another one, other answers.
        breaks_at: call of `sample` or `choose`, counted from 1, at which the server goes away.
    """

    def __init__(self, identity: str = "script", breaks_at: int | None = None) -> None:
        self.identity, self.breaks_at = identity, breaks_at
        self.sampled: list[str] = []
        self.chosen: list[Request] = []
        self.calls, self.released = 0, 0

    def sample(
        self, samples: Sequence[Sample], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        self._call()
        self.sampled += [sample.key for sample in samples]
        return [[Completion(self._said(seed), True) for seed in own] for own in seeds]

    def choose(self, requests: Sequence[Request], words: Sequence[str]) -> list[list[float]]:
        self._call()
        self.chosen += requests
        return [self._shares(request, len(words)) for request in requests]

    def release(self) -> None:
        self.released += 1

    def _call(self) -> None:
        self.calls += 1
        if self.calls == self.breaks_at:
            raise EngineError("the server went away")

    def _said(self, seed: int) -> str:
        rng = random.Random(derive(self.identity, seed))
        things = rng.choices(THINGS, k=rng.randint(0, 3))
        return f"there is {' and '.join(things)} here." if things else "it is nice."

    def _shares(self, request: Request, many: int) -> list[float]:
        rng = random.Random(derive(self.identity, request.text, *map(_hash, request.images)))
        weights, mass = [rng.random() for _ in range(many)], rng.choice((0.25, 0.75, 1.0))
        return [mass * weight / sum(weights) for weight in weights]


def _hash(data: bytes) -> str:
    return sha256(data).hexdigest()


class Mentions:
    """Divides a scripted answer: every thing is a claim as often as it is named."""

    def recipe(self) -> dict:
        return {"splitter": "mentions"}

    def split(self, answered: Sequence[PromptedAnswer]) -> list[list[Claim] | None]:
        return [
            [
                Claim(text=found[0], question=f"is there {found[0]}?", spans=(found.span(),))
                for found in re.finditer("|".join(THINGS), text)
            ]
            for _, text in answered
        ]

    def release(self) -> None: ...


def scripted_run(
    out: Path, prompts: str | Path, policy: Script, judge: Script | None, *, seed: int = 1, **how
) -> FeedbackPipeline:
    """A pass of feedback by scripts; `how` replaces settings of `FeedbackConfig`."""
    settings = {
        "splitter": Mentions(),
        "labeler": ModelLabeler(engine=judge, question="{question}"),
        "sampling": Sampling(n=8),
        "prompts_per_part": 4,
    }
    return real_run(out, prompts, policy, FeedbackConfig(**settings | how), seed=seed)


def real_run(
    out: Path,
    prompts: str | Path,
    policy,
    feedback: FeedbackConfig,
    *,
    seed: int = 1,
    executor: Executor | None = None,
) -> FeedbackPipeline:
    """A pass of feedback over all prompts of some shards."""
    shards = load_shards(prompts)
    return FeedbackPipeline(
        feedback=feedback,
        policy=policy,
        prompts=PromptSet(shards, range(len(shards))),
        out=out,
        seed=seed,
        round=2,
        executor=executor or RankShare(),
    )


def world_feedback(known: str | Path) -> FeedbackConfig:
    """The miniature world's feedback, with its models."""
    labeler = TransformersEngine(path=str(packaged_model("labeler")), batch_size=64)
    return FeedbackConfig(
        splitter=SceneSplitter(),
        labeler=ModelLabeler(engine=labeler, question="{question}"),
        sampling=Sampling(n=4, temperature=1.0, max_new_tokens=60),
        gate=Gate(shards=str(known), min_accuracy=0.8),
        prompts_per_part=2,
    )


def world_policy() -> TransformersEngine:
    """The policy that the miniature world begins with."""
    return TransformersEngine(path=str(packaged_model("base")), batch_size=64)


if __name__ == "__main__":
    out, prompts, known, rank, of = sys.argv[1:]
    share = RankShare(int(rank), int(of))
    real_run(Path(out), prompts, world_policy(), world_feedback(known), executor=share).make()
