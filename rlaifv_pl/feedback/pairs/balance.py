"""Balance: leave pairs out until chosen and rejected are equally long on average.

Scores that count rejected claims favour short candidates, and a policy trained on such pairs learns to say
less. RLAIF-V's remedy is part of its method: drop the pairs whose chosen side is much shorter, as many as
brings the mean lengths closest.
"""

from collections.abc import Sequence

from rlaifv_pl.records import Pair

STEPS = 50
"""Thresholds that are tried: 0, 0.02, ... 0.98."""


def balance_lengths(pairs: Sequence[Pair]) -> tuple[float, list[bool]]:
    """The best threshold, and which pairs it keeps.

    The shortening of a pair is (words of rejected - words of chosen) / words of rejected. Kept are pairs with
    a shortening of at most the threshold that minimises |mean chosen - mean rejected| / mean rejected over
    what is kept; of equally good ones the smallest. Pairs with a longer chosen side are never left out.
    """
    lengths = [(_words(pair.chosen.text), _words(pair.rejected.text)) for pair in pairs]
    kept_by = {step / STEPS: [_shortening(*two) <= step / STEPS for two in lengths] for step in range(STEPS)}
    best = min(kept_by, key=lambda threshold: _imbalance(lengths, kept_by[threshold]))
    return best, kept_by[best]


def _imbalance(lengths: Sequence[tuple[int, int]], kept: Sequence[bool]) -> float:
    chosen = sum(two[0] for two, keep in zip(lengths, kept, strict=True) if keep)
    rejected = sum(two[1] for two, keep in zip(lengths, kept, strict=True) if keep)
    return abs(chosen - rejected) / rejected if rejected else float("inf")


def _shortening(chosen: int, rejected: int) -> float:
    return (rejected - chosen) / rejected if rejected else 0.0


def _words(text: str) -> int:
    return len(text.split())
