"""A model in this process as engine: draws, choices and forms."""

import itertools
from typing import Literal

import pytest
import torch
from pydantic import BaseModel

from rlaifv_pl.feedback.candidates.sampling import sample_candidates
from rlaifv_pl.feedback.engines.engine import Completion, Request, Sampling
from rlaifv_pl.feedback.engines.in_memory import InMemoryEngine
from rlaifv_pl.feedback.engines.seeded_sampling import SeededSampling
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.feedback.engines.word_tokens import word_tokens
from rlaifv_pl.feedback.judges.labeler import ModelLabeler, judge_claims, low_mass
from rlaifv_pl.feedback.judges.self_reward import RatingLabeler, WholeAnswer
from rlaifv_pl.miniature import packaged_model
from rlaifv_pl.miniature.claims import divide, is_true, scene_of
from rlaifv_pl.miniature.shards import Scenes
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.records import Candidate, Claim, Sample
from tests.families import FAMILIES


@pytest.fixture(scope="module")
def base():
    return TransformersEngine(path=str(packaged_model("base")), batch_size=64)


@pytest.fixture(scope="module")
def labeler():
    return TransformersEngine(path=str(packaged_model("labeler")), batch_size=64)


@pytest.fixture(scope="module")
def prompts():
    return list(Scenes(out="", split="tune", count=12, seed=3).samples())


def test_seeded_draws_follow_the_softmax_at_the_temperature():
    """Logits 0, 1, 2 at temperature 2: shares e^0, e^.5, e^1 over their sum; 4000 draws, 4 sigma = 0.032."""
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(4000, 3)
    drawn = SeededSampling(list(range(4000)), temperature=2.0)(None, logits).argmax(-1)
    expected = torch.tensor([0.0, 0.5, 1.0]).softmax(-1)
    assert torch.allclose(torch.bincount(drawn, minlength=3) / 4000, expected, atol=0.032)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 500])
def test_candidates_do_not_depend_on_the_batch_size(base, prompts, batch_size):
    sampling = Sampling(n=3, temperature=1.0, max_new_tokens=60)
    other = TransformersEngine(path=base.path, batch_size=batch_size)
    whole = sample_candidates(base, prompts, sampling, seed=1)
    assert sample_candidates(other, prompts, sampling, seed=1) == whole
    assert len({one.text for one in itertools.chain(*whole)}) > len(prompts)


def test_candidates_do_not_depend_on_the_other_prompts(base, prompts):
    sampling = Sampling(n=2, temperature=1.0, max_new_tokens=60)
    (alone,) = sample_candidates(base, [prompts[5]], sampling, seed=1)
    assert sample_candidates(base, prompts, sampling, seed=1)[5] == alone


def test_another_seed_draws_other_candidates(base, prompts):
    first, second = (
        sample_candidates(base, prompts, Sampling(n=2, temperature=1.0), seed) for seed in (1, 2)
    )
    assert first != second


def test_generation_writes_no_special_token(base, prompts):
    drawn = sample_candidates(base, prompts, Sampling(n=4, temperature=3.0), 5)
    texts = [one.text for group in drawn for one in group]
    assert not any(mark in text for text in texts for mark in ("<image>", "user:", "assistant:", "<unk>"))


def test_a_model_in_training_goes_on_training_unchanged(prompts):
    spec = PolicySpec(path=str(packaged_model("base")))
    model = VLM(load_model(spec)).train()
    engine = InMemoryEngine(model, Chat(load_processor(spec)))
    before = engine.identity
    sample_candidates(engine, prompts[:1], Sampling(n=2, temperature=1.0, max_new_tokens=5), 0)
    assert model.training and engine.identity == before
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).add_(1)
    assert engine.identity != before


def questions(prompts) -> list[tuple[Sample, str]]:
    asked = [(p, f"is there a {name}?") for p in prompts for name in ("red cup", "white cup", "yellow moon")]
    return asked + [
        (p, f"is there a {thing.color} {thing.shape}?") for p in prompts for thing in scene_of(p).things
    ]


def test_the_shipped_labeler_answers_nine_of_ten_questions_about_new_scenes(labeler, base, prompts):
    asked = questions(prompts)
    samples, texts = zip(*asked, strict=True)
    verdicts = ModelLabeler(engine=labeler, question="{question}").verdicts(samples, texts, base)
    right = [
        (not verdict.rejected) == is_true(scene_of(sample), text)
        for (sample, text), verdict in zip(asked, verdicts, strict=True)
    ]
    assert sum(right) / len(right) > 0.9
    assert all(0.99 < verdict.yes + verdict.no <= 1.001 for verdict in verdicts)


def test_without_an_engine_of_its_own_the_policy_labels_itself(base, labeler, prompts):
    samples, texts = zip(*questions(prompts[:2]), strict=True)
    own = ModelLabeler(question="{question}")
    assert own.verdicts(samples, texts, base) == ModelLabeler(engine=base, question="{question}").verdicts(
        samples, texts, labeler
    )
    assert own.recipe("me")["labeler"] == "me"


class Counting:
    """Stands before an engine and counts what it is asked."""

    identity = "counting"

    def __init__(self, engine) -> None:
        self.engine, self.asked = engine, []

    def choose(self, requests, words):
        self.asked += [request.text for request in requests]
        return self.engine.choose(requests, words)


