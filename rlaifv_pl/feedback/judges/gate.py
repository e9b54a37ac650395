"""The gate: a labeler that cannot answer what is known does not get to judge.

Feedback of a labeler near chance makes every round worse than the last, and nothing in the losses shows it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.engines.engine import Engine, EngineError
from rlaifv_pl.feedback.judges.labeler import Labeler, is_verdict
from rlaifv_pl.models.chat import prompt_question
from rlaifv_pl.records import Sample

ANSWERS = ("no", "yes")


class KnownAnswer(NamedTuple):
    """A question whose answer is known."""

    sample: Sample
    question: str
    answer: str


class Grade(NamedTuple):
    """How a labeler did."""

    accuracy: float
    """Mean of the accuracies on questions with answer yes and with answer no."""
    unanswered: int
    """Questions that it answered neither with yes nor with no."""


@dataclass(kw_only=True)
class Gate:
    """Known questions, and how many of them a labeler must get right.

    Args:
        shards: SFT samples whose prompt ends in a yes/no question and whose completion begins with its answer.
        min_accuracy: mean of the accuracies on questions with answer yes and with answer no.
    """

    shards: str
    min_accuracy: float = 0.8

    def __post_init__(self) -> None:
        if not 0.5 <= self.min_accuracy <= 1:
            raise ValueError(
                f"gate.min_accuracy is {self.min_accuracy}, expected 0.5 (guessing) to 1 (never wrong)"
            )

    def recipe(self) -> dict[str, Any]:
        """The questions."""
        return {"gate": [manifest.hash for manifest in load_shards(self.shards).manifests]}

    def known(self) -> list[KnownAnswer]:
        """The questions with their answers.

        Raises:
            EngineError: the shards lack questions with either answer.
        """
        known = list(self._known())
        answers = sorted({one.answer for one in known})
        if len(answers) < len(ANSWERS):
            raise EngineError(
                f"gate: {self.shards} holds {len(known)} yes/no questions with the answers {answers}; expected "
                "SFT samples of both answers, whose completion begins with yes or no."
            )
        return known

    def grade(self, known: Sequence[KnownAnswer], labeler: Labeler, policy: Engine) -> Grade:
        """How a labeler does on known questions of both answers; neither yes nor no is wrong."""
        samples, questions, answers = zip(*known, strict=True)
        right: dict[str, list[bool]] = defaultdict(list)
        verdicts = labeler.verdicts(samples, questions, policy)
        for answer, verdict in zip(answers, verdicts, strict=True):
            right[answer].append(is_verdict(verdict) and verdict.rejected == (answer == "no"))
        accuracy = sum(sum(hits) / len(hits) for hits in right.values()) / len(right)
        return Grade(accuracy, sum(not is_verdict(verdict) for verdict in verdicts))

    def check(self, grade: Grade) -> None:
        """Let the labeler pass.

        Raises:
            EngineError: it is not accurate enough.
        """
        if grade.accuracy < self.min_accuracy:
            neither = f" {grade.unanswered} were answered neither yes nor no." if grade.unanswered else ""
            raise EngineError(
                f"The labeler answers {grade.accuracy:.1%} of the known questions in {self.shards} right (mean of yes "
                f"and no), and feedback.gate.min_accuracy asks for {self.min_accuracy:.1%}.{neither} Its feedback "
                "would make the policy worse: use a better labeler, check the wording of its question, or lower the "
                "bar."
            )

    def _known(self) -> Iterator[KnownAnswer]:
        stored = load_shards(self.shards)
        for index in range(len(stored)):
            sample = stored[index]
            words = (sample.completion or "").split()
            answer = words[0].strip(".,!").casefold() if words else ""
            if answer in ANSWERS:
                yield KnownAnswer(sample, prompt_question(sample), answer)
