"""Frozen records that pass between the stages.

A `Sample` is one keyed entry of a shard. Feedback judges the policy's `Candidate`s by their `Claim`s and the
labeler's `Verdict`s, and writes samples with a chosen and a rejected completion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

JsonObject = Mapping[str, Any]
"""A JSON object as it is read."""

Message = JsonObject
"""One turn: `role` (system, user, assistant) and `content` (text, or a list of blocks
`{"type": "text", "text": ...}` and `{"type": "image"}`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One atomic statement of a candidate that is true or false on its own."""

    text: str
    """The claim in words."""
    question: str
    """The claim as a question that yes confirms."""
    spans: tuple[tuple[int, int], ...]
    """Character ranges [start, end) of the candidate that make this claim and no other, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The labeler's probabilities of yes and no for one claim."""

    yes: float
    no: float

    @property
    def rejected(self) -> bool:
        """Whether "no" is at least as likely as "yes": a tie counts against the claim, as in RLAIF-V."""
        return self.no >= self.yes


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A completion sampled from the policy, with the verdicts on its claims."""

    text: str
    seed: int
    """Seed that its sampling can be repeated with."""
    ended: bool = True
    """Whether the policy ended it; false where the token limit cut it off."""
    claims: tuple[Claim, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    """One for each claim, in the same order."""
    dropped_claims: tuple[str, ...] = ()
    """Reason of each claim that its splitter left out, one of `feedback.reasons.CLAIM_REASONS`."""
    fault: str | None = None
    """Reason why it could not be judged; one of `feedback.reasons.REMEDIES`."""
    score: float | None = None
    """Combined verdicts; higher is better, comparable within one prompt only.
    None before that, and for a candidate without claims, which is not judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two candidates of one prompt, the better first."""

    chosen: Candidate
    rejected: Candidate


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """One turn of the dialogue that names and mends an error of a rejected completion (nSFT)."""

    question: str
    answer: str
    codes: tuple[str, ...] = ()
    """Ids of the codebook's error types that the turn corrects."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One keyed entry of a shard: images, a prompt, and the answers that an objective learns from.

    The fields that are present (`chosen` and `rejected`, `completion`, `corrections`) decide which
    objectives can use the sample.
    """

    key: str
    """Identity in its shard: lower-case letters, digits, `_` and `-`."""
    prompt: str | Sequence[Message]
    """Text, or messages when there is more than one turn. Assistant turns in it are context for a
    preference sample and targets for an SFT sample."""
    images: tuple[bytes, ...] = ()
    """Encoded files (JPEG, PNG, WebP), in the order of the prompt's image blocks."""
    chosen: str | None = None
    rejected: str | None = None
    completion: str | None = None
    """Answer for SFT."""
    truncated: tuple[str, ...] = ()
    """Those of `chosen`, `rejected` and `completion` that a token limit cut off; their end is not a target."""
    corrections: tuple[Correction, ...] = ()
    rejected_images: tuple[bytes, ...] = ()
    """Images of the rejected side where they differ from `images`; equally many."""
    evidence: JsonObject = field(default_factory=dict)
    """`{chosen|rejected: {score, seed, claims: [{text, question, spans, yes, no}]}}`."""
    spans: tuple[JsonObject, ...] = ()
    """`{side, start, end, weight}`: weights of character ranges of a completion."""
    provenance: JsonObject = field(default_factory=dict)
    """Origin of the sample: `{source, round, generator, labeler, seed, ...}`."""
    extra: JsonObject = field(default_factory=dict)
    """JSON keys that are unknown to the schema, unchanged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A policy's completion of a held-out prompt whose mentions are known to be true or false."""

    prompt: Sample
    text: str
    mentions: tuple[tuple[int, int, bool], ...] = ()
    """(start, end, is_true) of each mention in characters; in order, without overlaps."""
