"""The nouns: what passes between the stages, one frozen record each.

A `Sample` is one keyed entry of a shard. Feedback looks at the policy's `Candidate`s through their
`Claim`s and the labeler's `Verdict`s, and leaves samples with a chosen and a rejected completion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]
"""One turn: `role` (system, user, assistant) and `content` (text, or a list of blocks
`{"type": "text", "text": ...}` and `{"type": "image"}`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One atomic statement of a candidate that can be true or false on its own."""

    text: str
    """The claim in words."""
    question: str
    """The claim put so that yes confirms it."""
    spans: tuple[tuple[int, int], ...]
    """Stretches of the candidate that make this claim and no other: first character and one past the last, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the labeler makes of one claim: the probability that it puts on each answer."""

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
    """Seed of its sampling, so that it can be drawn again."""
    ended: bool = True
    """Whether the policy ended it; false where the limit of tokens cut it off."""
    claims: tuple[Claim, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    """One for each claim, in the same order."""
    fault: str | None = None
    """Why nobody can tell how good it is; one of `feedback.reasons.REMEDIES`."""
    score: float | None = None
    """What the verdicts combine to, higher is better; its order means something within one prompt only.
    None before that, and for a candidate without claims: nobody judged it."""


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
    """Ids of the codebook's error types that the turn is about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One keyed entry of a shard: images, a prompt, and what an objective learns from.

    Which of `chosen`/`rejected`, `completion` and `corrections` are present decides which
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
    """The answer to learn by SFT."""
    truncated: tuple[str, ...] = ()
    """Which of `chosen`, `rejected` and `completion` a limit of tokens cut off: what ends those is nothing to learn."""
    corrections: tuple[Correction, ...] = ()
    rejected_images: tuple[bytes, ...] = ()
    """Images of the rejected side where they differ from `images`; as many."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """`{chosen|rejected: {score, seed, claims: [{text, question, spans, yes, no}]}}`."""
    spans: tuple[Mapping[str, Any], ...] = ()
    """`{side, start, end, weight}`: weights of character ranges of a completion."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """`{source, round, generator, labeler, seed, ...}`: where the sample came from."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the JSON that the schema does not know, kept as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a policy completes a held-out prompt with, where somebody knows what of it is true."""

    prompt: Sample
    text: str
    mentions: tuple[tuple[int, int, bool], ...] = ()
    """First character, one past the last, and whether it is true, of each thing said; in order, none over another."""
