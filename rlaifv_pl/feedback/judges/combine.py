"""Combine: the verdicts on a candidate's claims become its score, higher is better.

A rule is any function of a candidate with claims and verdicts; configs name it by its path.
"""

from rlaifv_pl.records import Candidate, Verdict


def minus_rejected(candidate: Candidate) -> float:
    """Minus the number of rejected claims: RLAIF-V's rule. A tie of yes and no rejects."""
    return 0.0 - sum(verdict.rejected for verdict in candidate.verdicts)


def minus_expected_rejected(candidate: Candidate) -> float:
    """Minus the expected number of rejected claims: as RLAIF-V's rule, but doubt counts.

    Of a candidate that was judged as a whole it is the rating, less one (self-reward).
    """
    return 0.0 - sum(_doubt(verdict) for verdict in candidate.verdicts)


def minus_rejected_share(candidate: Candidate) -> float:
    """Minus the share of the claims that were rejected: saying less does not help by itself."""
    return minus_rejected(candidate) / len(candidate.verdicts)


def _doubt(verdict: Verdict) -> float:
    mass = verdict.yes + verdict.no
    return verdict.no / mass if mass else 0.5
