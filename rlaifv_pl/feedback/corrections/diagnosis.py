"""Diagnosis: what the rejected answer of a pair got wrong, by the verdicts on both answers' claims.

No model is asked: a claim that was rejected is wrong, and one that only the chosen answer makes was missed. The kind of
mistake is read from the words alone, as far as they show it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.sample_json import shorten
from rlaifv_pl.feedback.claims.english.lexicon import words_of
from rlaifv_pl.feedback.corrections.dialogue_rules import normalize_text
from rlaifv_pl.feedback.corrections.synonyms import (
    canonical_names,
    ends_noun_phrase,
    is_object,
    sexes,
    stem,
)
from rlaifv_pl.records import Sample, Verdict

ABSENT, MISSED, COLOR, COUNT = "obj.absent", "obj.missed", "attr.color", "count"
"""Ids of the shipped codebook."""

COLORS = words_of("black blue brown gold gray green grey orange pink purple red silver tan white yellow")
NUMBERS = words_of("zero two three four five six seven eight nine ten eleven twelve")
"""`one` is left out: it stands for an article more often than for a count."""
FUNCTION_WORDS = words_of("a an the one there is are was were")


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its verdict."""

    text: str
    question: str
    rejected: bool

    @cached_property
    def key(self) -> str:
        """Identity of the claim: equal claims have equal keys."""
        return normalize_text(self.question)

    @cached_property
    def words(self) -> list[str]:
        """Words of the claim."""
        return normalize_text(self.text).split()

    @cached_property
    def colors(self) -> frozenset[str]:
        """Colours that it states."""
        return COLORS.intersection(self.words)

    @cached_property
    def numbers(self) -> frozenset[str]:
        """Counts above one that it states."""
        return frozenset(word for word in self.words if word in NUMBERS or re.fullmatch(r"\d+", word))

    @cached_property
    def subject(self) -> tuple[str, ...]:
        """Words without colours, counts and function words, each object by one name."""
        left_out = self.colors | self.numbers | FUNCTION_WORDS
        return canonical_names([word for word in self.words if word not in left_out])

    @cached_property
    def objects(self) -> frozenset[str]:
        """Objects of known classes that it names, and the noun of its subject."""
        names = self.subject
        end = next(
            (place for place, word in enumerate(names) if place and ends_noun_phrase(word)), len(names)
        )
        return frozenset({*filter(is_object, names), *names[max(0, end - 1) : end]})

    def paraphrases(self, other: "JudgedClaim") -> bool:
        """Whether it claims the same in other words: synonyms, plurals, other forms of a verb."""
        if self.numbers != other.numbers or self.colors != other.colors:
            return False
        own_sexes, its_sexes = sexes(self.words), sexes(other.words)
        compatible = own_sexes == its_sexes or not (own_sexes and its_sexes)
        return compatible and {*map(stem, self.subject)} == {*map(stem, other.subject)}

    def mentions(self, name: str, other: "JudgedClaim") -> bool:
        """Whether it names an object of another claim, unless in another colour or a number that is wrong."""
        is_other = self.colors and other.colors and not self.colors & other.colors
        is_miscounted = self.rejected and self.numbers and self.numbers != other.numbers
        return name in self.objects and not is_other and not is_miscounted

    def contradiction(self, other: "JudgedClaim") -> str | None:
        """Return the code of what two claims state differently of one subject; None if the words show nothing."""
        if self.subject != other.subject or not self.subject:
            return None
        if self.colors and other.colors and self.colors != other.colors:
            return COLOR
        return COUNT if self.numbers and other.numbers and self.numbers != other.numbers else None


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim with what it shows about the rejected answer."""

    claim: JudgedClaim
    code: str | None = None
    """Id of the error type; None where the rejected answer is right, or the words do not show the type."""
    counterpart: JudgedClaim | None = None
    """For a wrong claim: the chosen answer's accepted claim that contradicts it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """Claims of a pair by what they show about its rejected answer."""

    wrong: list[Finding]
    """Claims of it that were rejected."""
    missed: list[Finding]
    """Accepted claims that only the chosen answer makes."""
    right: list[Finding]
    """Claims of it that were accepted."""


def diagnose(sample: Sample) -> Diagnosis:
    """Compare the evidence of the two sides.

    Mistakes of both answers are left out: the dialogue would contradict the chosen answer, which is trained beside it.

    Raises:
        BadSample: `missing_evidence`.
    """
    chosen, rejected = (_judged_claims(sample, side) for side in ("chosen", "rejected"))
    accepted = [claim for claim in chosen.values() if not claim.rejected]
    right = [claim for claim in rejected.values() if not claim.rejected]
    wrong = [
        claim
        for key, claim in rejected.items()
        if claim.rejected and key not in chosen and not any(one.paraphrases(claim) for one in chosen.values())
    ]
    missed = [
        claim
        for claim in accepted
        if claim.key not in rejected and not any(one.paraphrases(claim) for one in right)
    ]
    named = {*canonical_names(normalize_text(sample.rejected or "").split())}
    return Diagnosis(
        wrong=[_wrong(claim, accepted) for claim in wrong],
        missed=[Finding(claim, _code_of_missed(claim, [*rejected.values()], named)) for claim in missed],
        right=[Finding(claim) for claim in right],
    )


def _wrong(claim: JudgedClaim, accepted: Sequence[JudgedClaim]) -> Finding:
    for other in accepted:
        if code := claim.contradiction(other):
            return Finding(claim, code, other)
    return Finding(claim, COUNT if claim.numbers else ABSENT)


def _code_of_missed(claim: JudgedClaim, made: Sequence[JudgedClaim], named: set[str]) -> str | None:
    """Return the kind of mistake; an object is missed where the answer names none of that kind.

    Args:
        made: claims of the rejected answer.
        named: canonical names of its words.
    """
    wrong = (other for other in made if other.rejected)
    if code := next(filter(None, map(claim.contradiction, wrong)), None):
        return code
    unclaimed = named.difference(*(other.objects for other in made)) if not claim.colors else set()
    mentioned = (
        name in unclaimed or any(other.mentions(name, claim) for other in made) for name in claim.objects
    )
    return None if all(mentioned) else MISSED


def _judged_claims(sample: Sample, side: str) -> dict[str, JudgedClaim]:
    """Return the claims of one side by key; one that is made twice counts once."""
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


def _is_claim(value: object) -> bool:
    """A question of several lines is a whole answer put to a labeler: no user would ask it."""
    if not isinstance(value, Mapping):
        return False
    return all(
        isinstance(value.get(name), str) and "\n" not in value[name].strip() for name in ("text", "question")
    ) and all(isinstance(value.get(name), int | float) for name in ("yes", "no"))
