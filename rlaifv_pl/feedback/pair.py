"""Pair: which two candidates of a prompt teach something, and how many of them.

RLAIF-V takes pairs of different scores and at most two of a prompt. The score counts rejected claims,
so the shorter candidate tends to win and a policy trained on such pairs alone learns to say less. The
guard `equal_claims` keeps only pairs that claim equally much: what is left to learn is being right.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from rlaifv_pl.records import Candidate, Pair


@dataclass(frozen=True, kw_only=True)
class PairRule:
    """When two candidates of one prompt make a pair.

    Args:
        min_gap: difference of scores, at least.
        max_pairs: of one prompt; more are sampled down.
        equal_claims: only candidates with equally many claims.
    """

    min_gap: int = 1
    max_pairs: int = 2
    equal_claims: bool = False

    def __post_init__(self) -> None:
        if self.min_gap < 1 or self.max_pairs < 1:
            raise ValueError(
                f"min_gap and max_pairs must be at least 1, got {self.min_gap} and {self.max_pairs}"
            )


def pair(candidates: Sequence[Candidate], rule: PairRule, seed: int) -> list[Pair]:
    """Pairs among the candidates of one prompt, the higher score chosen; at most `rule.max_pairs`.

    Candidates without a claim have no score: nobody judged them. Equal texts count as one candidate.
    """
    judged = list({candidate.text: candidate for candidate in candidates if candidate.claims}.values())
    found = [
        Pair(chosen=max(two, key=_score), rejected=min(two, key=_score))
        for two in itertools.combinations(judged, 2)
        if abs(two[0].score - two[1].score) >= rule.min_gap
        and (not rule.equal_claims or len(two[0].claims) == len(two[1].claims))
    ]
    return random.Random(seed).sample(found, min(rule.max_pairs, len(found)))


def _score(candidate: Candidate) -> int:
    return candidate.score
