"""The verbs in a row: prompts in, preference shards with their evidence out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from rlaifv_pl.feedback.generate import Sampling, batches, generate
from rlaifv_pl.feedback.pair import PairRule, pair
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.records import Candidate, Claim, Pair, Sample, Verdict
from rlaifv_pl.seeds import derive


class Labeler(Protocol):
    """Who judges claims."""

    name: str

    def verdicts(self, sample: Sample, questions: Sequence[str]) -> list[Verdict]:
        """One verdict for each question about the images of the sample."""


@dataclass(kw_only=True)
class Feedback:
    """How preference pairs are made of a policy's own answers.

    Args:
        divide: a candidate's text into claims.
        labeler: judges the claims.
        rule: which candidates make a pair.
        sampling: of the candidates.
        batch_size: prompts that are sampled for at a time; the result does not depend on it.
    """

    divide: Callable[[str], list[Claim]]
    labeler: Labeler
    rule: PairRule
    sampling: Sampling = field(default_factory=Sampling)
    batch_size: int = 8

    def pairs(self, policy: VLM, chat: Chat, prompts: Sequence[Sample], seed: int) -> Iterator[list[Sample]]:
        """For each prompt in turn, its preference samples: none when no two candidates make a pair."""
        for group in batches(prompts, self.batch_size):
            drawn = generate(policy, chat, group, self.sampling, seed)
            for sample, candidates in zip(group, drawn, strict=True):
                judged = self._judge(sample, candidates)
                found = pair(judged, self.rule, derive(seed, "pair", sample.key))
                yield [self._sample(sample, one, number, seed) for number, one in enumerate(found)]

    def recipe(self) -> dict[str, Any]:
        """The settings that decide the outcome."""
        return {
            "divide": f"{self.divide.__module__}.{self.divide.__qualname__}",
            "labeler": self.labeler.name,
            "rule": asdict(self.rule),
            "sampling": asdict(self.sampling),
        }

    def _judge(self, sample: Sample, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Candidates with claims and verdicts; each question is asked once an image."""
        divided = [replace(candidate, claims=tuple(self.divide(candidate.text))) for candidate in candidates]
        questions = list(dict.fromkeys(claim.question for candidate in divided for claim in candidate.claims))
        known = dict(zip(questions, self.labeler.verdicts(sample, questions), strict=True))
        return [
            replace(candidate, verdicts=tuple(known[claim.question] for claim in candidate.claims))
            for candidate in divided
        ]

    def _sample(self, prompt: Sample, found: Pair, number: int, seed: int) -> Sample:
        return replace(
            prompt,
            key=f"{prompt.key}_p{number}",
            chosen=found.chosen.text,
            rejected=found.rejected.text,
            evidence={"chosen": _evidence(found.chosen), "rejected": _evidence(found.rejected)},
            provenance={**prompt.provenance, "labeler": self.labeler.name, "feedback_seed": seed},
        )


def _evidence(candidate: Candidate) -> dict[str, Any]:
    claims = [
        {"text": claim.text, "question": claim.question, "yes": verdict.yes, "no": verdict.no}
        for claim, verdict in zip(candidate.claims, candidate.verdicts, strict=True)
    ]
    return {"score": candidate.score, "seed": candidate.seed, "claims": claims}
