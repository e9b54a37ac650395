"""Best of N: rewards as plain rows give them, and the answer that they choose."""

import pytest
import torch

from rlaifv_pl.feedback.engines.best_of import BestOfN
from rlaifv_pl.feedback.engines.engine import Completion, EngineError, Request, Sampling
from rlaifv_pl.feedback.engines.implicit_reward import ImplicitReward
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.miniature import packaged_model
from rlaifv_pl.miniature.shards import Scenes
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor
from rlaifv_pl.models.vlm import VLM
from tests.families import FAMILIES
from tests.models.plain import PAIRS, completion_logps, keep_wide

ANSWERS = (
    ("A red circle.", "A red cup and a dog.", "Yes."),
    ("No.",),
)
"""Of the two prompts; the first two begin alike."""
GREEDY = Sampling(n=1, temperature=0.0, max_new_tokens=12)


def double(path: str, moved: bool) -> torch.nn.Module:
    model = keep_wide(load_model(PolicySpec(path=path)).double()).eval()
    if moved:
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_rewards_are_those_of_plain_rows(family, batch_size, family_dir):
    """One dialogue at a time, all logits, in float64: sum and number of the tokens, the stop token included; the last
    answer of each prompt was cut off, and has none.
    """
    path = str(family_dir(family))
    processor = load_processor(PolicySpec(path=path))
    aligned, reference = double(path, moved=True), double(path, moved=False)
    chats = Chat(processor), Chat(load_processor(PolicySpec(path=path)))
    reward = ImplicitReward(VLM(aligned), chats[0], VLM(reference), chats[1], batch_size)
    said = [[Completion(text, text != texts[-1]) for text in texts] for texts in ANSWERS]
    found = reward.of(PAIRS, said)
    assert [len(ratios) for ratios in found] == [3, 1]
    for sample, answers, ratios in zip(PAIRS, said, found, strict=True):
        for answer, ratio in zip(answers, ratios, strict=True):
            ours, theirs = (
                completion_logps(model, processor, family, sample, answer.text, sample.images)
                for model in (aligned, reference)
            )
            if not answer.ended:
                ours, theirs = ours[:-1], theirs[:-1]
            assert ratio.tokens == len(ours)
            assert ratio.total == pytest.approx((ours - theirs).sum().item(), abs=1e-9)
            assert ratio.mean == pytest.approx((ours - theirs).mean().item(), abs=1e-9)


@pytest.fixture(scope="module")
def prompts():
    return list(Scenes(out="", split="tune", count=3, seed=3).samples())


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A child of the world's base, somewhere else."""
    spec, out = PolicySpec(path=str(packaged_model("base"))), tmp_path_factory.mktemp("moved")
    model = load_model(spec)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.get_decoder().parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(out)
    load_processor(spec).save_pretrained(out)
    return str(out)


def best(moved, **how) -> BestOfN:
    return BestOfN(
        **{"aligned": moved, "reference": str(packaged_model("base")), "n": 6, "batch_size": 4, **how}
    )


def test_the_answer_is_the_candidate_of_the_highest_reward(moved, prompts):
    """Each candidate drawn and rated by itself, with the twin's arithmetic."""
    engine = best(moved)
    ((chosen,),) = engine.sample(prompts[:1], [[0]], GREEDY)
    ranked = engine.rank(prompts[:1], GREEDY.max_new_tokens)[0]
    spec = PolicySpec(path=moved)
    processor = load_processor(spec)
    models = [load_model(PolicySpec(path=path)).eval() for path in (moved, str(packaged_model("base")))]
    rewards = {}
    with torch.no_grad():
        for one in ranked:
            ours, theirs = (
                completion_logps(model, processor, "llava", prompts[0], one.text, prompts[0].images)
                for model in models
            )
            told = (ours - theirs) if one.completion.ended else (ours - theirs)[:-1]
            rewards[one.text] = told.mean().item()
    assert len(rewards) > 1 and chosen.text == max(rewards, key=rewards.__getitem__)
    for one in ranked:
        assert engine.reward(one) == pytest.approx(rewards[one.text], abs=1e-4)
    assert [one.text for one in ranked] == sorted(rewards, key=rewards.__getitem__, reverse=True)


def test_sums_order_the_same_candidates_by_themselves(moved, prompts):
    mean, total = best(moved, n=12), best(moved, n=12, normalise=False)
    by_mean, by_total = (engine.rank(prompts, 12) for engine in (mean, total))
    for one, other in zip(by_mean, by_total, strict=True):
        assert {each.text for each in one} == {each.text for each in other}
        sums = [each.ratio.total for each in other]
        assert sums == sorted(sums, reverse=True)


def test_more_candidates_hold_the_fewer_and_answers_depend_on_nothing_else(moved, prompts):
    few, many = ({one.text for one in best(moved, n=n).rank(prompts, 12)[1]} for n in (3, 12))
    assert few < many
    together = best(moved).sample(prompts, [[0]] * 3, GREEDY)
    assert best(moved, batch_size=5).sample(prompts[1:2], [[9]], GREEDY) == together[1:2]
    assert best(moved, seed=1).rank(prompts, 12) != best(moved).rank(prompts, 12)


def test_another_engine_may_draw(moved, prompts):
    base = TransformersEngine(path=str(packaged_model("base")))
    ranked = best(moved, engine=base).rank(prompts, 12)
    drawn = best(str(packaged_model("base"))).rank(prompts, 12)
    assert [{one.text for one in group} for group in ranked] == [
        {one.text for one in group} for group in drawn
    ]
    assert best(moved, engine=base).identity != best(moved).identity


def test_the_identity_has_all_that_decides(moved):
    base = str(packaged_model("base"))
    changes = [{"n": 7}, {"temperature": 0.5}, {"seed": 1}, {"normalise": False}, {"reference": moved}]
    changes += [{"aligned": base}, {"dtype": "bfloat16"}]
    found = [best(moved, **change).identity for change in ({}, *changes)]
    assert len(set(found)) == len(found) and best(moved).identity == found[0]
    assert best(moved, batch_size=1).identity == found[0]


def test_it_does_not_draw_and_says_so(moved, prompts):
    with pytest.raises(EngineError, match="n = 1 at temperature 0"):
        best(moved).sample(prompts, [[0]] * 3, Sampling(n=1, temperature=1.0))
    with pytest.raises(ValueError, match="makes no sense"):
        best(moved, n=0)


def test_a_reference_of_another_family_is_refused(moved, prompts, family_dir):
    with pytest.raises(EngineError, match="other tokens"):
        best(moved, reference=str(family_dir("llava"))).sample(prompts[:1], [[0]], GREEDY)


def test_what_is_chosen_between_words_is_the_drawers(moved, prompts):
    asked = [Request("is there a red circle?", prompts[0].images)]
    engine = best(moved)
    before = engine.choose(asked, ("yes", "no"))
    assert before == TransformersEngine(path=moved).choose(asked, ("yes", "no"))
    engine.release()
    assert engine.choose(asked, ("yes", "no")) == before
