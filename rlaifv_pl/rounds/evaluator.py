"""What may be measured of a policy between rounds, when somebody knows the truth."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from rlaifv_pl.feedback.engines.engine import Engine
from rlaifv_pl.feedback.pipeline import FeedbackPipeline
from rlaifv_pl.records import Answer, Candidate, Sample


class RoundEvaluator(Protocol):
    """Measures the policy and the labeler between rounds."""

    def measure(self, policy: Engine) -> tuple[dict[str, float | None], Sequence[Answer]]:
        """Figures by name, `instance`, `sentence`, `recall` and `length` among them, and what they were counted on.

        The answers are of the same prompts in the same order each time. The first of them are kept to be read;
        none need be given.
        """

    def agreement(self, judged: Iterable[tuple[Sample, Sequence[Candidate]]]) -> float | None:
        """Share of the labeler's verdicts that are true."""


def with_samples(run: FeedbackPipeline) -> Iterable[tuple[Sample, Sequence[Candidate]]]:
    """The judged candidates of a pass of feedback, with their prompts."""
    for place, (_, candidates, fault) in enumerate(run.candidates()):
        if fault is None:
            (sample,) = run.prompts.read(range(place, place + 1))
            yield sample, candidates
