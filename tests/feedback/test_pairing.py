"""Combine, pair and balance, by hand and against RLAIF-V's own functions' results."""

import itertools
import json
import random

import pytest

from rlaifv_pl.feedback.judges.combine import minus_expected_rejected, minus_rejected, minus_rejected_share
from rlaifv_pl.feedback.pairs.balance import balance_lengths
from rlaifv_pl.feedback.pairs.pairing import PairRule, pair
from rlaifv_pl.feedback.pairs.samples import scored
from rlaifv_pl.records import Candidate, Claim, Pair, Verdict


def candidate(text: str, labels: str, *, claims: str | None = None, yes: float = 1.0) -> Candidate:
    """A candidate whose claims were accepted (1) or rejected (0); `claims` names them, equal letters are equal."""
    names = claims or "abcdefgh"[: len(labels)]
    judged = Candidate(
        text=text,
        seed=0,
        claims=tuple(
            Claim(text=f"{text} {name}", question=f"{text} {name}?", spans=((0, 1),)) for name in names
        ),
        verdicts=tuple(
            Verdict(yes=yes, no=1 - yes) if label == "1" else Verdict(yes=1 - yes, no=yes) for label in labels
        ),
    )
    return scored(judged, minus_rejected)


FOUR = [candidate("a", "100"), candidate("b", "11"), candidate("c", "00", claims="aa"), candidate("d", "10")]
"""RLAIF-V's functions, run on these labels, give the scores -2, 0, -2, -1; `c` makes one claim twice."""


def minus_nothing(_: Candidate) -> float:
    return -0.0


@pytest.mark.parametrize(
    "rule", [minus_rejected, minus_expected_rejected, minus_rejected_share, minus_nothing]
)
def test_a_candidate_without_a_rejected_claim_has_a_score_of_zero_without_a_sign(rule):
    assert json.dumps(scored(candidate("a", "11"), rule).score) == "0.0"


def all_pairs(candidates, **options) -> set[str]:
    found = pair(candidates, PairRule(max_pairs=99, **options), seed=0)
    return {f"{one.chosen.text}>{one.rejected.text}" for one in found.pairs}


def test_pairs_of_rlaifvs_example_before_and_after_its_consistency_filter():
    assert [one.score for one in FOUR] == [-2, 0, -2, -1]
    assert all_pairs(FOUR, distinct_claims=False) == {"b>a", "d>a", "b>c", "b>d", "d>c"}
    assert all_pairs(FOUR) == {"b>a", "d>a", "b>d"}


def test_a_larger_gap_leaves_fewer_pairs():
    assert all_pairs(FOUR, min_gap=2, distinct_claims=False) == {"b>a", "b>c"}


def test_equal_claims_leaves_pairs_that_say_equally_much():
    assert all_pairs(FOUR, equal_claims=True, distinct_claims=False) == {"b>c", "b>d", "d>c"}


def test_no_fewer_accepted_leaves_pairs_whose_chosen_side_says_as_much_that_is_true():
    short, long = candidate("short", "1"), candidate("long", "1110")
    assert all_pairs([short, long]) == {"short>long"}
    assert all_pairs([short, long], no_fewer_accepted=True) == set()
    assert all_pairs([candidate("short", "111"), long], no_fewer_accepted=True) == {"short>long"}


def test_min_margin_leaves_pairs_that_the_labeler_is_sure_of():
    """Expected rejected claims: 0.45 against 0.55 doubtful, 0 against 1 sure."""
    doubtful = [candidate("a", "1", yes=0.55), candidate("b", "0", yes=0.55)]
    assert all_pairs(doubtful) == {"a>b"} and all_pairs(doubtful, min_margin=0.2) == set()
    assert all_pairs([candidate("a", "1"), candidate("b", "0")], min_margin=0.2) == {"a>b"}


