"""Pairing: selects the two candidates of a prompt that teach something.

RLAIF-V takes pairs of different scores and at most two of a prompt. The further guards keep a policy from learning to
say less, or from a labeler's doubts; each is off unless set.
"""

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlaifv_pl.feedback.judges.combine import minus_expected_rejected
from rlaifv_pl.models.special_tokens import markup_in
from rlaifv_pl.records import Candidate, Pair


@dataclass(frozen=True, kw_only=True)
class PairRule:
    """Conditions under which two candidates of one prompt make a pair.

    Args:
        min_gap: least difference of scores; equal scores never make a pair.
        max_pairs: most pairs of one prompt; more are sampled down.
        distinct_claims: leave out a candidate that makes one claim twice, as RLAIF-V does.
        equal_claims: pair only candidates with equally many claims.
        no_fewer_accepted: the chosen side must make at least as many claims that were accepted.
        min_margin: least difference of the expected numbers of rejected claims: a labeler in doubt counts by its
            probabilities.
    """

    min_gap: float = 1.0
    max_pairs: int = 2
    distinct_claims: bool = True
    equal_claims: bool = False
    no_fewer_accepted: bool = False
    min_margin: float | None = None

    def __post_init__(self) -> None:
        if self.min_gap <= 0 or self.max_pairs < 1:
            raise ValueError(
                f"pairing: expected min_gap > 0 and max_pairs >= 1, got {self.min_gap} and {self.max_pairs}"
            )


class LeftOut(NamedTuple):
    """A candidate, or two that would have been a pair, with the reason against them."""

    reason: str
    candidates: tuple[Candidate, ...]
    """Of two, the higher score first."""


class PairingResult(NamedTuple):
    """Pairs of one prompt, and the candidates and pairs that were left out."""

    pairs: list[Pair]
    left_out: list[LeftOut]

    @property
    def drops(self) -> Counter[str]:
        """Number of candidates and pairs that were left out, by reason."""
        return Counter(one.reason for one in self.left_out)


def pair(candidates: Sequence[Candidate], rule: PairRule, seed: int) -> PairingResult:
    """Pair the candidates of one prompt, the higher score chosen; at most `rule.max_pairs` times.

    Candidates without a score were not judged. Equal texts count as one candidate.
    """
    left_out: list[LeftOut] = []

    def fits(kind: str, reasons: Iterator[str], *members: Candidate) -> bool:
        """Whether there is no reason against them; otherwise they are left out for the first one."""
        reason = next(reasons, None)
        if reason is not None:
            left_out.append(LeftOut(f"{kind}/{reason}", members))
        return reason is None

    sound = [one for one in candidates if fits("candidate", iter([one.fault] if one.fault else []), one)]
    last = {candidate.text: number for number, candidate in enumerate(sound)}
    left_out += [
        LeftOut("candidate/equal_text", (one,))
        for number, one in enumerate(sound)
        if last[one.text] != number
    ]
    judged = [
        one for number in last.values() if fits("candidate", _unusable(one := sound[number], rule), one)
    ]
    ordered = [
        Pair(chosen=max(two, key=score_of), rejected=min(two, key=score_of))
        for two in itertools.combinations(judged, 2)
    ]
    fitting = [two for two in ordered if fits("pair", _unfit(two, rule), two.chosen, two.rejected)]
    kept = random.Random(seed).sample(fitting, min(rule.max_pairs, len(fitting)))
    left_out += [
        LeftOut("pair/over_max_pairs", (two.chosen, two.rejected)) for two in fitting if two not in kept
    ]
    return PairingResult(kept, left_out)


def score_of(candidate: Candidate) -> float:
    """Return the score of a judged candidate.

    Raises:
        ValueError: it was not judged.
    """
    if candidate.score is None:
        raise ValueError(f"expected a candidate with a score, got {candidate!r:.80}")
    return candidate.score


def _unusable(candidate: Candidate, rule: PairRule) -> Iterator[str]:
    if markup_in(candidate.text):
        yield "special_token"
    if candidate.score is None:
        yield "no_claims"
    if rule.distinct_claims and len({claim.question for claim in candidate.claims}) < len(candidate.claims):
        yield "repeated_claim"


def _unfit(two: Pair, rule: PairRule) -> Iterator[str]:
    chosen, rejected = two.chosen, two.rejected
    if score_of(chosen) - score_of(rejected) < rule.min_gap:
        yield "small_gap"
    if rule.equal_claims and len(chosen.claims) != len(rejected.claims):
        yield "unequal_claims"
    if rule.no_fewer_accepted and _accepted(chosen) < _accepted(rejected):
        yield "fewer_accepted"
    margin = minus_expected_rejected(chosen) - minus_expected_rejected(rejected)
    if rule.min_margin is not None and margin < rule.min_margin:
        yield "small_margin"


def _accepted(candidate: Candidate) -> int:
    return sum(not verdict.rejected for verdict in candidate.verdicts)
