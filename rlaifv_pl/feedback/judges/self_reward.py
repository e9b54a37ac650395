"""Self-reward: the whole answer judged in one prompt, the ablation of RLAIF-V's divide and conquer.

It is the same five verbs: the one claim of a candidate is that all of it is true, and its verdict is a
rating. Pair with `combine: rlaifv_pl.feedback.judges.combine.minus_expected_rejected` and a `min_gap` below one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlaifv_pl.feedback.claims.splitter import PromptedAnswer
from rlaifv_pl.feedback.engines.engine import Engine, Request
from rlaifv_pl.feedback.prompt_templates import RATE
from rlaifv_pl.records import Claim, Sample, Verdict

DIGITS = ("1", "2", "3", "4", "5")


@dataclass(kw_only=True)
class WholeAnswer:
    """Does not divide: a candidate is one claim.

    Args:
        question: what is asked about it, with `{answer}` in it, or with `{statement}`, the answer without its last
            full stop; and with `{prompt}` if it matters.
    """

    question: str = RATE

    def recipe(self) -> dict[str, Any]:
        """The wording."""
        return {"splitter": "whole answer", "question": self.question}

    def split(self, answered: Sequence[PromptedAnswer]) -> list[list[Claim]]:
        """One claim each; none of an empty text."""
        return [self._claim(prompt, text) if text else [] for prompt, text in answered]

    def release(self) -> None:
        """Nothing."""

    def _claim(self, prompt: str, text: str) -> list[Claim]:
        statement = text.strip().removesuffix(".")
        question = self.question.format(prompt=prompt, answer=text, statement=statement)
        return [Claim(text=text, question=question, spans=((0, len(text)),))]


@dataclass(kw_only=True)
class RatingLabeler:
    """Judges by a digit from 1 to 5: the expected digit, scaled to [0, 1], is the share of yes.

    Args:
        engine: the model; the policy rates itself unless given.
    """

    engine: Engine | None = None

    def recipe(self, policy: str) -> dict[str, Any]:
        """The model's identity."""
        return {"rating": self.engine.identity if self.engine else policy}

    def verdicts(self, samples: Sequence[Sample], questions: Sequence[str], policy: Engine) -> list[Verdict]:
        """As `Labeler.verdicts`; yes and no add up to the probability of the five digits."""
        requests = [
            Request(question, sample.images, f"sample {sample.key}")
            for sample, question in zip(samples, questions, strict=True)
        ]
        return [_verdict(shares) for shares in (self.engine or policy).choose(requests, DIGITS)]

    def release(self) -> None:
        """Drop the labeler's weights."""
        if self.engine is not None:
            self.engine.release()


def _verdict(shares: Sequence[float]) -> Verdict:
    yes = sum(share * number / (len(shares) - 1) for number, share in enumerate(shares))
    return Verdict(yes=yes, no=sum(shares) - yes)