def test_what_is_left_out_is_counted_by_reason():
    drawn = [*FOUR, candidate("a", "100"), candidate("e", "")]
    found = pair(drawn, PairRule(equal_claims=True, max_pairs=1), seed=0)
    assert found.drops == {
        "candidate/equal_text": 1,
        "candidate/no_claims": 1,
        "candidate/repeated_claim": 1,
        "pair/unequal_claims": 2,
    }
    assert len(found.pairs) == 1


def test_a_prompt_gives_at_most_its_number_of_pairs_and_the_seed_decides_which():
    results = [pair(FOUR, PairRule(distinct_claims=False), seed=seed) for seed in range(30)]
    assert all(len(found.pairs) == 2 and found.drops["pair/over_max_pairs"] == 3 for found in results)
    assert len({tuple(one.chosen.text + one.rejected.text for one in found.pairs) for found in results}) > 3
    assert pair(FOUR, PairRule(), seed=7) == pair(FOUR, PairRule(), seed=7)


@pytest.mark.parametrize("options", [{"min_gap": 0}, {"max_pairs": 0}])
def test_a_rule_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match="min_gap"):
        PairRule(**options)


def test_a_tie_of_yes_and_no_rejects_the_claim():
    assert Verdict(yes=0.4, no=0.4).rejected and not Verdict(yes=0.41, no=0.4).rejected


def test_rules_that_combine():
    """Verdicts 0.9/0.1, 0.2/0.6, 0/0: one and a half doubts are 0.1 + 0.75 + 0.5; two of three are rejected."""
    verdicts = (Verdict(yes=0.9, no=0.1), Verdict(yes=0.2, no=0.6), Verdict(yes=0.0, no=0.0))
    judged = Candidate(text="a", seed=0, claims=FOUR[0].claims, verdicts=verdicts)
    assert minus_rejected(judged) == -2
    assert minus_expected_rejected(judged) == pytest.approx(-1.35)
    assert minus_rejected_share(judged) == pytest.approx(-2 / 3)


def of_lengths(*lengths: tuple[int, int]) -> list[Pair]:
    return [
        Pair(chosen=Candidate(text="w " * chosen, seed=0), rejected=Candidate(text="w " * rejected, seed=0))
        for chosen, rejected in lengths
    ]


def test_balance_of_rlaifvs_example():
    threshold, kept = balance_lengths(of_lengths((10, 10), (8, 10), (5, 10), (12, 10), (2, 10), (20, 10)))
    assert threshold == 0.8 and kept == [True] * 6


def test_balance_leaves_out_what_is_shortened_most_until_both_sides_are_equally_long():
    """Without the third pair both sides have 10 words on average; with it, chosen has 7.33."""
    threshold, kept = balance_lengths(of_lengths((9, 10), (11, 10), (2, 10)))
    assert threshold == 0.1 and kept == [True, True, False]


def obvious_balance(lengths):
    """The search as written down, one threshold after the other."""
    best = None
    for step in range(50):
        ratio = step / 50
        kept = [(rejected - chosen) / rejected <= ratio for chosen, rejected in lengths]
        if any(kept):
            sides = list(zip(*itertools.compress(lengths, kept), strict=True))
            off = abs(sum(sides[0]) - sum(sides[1])) / sum(sides[1])
            if best is None or off < best[0]:
                best = (off, ratio, kept)
    return best[1:]


@pytest.mark.parametrize("seed", range(20))
def test_balance_is_the_search_over_all_thresholds(seed):
    rng = random.Random(seed)
    lengths = [(rng.randint(1, 30), rng.randint(1, 40)) for _ in range(rng.randint(1, 60))]
    if all(chosen < rejected * 0.02 for chosen, rejected in lengths):
        pytest.skip("nothing is kept at any threshold")
    assert balance_lengths(of_lengths(*lengths)) == obvious_balance(lengths)


def test_balance_of_nothing_and_of_empty_texts_does_not_fail():
    assert balance_lengths([])[1] == []
    assert balance_lengths(of_lengths((0, 0), (1, 1)))[1] == [True, True]