def test_equal_questions_are_asked_once_and_what_is_remembered_never_again(labeler, prompts, tmp_path):
    engine = Counting(labeler)
    judge = ModelLabeler(engine=engine, question="{question}", cache=str(tmp_path / "verdicts.sqlite"))
    claim = Claim(text="a red cup", question="is there a red cup?", spans=((0, 9),))
    twice = [Candidate(text="a red cup", seed=n, claims=(claim, claim)) for n in range(3)]
    judged = judge_claims([prompts[0], prompts[1]], [twice, twice[:1]], judge, labeler)
    assert len(engine.asked) == 2
    assert {verdict for one in judged[0] for verdict in one.verdicts} == {judged[0][0].verdicts[0]}
    again = ModelLabeler(engine=engine, question="{question}", cache=str(tmp_path / "verdicts.sqlite"))
    assert judge_claims([prompts[0], prompts[1]], [twice, twice[:1]], again, labeler) == judged
    assert len(engine.asked) == 2
    engine.identity = "another model"
    judge_claims([prompts[0]], [twice], again, labeler)
    assert len(engine.asked) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_yes_and_no_are_told_apart_in_every_family(family, family_dir):
    """The plain twin: the text of each token, stripped, is the word in some case; or the answer's first token."""
    processor = load_processor(PolicySpec(path=str(family_dir(family))))
    chat = Chat(processor)
    yes, no = word_tokens(chat, ("yes", "no"))
    assert yes and no and not set(yes) & set(no)
    whole = {
        word: {
            token
            for token in range(len(chat.tokenizer))
            if chat.tokenizer.decode([token]).strip().lower() == word
        }
        for word in ("yes", "no")
    }
    for word, found in (("yes", yes), ("no", no)):
        assert set(found) >= whole[word] or not whole[word]


def test_the_first_tokens_probabilities_are_those_of_a_plain_forward(labeler, prompts):
    """One question by hand: full softmax at the last position, summed over the tokens."""
    live = labeler.live
    (shares,) = labeler.choose([Request("is there a red cup?", prompts[0].images)], ("yes", "no"))
    chat, model = live.chat, live.model.model
    from rlaifv_pl.data.images import open_image
    from rlaifv_pl.models.chat import message_with_images

    text = chat.render([message_with_images("is there a red cup?", 1)], ask=True)
    inputs = chat.processor(
        text=[text],
        images=[open_image(prompts[0].images[0], "")],
        return_tensors="pt",
        add_special_tokens=False,
    )
    with torch.no_grad():
        last = model(**inputs).logits[0, -1].double().softmax(-1)
    expected = [sum(last[i].item() for i in ids) for ids in word_tokens(chat, ("yes", "no"))]
    assert shares == pytest.approx(expected, abs=1e-5)


def test_words_that_begin_alike_are_refused(base):
    with pytest.raises(ValueError, match="tells 'yes' from the other answers"):
        base.choose([Request("is there a red cup?")], ("yes", "Yes"))


class Colour(BaseModel):
    """A form."""

    colour: Literal["red", "blue"]


def test_a_form_is_filled_or_honestly_left_empty(base, monkeypatch):
    live = base.live
    said = iter(['Sure! {"colour": "green"}', 'so: {"colour": "red"} done', "no", "nothing", "at all"])
    monkeypatch.setattr(live, "sample", lambda *_: [[Completion(next(said), True)]])
    first, second = live.fill([Request("a"), Request("b")], Colour)
    assert first == Colour(colour="red") and second is None


def test_a_form_that_is_drawn_again_is_drawn_by_its_requests_seed(base, monkeypatch):
    drawn = []

    def sample(asked, seeds, sampling):
        drawn.append((seeds[0][0], sampling.temperature))
        return [[Completion("no", True)]]

    monkeypatch.setattr(base.live, "sample", sample)
    base.live.fill([Request("a"), Request("a", seed=9)], Colour)
    assert [temperature for _, temperature in drawn] == [0, 0.7, 0.7] * 2
    assert len({seed for seed, _ in drawn}) == 6


def test_low_mass_is_counted(base, prompts):
    claim = Claim(text="", question="", spans=())
    from rlaifv_pl.records import Verdict

    judged = Candidate(
        text="", seed=0, claims=(claim,) * 2, verdicts=(Verdict(yes=0.3, no=0.1), Verdict(yes=0.6, no=0.3))
    )
    assert low_mass([judged]) == (1, 2)


class Digits:
    """Answers 2 with 0.5 and 5 with 0.25, and something else with the rest."""

    identity = "digits"

    def choose(self, requests, words):
        assert words == ("1", "2", "3", "4", "5")
        return [[0.0, 0.5, 0.0, 0.0, 0.25] for _ in requests]


def test_a_whole_answer_is_one_claim_with_its_rating(prompts):
    """Expected digit over the mass: (2 x 0.5 + 5 x 0.25) / 0.75 = 3; on the scale from 1 to 5 that is 0.5."""
    (claims,) = WholeAnswer().split([("what is it?", "a red cup.")])
    assert len(claims) == 1 and "a red cup." in claims[0].question and "what is it?" in claims[0].question
    (verdict,) = RatingLabeler(engine=Digits()).verdicts(prompts[:1], [claims[0].question], None)
    assert verdict.yes + verdict.no == pytest.approx(0.75)
    assert verdict.yes / (verdict.yes + verdict.no) == pytest.approx(0.5)


@pytest.mark.parametrize("options", [{"n": 0}, {"temperature": -1.0}, {"n": 2, "temperature": 0.0}])
def test_sampling_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match="makes no sense"):
        Sampling(**options)


def test_descriptions_are_divided_for_the_grammar_they_have():
    assert [claim.question for claim in divide("there is a red cup.")] == ["is there a red cup?"]
