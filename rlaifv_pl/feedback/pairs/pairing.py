"""Pair: which two candidates of a prompt teach something, and how many of them.

RLAIF-V takes pairs of different scores and at most two of a prompt. The guards beyond that keep a policy
from learning to say less, or from a labeler's doubts; each is off unless set.
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
    """When two candidates of one prompt make a pair.

    Args:
        min_gap: difference of scores, at least; a pair of equal scores is never one.
        max_pairs: of one prompt; more are sampled down.
        distinct_claims: leave out a candidate that makes one claim twice, as RLAIF-V does.
        equal_claims: only candidates with equally many claims.
        no_fewer_accepted: the chosen one makes at least as many claims that were accepted.
        min_margin: difference of the expected numbers of rejected claims, at least: a labeler in doubt counts by
            its probabilities.
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
    """A candidate, or two that would have been a pair, and what kept them out."""

    reason: str
    candidates: tuple[Candidate, ...]
    """Of two, the higher score first."""


class Paired(NamedTuple):
    """The pairs of one prompt, and what did not become one."""

    pairs: list[Pair]
    left_out: list[LeftOut]

    @property
    def drops(self) -> Counter[str]:
        """Candidates and pairs by the reason that left them out."""
        return Counter(one.reason for one in self.left_out)


def pair(candidates: Sequence[Candidate], rule: PairRule, seed: int) -> Paired:
    """Pairs among the candidates of one prompt, the higher score chosen; at most `rule.max_pairs`.

    Candidates without a score were not judged. Equal texts count as one candidate.
    """
    left_out: list[LeftOut] = []
    sound = [one for one in candidates if _fits(left_out, "candidate", _fault(one), one)]
    last = {candidate.text: place for place, candidate in enumerate(sound)}
    left_out += [
        LeftOut("candidate/equal_text", (one,)) for place, one in enumerate(sound) if last[one.text] != place
    ]
    usable = [sound[place] for place in last.values()]
    judged = [one for one in usable if _fits(left_out, "candidate", _unusable(one, rule), one)]
    ordered = [
        Pair(chosen=max(two, key=_score), rejected=min(two, key=_score))
        for two in itertools.combinations(judged, 2)
    ]
    found = [two for two in ordered if _fits(left_out, "pair", _unfit(two, rule), two.chosen, two.rejected)]
    kept = random.Random(seed).sample(found, min(rule.max_pairs, len(found)))
    left_out += [
        LeftOut("pair/over_max_pairs", (two.chosen, two.rejected)) for two in found if two not in kept
    ]
    return Paired(kept, left_out)


def _fits(left_out: list[LeftOut], kind: str, reasons: Iterator[str], *candidates: Candidate) -> bool:
    """Whether there is no reason against them; with the first one they are left out."""
    reason = next(reasons, None)
    if reason is not None:
        left_out.append(LeftOut(f"{kind}/{reason}", candidates))
    return reason is None


def _fault(candidate: Candidate) -> Iterator[str]:
    if candidate.fault is not None:
        yield candidate.fault


def _unusable(candidate: Candidate, rule: PairRule) -> Iterator[str]:
    if markup_in(candidate.text):
        yield "special_token"
    if candidate.score is None:
        yield "no_claims"
    if rule.distinct_claims and len({claim.question for claim in candidate.claims}) < len(candidate.claims):
        yield "repeated_claim"


def _unfit(two: Pair, rule: PairRule) -> Iterator[str]:
    chosen, rejected = two.chosen, two.rejected
    if chosen.score - rejected.score < rule.min_gap:
        yield "small_gap"
    if rule.equal_claims and len(chosen.claims) != len(rejected.claims):
        yield "unequal_claims"
    if rule.no_fewer_accepted and _accepted(chosen) < _accepted(rejected):
        yield "fewer_accepted"
    if rule.min_margin is not None and _margin(two) < rule.min_margin:
        yield "small_margin"


def _margin(two: Pair) -> float:
    return minus_expected_rejected(two.chosen) - minus_expected_rejected(two.rejected)


def _accepted(candidate: Candidate) -> int:
    return sum(not verdict.rejected for verdict in candidate.verdicts)


def _score(candidate: Candidate) -> float:
    return candidate.score
