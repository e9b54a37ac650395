"""Gate: known questions that a labeler must answer before it may judge.

Feedback of a labeler near chance makes every round worse than the last, and no loss shows it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.chunks import UNFINISHED, Chunks, Executor, wait_for
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
    """Result of a labeler on known questions."""

    accuracy: float
    """Mean of the accuracies on questions with answer yes and with answer no."""
    unanswered: int
    """Number of questions answered with neither yes nor no."""


@dataclass(kw_only=True)
class Gate:
    """Known questions, and the accuracy that a labeler needs on them.

    Args:
        shards: SFT samples whose prompt ends in a yes/no question and whose completion begins with its answer.
        min_accuracy: lowest mean of the accuracies on questions with answer yes and with answer no.
    """

    shards: str
    min_accuracy: float = 0.8

    def __post_init__(self) -> None:
        if not 0.5 <= self.min_accuracy <= 1:
            raise ValueError(
                f"gate.min_accuracy is {self.min_accuracy}, expected 0.5 (guessing) to 1 (never wrong)"
            )

    def recipe(self) -> dict[str, Any]:
        """Return hashes of the questions' shards."""
        return {"gate": [manifest.hash for manifest in load_shards(self.shards).manifests]}

    def known(self) -> list[KnownAnswer]:
        """Return the questions with their answers.

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
        """Return a labeler's result on known questions of both answers; neither yes nor no is wrong."""
        samples, questions, answers = zip(*known, strict=True)
        hits: dict[str, list[bool]] = defaultdict(list)
        verdicts = labeler.verdicts(samples, questions, policy)
        for answer, verdict in zip(answers, verdicts, strict=True):
            hits[answer].append(is_verdict(verdict) and verdict.rejected == (answer == "no"))
        accuracy = sum(sum(some) / len(some) for some in hits.values()) / len(hits)
        return Grade(accuracy, sum(not is_verdict(verdict) for verdict in verdicts))

    def grade_once(self, labeler: Labeler, policy: Engine, root: Path, executor: Executor) -> Grade:
        """Return the labeler's grade, from the stage's file in `root` if it is there.

        Raises:
            EngineError: the shards lack questions with either answer, or the labeler cannot be asked.
            TimeoutError: another process does not grade it.
        """
        chunks = Chunks(root, "gate", self.recipe() | labeler.recipe(policy.identity), 1, 1)
        if not chunks.is_finished(0):
            before, known = chunks.stamp(0), self.known()

            def rows(_: Sequence[int]) -> list[dict[str, Any]]:
                grade = self.grade(known, labeler, policy)
                is_garbage = grade.unanswered and grade.accuracy < self.min_accuracy
                return [grade._asdict() | ({UNFINISHED: True} if is_garbage else {})]

            list(executor.make(chunks, rows))
            labeler.release()
            # An unfinished one of an earlier start is graded again by the main process.
            wait_for(
                lambda: chunks.is_finished(0) or chunks.stamp(0) != before, f"the gate in {chunks.directory}"
            )
        row = chunks.read(0)[0]
        return Grade(row["accuracy"], row["unanswered"])

    def check(self, grade: Grade) -> None:
        """Raise EngineError if a labeler is not accurate enough."""
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
