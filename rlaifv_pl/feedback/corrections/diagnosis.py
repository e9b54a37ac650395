"""Diagnose: what the rejected answer of a pair got wrong, told from the verdicts on both answers' claims.

No model is asked: a claim that was rejected is wrong, one that only the chosen answer makes was missed.
The kind of mistake is told from the words alone, as far as they show it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.sample_json import shorten
from rlaifv_pl.feedback.corrections.dialogue_rules import normalize_text
from rlaifv_pl.feedback.corrections.synonyms import ends_phrase, is_object, names, sexes, stem
from rlaifv_pl.records import Sample, Verdict

ABSENT, MISSED, COLOR, COUNT = "obj.absent", "obj.missed", "attr.color", "count"
"""Ids of the shipped codebook."""

COLORS = {
    "black", "blue", "brown", "gold", "gray", "green", "grey", "orange", "pink", "purple", "red", "silver", "tan",
    "white", "yellow",
}  # fmt: skip
NUMBERS = {
    "zero", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
}  # fmt: skip
"""`one` is left out: it stands for an article more often than for a count."""
FUNCTION_WORDS = {"a", "an", "the", "one", "there", "is", "are", "was", "were"}


@dataclass(frozen=True)
class JudgedClaim:
    """One claim with its verdict."""

    text: str
    question: str
    rejected: bool

    @cached_property
    def key(self) -> str:
        """What equal claims have in common."""
        return normalize_text(self.question)

    @cached_property
    def words(self) -> list[str]:
        """The words of the claim."""
        return normalize_text(self.text).split()

    @cached_property
    def colors(self) -> frozenset[str]:
        """Colours that it states."""
        return frozenset(COLORS.intersection(self.words))

    @cached_property
    def numbers(self) -> frozenset[str]:
        """Counts above one that it states."""
        return frozenset(word for word in self.words if word in NUMBERS or re.fullmatch(r"\d+", word))

    @cached_property
    def subject(self) -> tuple[str, ...]:
        """What it is about: its words but for colours, counts and function words, each thing by one name."""
        left_out = self.colors | self.numbers | FUNCTION_WORDS
        return names([word for word in self.words if word not in left_out])

    @cached_property
    def things(self) -> frozenset[str]:
        """What it names: objects that are known, and what it is first of all about."""
        said = self.subject
        end = next((place for place, word in enumerate(said) if place and ends_phrase(word)), len(said))
        return frozenset({*filter(is_object, said), *said[max(0, end - 1) : end]})

    def says(self, other: "JudgedClaim") -> bool:
        """Whether it claims the same in other words: synonyms, plurals, other forms of a verb."""
        if self.numbers != other.numbers or self.colors != other.colors:
            return False
        told = [frozenset(map(stem, one.subject)) for one in (self, other)]
        sex = [sexes(one.words) for one in (self, other)]
        return told[0] == told[1] and (sex[0] == sex[1] or not all(sex))

    def names(self, thing: str, other: "JudgedClaim") -> bool:
        """Whether it speaks of a thing of another claim, unless in another colour or a number that is wrong."""
        is_other = self.colors and other.colors and not self.colors & other.colors
        is_miscounted = self.rejected and self.numbers and self.numbers != other.numbers
        return thing in self.things and not is_other and not is_miscounted

    def contradicts(self, other: "JudgedClaim") -> str | None:
        """The code of what the two claims say differently about one subject; None where the words show
        no contradiction."""
        if self.subject != other.subject or not self.subject:
            return None
        said = {COLOR: (self.colors, other.colors), COUNT: (self.numbers, other.numbers)}
        return next((code for code, (own, its) in said.items() if own and its and own != its), None)


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim with what it tells about the rejected answer."""

    claim: JudgedClaim
    code: str | None = None
    """Id of the error type; None where the rejected answer is right, or the words do not show the type."""
    counterpart: JudgedClaim | None = None
    """For a wrong claim: the chosen answer's accepted claim that contradicts it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """The claims of a pair by what they tell about its rejected answer."""

    wrong: list[Finding]
    """It makes them, and they were rejected."""
    missed: list[Finding]
    """Only the chosen answer makes them, and they were accepted."""
    right: list[Finding]
    """It makes them, and they were accepted."""


def diagnose(sample: Sample) -> Diagnosis:
    """Compare the evidence of the two sides.

    What both answers get wrong is left out: the dialogue would contradict the chosen answer, which is
    trained beside it.

    Raises:
        BadSample: `missing_evidence`.
    """
    chosen, rejected = (_judged(sample, side) for side in ("chosen", "rejected"))
    accepted = [claim for claim in chosen.values() if not claim.rejected]
    wrong = [
        claim
        for key, claim in rejected.items()
        if claim.rejected and key not in chosen and not any(other.says(claim) for other in chosen.values())
    ]
    return Diagnosis(
        wrong=[_wrong(claim, accepted) for claim in wrong],
        missed=_all_missed(
            accepted, list(rejected.values()), names(normalize_text(sample.rejected or "").split())
        ),
        right=[Finding(claim) for claim in rejected.values() if not claim.rejected],
    )


def _wrong(claim: JudgedClaim, accepted: Sequence[JudgedClaim]) -> Finding:
    for other in accepted:
        if code := claim.contradicts(other):
            return Finding(claim, code, other)
    return Finding(claim, COUNT if claim.numbers else ABSENT)


def _all_missed(
    accepted: Sequence[JudgedClaim], made: Sequence[JudgedClaim], said: Sequence[str]
) -> list[Finding]:
    """Claims that the rejected answer does not make, in whatever words.

    Args:
        made: its claims.
        said: its words, as `names`.
    """
    right = [claim for claim in made if not claim.rejected]
    keys = {claim.key for claim in made}
    new = [one for one in accepted if one.key not in keys and not any(other.says(one) for other in right)]
    return [Finding(claim, _code_of_missed(claim, made, said)) for claim in new]


def _code_of_missed(claim: JudgedClaim, made: Sequence[JudgedClaim], said: Sequence[str]) -> str | None:
    """What kind of mistake it is; an object is missed where the answer names none of that kind."""
    wrong = (other for other in made if other.rejected)
    if code := next(filter(None, map(claim.contradicts, wrong)), None):
        return code
    claimed = {thing for other in made for thing in other.things}
    return None if all(_is_said(thing, claim, made, {*said} - claimed) for thing in claim.things) else MISSED


def _is_said(thing: str, claim: JudgedClaim, made: Sequence[JudgedClaim], unclaimed: set[str]) -> bool:
    return any(other.names(thing, claim) for other in made) or (thing in unclaimed and not claim.colors)


def _judged(sample: Sample, side: str) -> dict[str, JudgedClaim]:
    """The claims of one side; one that is made twice counts once."""
    claims = sample.evidence.get(side, {}).get("claims")
    if not isinstance(claims, Sequence) or not all(map(_is_claim, claims)):
        raise BadSample(
            Reason.MISSING_EVIDENCE,
            f"sample {sample.key!r}",
            f"evidence of {side} must list claims with text, question (of one line), yes and no, "
            f"got {shorten(claims)}",
        )
    judged = (
        JudgedClaim(claim["text"], claim["question"], Verdict(yes=claim["yes"], no=claim["no"]).rejected)
        for claim in claims
    )
    return {claim.key: claim for claim in judged}


def _is_claim(value: Any) -> bool:
    """A question of several lines is a whole answer put to a labeler: no user would ask it."""
    texts, numbers = (
        [value.get(name) if isinstance(value, Mapping) else None for name in names]
        for names in (("text", "question"), ("yes", "no"))
    )
    return all(isinstance(text, str) and "\n" not in text.strip() for text in texts) and all(
        isinstance(number, int | float) for number in numbers
    )
