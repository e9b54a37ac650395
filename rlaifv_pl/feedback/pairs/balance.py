"""Length balance: pairs are left out until chosen and rejected are equally long on average.

Scores that count rejected claims favour short candidates, and a policy trained on such pairs learns to say less.
RLAIF-V's remedy is part of its method: drop the pairs whose chosen side is much shorter, as many as brings the mean
lengths closest.
"""

from collections.abc import Sequence

from rlaifv_pl.records import Pair

STEPS = 50
"""Number of thresholds that are tried: 0, 0.02, ... 0.98."""


def balance_lengths(pairs: Sequence[Pair]) -> tuple[float, list[bool]]:
    """Return the best threshold, and whether each pair is kept.

    The shortening of a pair is (words of rejected - words of chosen) / words of rejected. Kept are pairs with a
    shortening of at most the threshold that minimises |mean chosen - mean rejected| / mean rejected over the kept ones;
    of equally good ones the smallest. Pairs with a longer chosen side are never left out.
    """
    lengths = [(len(pair.chosen.text.split()), len(pair.rejected.text.split())) for pair in pairs]
    shortenings = [(rejected - chosen) / rejected if rejected else 0.0 for chosen, rejected in lengths]
    kept_by = {step / STEPS: [one <= step / STEPS for one in shortenings] for step in range(STEPS)}
    best = min(kept_by, key=lambda threshold: _imbalance(lengths, kept_by[threshold]))
    return best, kept_by[best]


def _imbalance(lengths: Sequence[tuple[int, int]], kept: Sequence[bool]) -> float:
    chosen = sum(words for (words, _), keep in zip(lengths, kept, strict=True) if keep)
    rejected = sum(words for (_, words), keep in zip(lengths, kept, strict=True) if keep)
    return abs(chosen - rejected) / rejected if rejected else float("inf")
