"""What may be measured of a policy between rounds, when somebody knows the truth."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from rlaifv_pl.feedback.engine import Engine
from rlaifv_pl.records import Candidate, Sample


class Probe(Protocol):
    """Measures the policy and the labeler between rounds."""

    def figures(self, policy: Engine) -> dict[str, float | None]:
        """Figures by name, `instance`, `sentence`, `recall` and `length` among them."""

    def agreement(self, judged: Iterable[tuple[Sample, Sequence[Candidate]]]) -> float | None:
        """Share of the labeler's verdicts that are true."""
