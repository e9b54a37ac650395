"""Conquer: a labeler answers each claim's question with yes or no, as probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Protocol

from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.feedback.engines.engine import Engine, Request
from rlaifv_pl.feedback.engines.response_cache import ResponseCache
from rlaifv_pl.feedback.prompt_templates import YES_NO
from rlaifv_pl.feedback.reasons import UNJUDGED
from rlaifv_pl.records import Candidate, Sample, Verdict

LOW_MASS = 0.5
"""Below this P(yes) + P(no), the labeler wanted to say something else."""


class Labeler(Protocol):
    """Who judges claims."""

    def recipe(self, policy: str) -> dict[str, Any]:
        """All that decides the verdicts, as JSON.

        Args:
            policy: its identity.
        """

    def verdicts(self, samples: Sequence[Sample], questions: Sequence[str], policy: Engine) -> list[Verdict]:
        """One verdict for each question about the images of the sample beside it.

        Args:
            policy: that wrote what is judged, for a labeler that is the policy itself.
        """

    def release(self) -> None:
        """Free what it holds in memory."""


@dataclass(kw_only=True)
class ModelLabeler:
    """A vision-language model as labeler: P(yes) and P(no) are of the first token of its answer, summed over
    the ways in which its own vocabulary writes the words.

    Args:
        engine: the model; the policy labels itself unless given.
        question: what it is asked, with `{question}` in it.
        cache: file that keeps verdicts, so that no question about an image is paid for twice.
    """

    engine: Engine | None = None
    question: str = YES_NO
    cache: str | None = None

    def recipe(self, policy: str) -> dict[str, Any]:
        """The model's identity and the wording."""
        return {"labeler": self.engine.identity if self.engine else policy, "question": self.question}

    def verdicts(self, samples: Sequence[Sample], questions: Sequence[str], policy: Engine) -> list[Verdict]:
        """As `Labeler.verdicts`; the same question about the same images is asked once."""
        engine = self.engine or policy
        asked = [
            Request(self.question.format(question=question), sample.images, f"sample {sample.key}")
            for sample, question in zip(samples, questions, strict=True)
        ]
        keys = _keys(engine.identity, asked)
        cache = ResponseCache(self.cache) if self.cache else None
        known = cache.get(sorted(set(keys))) if cache else {}
        missing = {key: request for key, request in zip(keys, asked, strict=True) if key not in known}
        new = dict(zip(missing, engine.choose(list(missing.values()), ("yes", "no")), strict=True))
        # All at once: after a kill, the same questions are asked together again, with the same last digits.
        if cache and (answered := {key: shares for key, shares in new.items() if sum(shares) > 0}):
            cache.put(answered)
        known |= new
        return [Verdict(yes=known[key][0], no=known[key][1]) for key in keys]

    def release(self) -> None:
        """Drop the labeler's weights."""
        if self.engine is not None:
            self.engine.release()


def judge_claims(
    samples: Sequence[Sample], candidates: Sequence[Sequence[Candidate]], labeler: Labeler, policy: Engine
) -> list[list[Candidate]]:
    """The candidates of each sample with a verdict on every claim; equal questions about a sample are one.

    A candidate about which the labeler answered a question with neither yes nor no has the fault `unjudged`.
    """
    asked = list(
        dict.fromkeys(
            (number, claim.question)
            for number, drawn in enumerate(candidates)
            for candidate in drawn
            for claim in candidate.claims
        )
    )
    verdicts = labeler.verdicts(
        [samples[number] for number, _ in asked], [question for _, question in asked], policy
    )
    known = dict(zip(asked, verdicts, strict=True))
    return [
        [
            _judged(candidate, [known[number, claim.question] for claim in candidate.claims])
            for candidate in drawn
        ]
        for number, drawn in enumerate(candidates)
    ]


def is_verdict(verdict: Verdict) -> bool:
    """Whether the labeler answered yes or no at all."""
    return verdict.yes + verdict.no > 0


def _judged(candidate: Candidate, verdicts: Sequence[Verdict]) -> Candidate:
    if not all(map(is_verdict, verdicts)):
        return replace(candidate, fault=UNJUDGED)
    return replace(candidate, verdicts=tuple(verdicts))


def low_mass(candidates: Sequence[Candidate]) -> tuple[int, int]:
    """Verdicts whose P(yes) + P(no) is low, and all verdicts."""
    masses = [verdict.yes + verdict.no for candidate in candidates for verdict in candidate.verdicts]
    return sum(mass < LOW_MASS for mass in masses), len(masses)


def _keys(identity: str, requests: Sequence[Request]) -> list[str]:
    # Images of one sample are the same objects in all of its requests.
    seen: dict[int, str] = {}
    return [
        hash_json(
            [
                identity,
                request.text,
                [seen.setdefault(id(data), sha256(data).hexdigest()) for data in request.images],
            ]
        )
        for request in requests
    ]
