"""The protocol of evaluators, which measure the policy between rounds where the truth is known."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from rlaifv_pl.feedback.engines.engine import Engine
from rlaifv_pl.feedback.pipeline import FeedbackPipeline
from rlaifv_pl.records import Answer, Candidate, Sample


class RoundEvaluator(Protocol):
    """Measures the policy and the labeler between rounds."""

    def measure(self, policy: Engine) -> tuple[dict[str, float | None], Sequence[Answer]]:
        """Return figures by name, including `instance`, `sentence`, `recall` and `length`, and the answers behind them.

        The answers are to the same prompts in the same order each time. The first of them are kept for the report; an
        evaluator may return none.
        """

    def agreement(self, judged: Iterable[tuple[Sample, Sequence[Candidate]]]) -> float | None:
        """Return the share of the labeler's verdicts that are true; None if it is undefined."""


def with_samples(pipeline: FeedbackPipeline) -> Iterable[tuple[Sample, Sequence[Candidate]]]:
    """Yield the judged candidates of a pass of feedback with their prompts."""
    for place, (_, candidates, fault) in enumerate(pipeline.candidates()):
        if fault is None:
            (sample,) = pipeline.prompts.read(range(place, place + 1))
            yield sample, candidates
