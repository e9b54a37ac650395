"""Candidates, verdicts and pairs, with the shipped tiny model and by hand."""

import itertools

import pytest
import torch

from rlaifv_pl.feedback.conquer import ask, first_tokens
from rlaifv_pl.feedback.generate import Sampling, SeededDraw, generate
from rlaifv_pl.feedback.pair import PairRule, pair
from rlaifv_pl.feedback.run import Feedback
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.records import Candidate, Claim, Verdict
from rlaifv_pl.world import shipped
from rlaifv_pl.world.claims import ExactLabeler, divide, is_true
from rlaifv_pl.world.scenes import Scene
from rlaifv_pl.world.shards import Scenes


def candidate(text: str, labels: str) -> Candidate:
    """A candidate whose claims were accepted (1) or rejected (0)."""
    claims = tuple(
        Claim(text=f"{text}{i}", question=f"{text}{i}?", start=0, end=1) for i in range(len(labels))
    )
    verdicts = tuple(Verdict(yes=float(label), no=1 - float(label)) for label in labels)
    return Candidate(text=text, seed=0, claims=claims, verdicts=verdicts)


FOUR = [candidate("a", "100"), candidate("b", "11"), candidate("c", "00"), candidate("d", "10")]
"""Scores -2, 0, -2, -1: RLAIF-V's worked example."""


def all_pairs(candidates, **options) -> set[str]:
    found = pair(candidates, PairRule(max_pairs=99, **options), seed=0)
    return {f"{one.chosen.text}>{one.rejected.text}" for one in found}


def test_pairs_of_the_worked_example():
    assert [one.score for one in FOUR] == [-2, 0, -2, -1]
    assert all_pairs(FOUR) == {"b>a", "d>a", "b>c", "b>d", "d>c"}


def test_a_larger_gap_leaves_fewer_pairs():
    assert all_pairs(FOUR, min_gap=2) == {"b>a", "b>c"}


def test_equal_claims_leaves_pairs_that_say_equally_much():
    assert all_pairs(FOUR, equal_claims=True) == {"b>c", "b>d", "d>c"}


def test_candidates_without_claims_and_equal_texts_make_no_pair():
    assert all_pairs([candidate("a", ""), candidate("b", "0"), candidate("b", "0"), candidate("c", "1")]) == {
        "c>b"
    }


def test_a_prompt_gives_at_most_its_number_of_pairs_and_the_seed_decides_which():
    assert all(len(pair(FOUR, PairRule(), seed=seed)) == 2 for seed in range(20))
    texts = {
        tuple(one.chosen.text + one.rejected.text for one in pair(FOUR, PairRule(), seed=s))
        for s in range(30)
    }
    assert len(texts) > 3
    assert pair(FOUR, PairRule(), seed=7) == pair(FOUR, PairRule(), seed=7)


def test_a_tie_of_yes_and_no_rejects_the_claim():
    assert Verdict(yes=0.4, no=0.4).rejected and not Verdict(yes=0.41, no=0.4).rejected


def test_seeded_draws_follow_the_softmax_at_the_temperature():
    """Logits 0, 1, 2 at temperature 2: shares e^0, e^.5, e^1 over their sum; 4000 draws, 4 sigma = 0.032."""
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(4000, 3)
    drawn = SeededDraw(list(range(4000)), temperature=2.0)(None, logits).argmax(-1)
    expected = torch.tensor([0.0, 0.5, 1.0]).softmax(-1)
    assert torch.allclose(torch.bincount(drawn, minlength=3) / 4000, expected, atol=0.032)


@pytest.fixture(scope="module")
def base():
    spec = PolicySpec(path=str(shipped("base")))
    return VLM(load_model(spec)).eval(), Chat(load_processor(spec))


@pytest.fixture(scope="module")
def prompts():
    return list(Scenes(out="", split="tune", count=12, seed=3).samples())


def test_candidates_do_not_depend_on_who_shares_the_batch(base, prompts):
    whole = generate(*base, prompts, Sampling(n=3, temperature=1.0, max_new_tokens=60), seed=1)
    alone = [
        generate(*base, [prompt], Sampling(n=3, temperature=1.0, max_new_tokens=60), seed=1)[0]
        for prompt in prompts
    ]
    assert whole == alone
    assert len({one.text for one in itertools.chain(*whole)}) > len(prompts)


def test_another_seed_draws_other_candidates(base, prompts):
    first, second = (generate(*base, prompts, Sampling(n=2, temperature=1.0), seed) for seed in (1, 2))
    assert first != second


def test_generation_writes_no_special_token(base, prompts):
    texts = [
        one.text for group in generate(*base, prompts, Sampling(n=4, temperature=3.0), 5) for one in group
    ]
    assert not any(mark in text for text in texts for mark in ("<image>", "user:", "assistant:", "<unk>"))


def test_the_shipped_labeler_answers_nine_of_ten_questions_about_new_scenes(prompts):
    spec = PolicySpec(path=str(shipped("labeler")))
    labeler, chat = VLM(load_model(spec)).eval(), Chat(load_processor(spec))
    asked = [
        (prompt, f"is there a {c} {s}?") for prompt in prompts for c, s in [("red", "cup"), ("white", "cup")]
    ]
    asked += [
        (prompt, f"is there a {thing.color} {thing.shape}?")
        for prompt in prompts
        for thing in Scene.from_json(prompt.extra["scene"]).things
    ]
    verdicts = ask(labeler, chat, [prompt for prompt, _ in asked], [text for _, text in asked])
    right = [
        (not v.rejected) == is_true(Scene.from_json(p.extra["scene"]), q)
        for (p, q), v in zip(asked, verdicts, strict=True)
    ]
    assert sum(right) / len(right) > 0.9
    assert all(0.99 < verdict.yes + verdict.no <= 1.001 for verdict in verdicts)


def test_yes_and_no_begin_with_their_own_tokens(base):
    yes, no = first_tokens(base[1], "yes"), first_tokens(base[1], "no")
    assert yes and no and not set(yes) & set(no)


def test_feedback_pairs_carry_evidence_that_explains_their_scores(base, prompts):
    feedback = Feedback(
        divide=divide,
        labeler=ExactLabeler(),
        rule=PairRule(equal_claims=True),
        sampling=Sampling(n=6, temperature=1.0, max_new_tokens=60),
    )
    samples = [sample for found in feedback.pairs(*base, prompts, seed=4) for sample in found]
    assert samples
    for sample in samples:
        sides = sample.evidence
        assert sides["chosen"]["score"] > sides["rejected"]["score"]
        assert len(sides["chosen"]["claims"]) == len(sides["rejected"]["claims"])
        for side in ("chosen", "rejected"):
            claims = sides[side]["claims"]
            assert sides[side]["score"] == -sum(claim["no"] >= claim["yes"] for claim in claims)
            assert all(claim["text"] in getattr(sample, side) for claim in claims)


@pytest.mark.parametrize("options", [{"n": 0}, {"temperature": -1.0}, {"n": 2, "temperature": 0.0}])
def test_sampling_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match="makes no sense"):
        Sampling(**options)
