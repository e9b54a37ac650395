"""Answers that a limit of tokens cut off: known as such from every engine, and never taught as ends."""

from pathlib import Path

import pytest

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.collate import Collator
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.data.schema import check_sample, decode_sample, encode_sample
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.candidates.sampling import sample_candidates
from rlaifv_pl.feedback.claims.split import finished_sentences
from rlaifv_pl.feedback.engines.best_of import BestOfN
from rlaifv_pl.feedback.engines.engine import Completion, EngineError, Sampling
from rlaifv_pl.feedback.engines.openai_engine import OpenAIEngine
from rlaifv_pl.feedback.engines.responses import ChatMessage, Choice
from rlaifv_pl.feedback.engines.responses import completion as read
from rlaifv_pl.miniature import packaged_model
from rlaifv_pl.miniature.shards import Scenes
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.policy import PolicySpec, load_processor
from rlaifv_pl.objectives.dpo import DPOModule
from rlaifv_pl.objectives.nsft import CHOSEN, NSFTModule
from rlaifv_pl.objectives.sft import SFTModule
from rlaifv_pl.records import Correction, Sample
from tests.feedback.openai_server import ChatServer, completion, says
from tests.feedback.scripted import Script, scripted_run, world_policy

SHORT, LONG = (Sampling(n=1, temperature=0.0, max_new_tokens=tokens) for tokens in (4, 80))


@pytest.fixture(scope="module")
def scene() -> Sample:
    return next(iter(Scenes(out="", split="tune", count=1, seed=3).samples()))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    return Scenes(out=str(tmp_path_factory.mktemp("prompts")), split="tune", count=8, seed=3).ensure()


# Engines.


def test_a_model_in_memory_knows_what_it_did_not_end(scene):
    policy = world_policy()
    ((short,),), ((long,),) = (policy.sample([scene], [[0]], how) for how in (SHORT, LONG))
    assert not short.ended and long.ended and long.text.startswith(short.text)
    drawn = policy.sample([scene], [[1, 2, 3]], Sampling(n=3, temperature=1.0, max_new_tokens=4))
    assert [one.ended for one in drawn[0]] == [False] * 3


def test_what_a_checkpoint_likes_to_generate_with_changes_no_answer(scene):
    policy, drawing = world_policy(), Sampling(n=3, temperature=1.0, max_new_tokens=20)
    plain = [policy.sample([scene], [[1, 2, 3][: how.n]], how) for how in (LONG, drawing)]
    settings = policy.live.model.model.generation_config
    settings.repetition_penalty, settings.no_repeat_ngram_size, settings.min_new_tokens = 3.0, 2, 40
    settings.min_p, settings.num_beams = 0.9, 2
    assert [policy.sample([scene], [[1, 2, 3][: how.n]], how) for how in (LONG, drawing)] == plain


def test_the_best_of_cut_answers_is_cut_and_rated_without_an_end(scene):
    base = str(packaged_model("base"))
    ranked = BestOfN(aligned=base, reference=base, n=3).rank([scene], 4)[0]
    assert {one.completion.ended for one in ranked} == {False} and {one.ratio.tokens for one in ranked} == {4}


@pytest.mark.parametrize(
    "finish, ended", [("stop", True), ("eos", True), ("length", False), ("content_filter", False)]
)
def test_a_server_tells_why_an_answer_stopped(finish, ended, scene, tmp_path):
    with ChatServer() as server:
        server.plan = lambda body, time: says(completion("A cup. A ri", finish))
        engine = OpenAIEngine(model="m", base_url=server.url, cache=str(tmp_path / "cache"))
        for _ in range(2):  # The second time from the file of answers.
            assert engine.sample([scene], [[0]], SHORT) == [[Completion("A cup. A ri", ended)]]
        assert len(server.bodies) == 1


def test_an_answer_without_a_text_is_asked_for_again(scene):
    assert read(Choice(message=ChatMessage(content=" "), finish_reason="stop")) == Completion("", True)
    with ChatServer() as server:
        server.plan = lambda body, time: says(completion("")) if len(server.bodies) == 1 else None
        engine = OpenAIEngine(model="m", base_url=server.url)
        assert engine.sample([scene], [[0]], SHORT)[0][0].text == ""
        assert engine.sample([scene], [[0]], SHORT)[0][0].text != ""


def test_an_engine_that_does_not_tell_is_refused_by_name(scene):
    class Old(Script):
        def sample(self, samples, seeds, sampling):
            return [["A cup."]]

    with pytest.raises(EngineError, match=r"Completion\(text, ended\)"):
        sample_candidates(Old(), [scene], SHORT, 0)


# What is trained on.


def targets(module, name: str, sample: Sample, part: int, family_dir) -> list[int]:
    spec = PolicySpec(path=str(family_dir(name)))
    batch = Collator(Chat(load_processor(spec)), module.dialogues, parts=module.parts)([sample])
    return batch.tokens.labels[batch.tokens.sequence_id == part].tolist()


def told(cls, **options):
    module = object.__new__(cls)
    module.__dict__ |= options
    return module


@pytest.mark.parametrize("name", ["llava", "qwen3_vl", "smolvlm"])
@pytest.mark.parametrize("side, part", [("chosen", 0), ("rejected", 1)])
def test_the_targets_of_a_cut_answer_have_no_end(name, side, part, scene, family_dir):
    pair = {"prompt": scene.prompt, "images": scene.images, "chosen": "a red cup", "rejected": "a blue ring"}
    dpo = told(DPOModule)
    whole = targets(dpo, name, Sample(key="a", **pair), part, family_dir)
    cut = Sample(key="a", **pair, truncated=(side,))
    assert targets(dpo, name, cut, part, family_dir) == whole[: len(whole) - 1]
    other = 1 - part
    assert targets(dpo, name, cut, other, family_dir) == targets(
        dpo, name, Sample(key="a", **pair), other, family_dir
    )
    if side == "chosen":
        assert targets(told(SFTModule), name, cut, 0, family_dir) == whole[:-1]


def test_a_cut_answer_before_corrections_is_ended_as_context_alone(scene, family_dir):
    pair = {"prompt": scene.prompt, "images": scene.images, "chosen": "a red cup", "rejected": "a ring"}
    turn = (Correction(question="is there a cup?", answer="yes"),)
    for merge in ("append", "separate"):
        nsft = told(NSFTModule, merge=merge)
        whole, cut = (
            [
                targets(nsft, "llava", Sample(key="a", **pair, corrections=turn, **more), part, family_dir)
                for part in (CHOSEN, 1)
            ]
            for more in ({}, {"truncated": ("chosen",)})
        )
        assert cut == [whole[0][:-1], whole[1]] and len(whole[1]) > 1


def test_shards_keep_which_side_was_cut_and_those_of_before_have_none():
    sample = Sample(key="a", prompt="?", chosen="a", rejected="b", truncated=("rejected",))
    assert decode_sample("a", encode_sample(sample), "").truncated == ("rejected",)
    assert (
        decode_sample("a", {"json": b'{"prompt": "?", "chosen": "a", "rejected": "b"}'}, "").truncated == ()
    )
    for wrong in (b'["left"]', b'"chosen"'):
        with pytest.raises(BadSample, match="truncated"):
            decode_sample("a", {"json": b'{"prompt": "?", "truncated": %s}' % wrong}, "")
    with pytest.raises(BadSample, match="completion"):
        check_sample(Sample(key="a", prompt="?", chosen="a", rejected="b", truncated=("completion",)), "")


# Feedback.


class Cutting(Script):
    """Is cut off wherever its answer has a second thing; then it names one more, and no end."""

    def sample(self, samples, seeds, sampling):
        for own in super().sample(samples, seeds, sampling):
            yield [Completion(f"{one.text} also a gre", False) if " and " in one.text else one for one in own]


def test_cut_candidates_are_left_out_and_counted_by_default(prompts, tmp_path):
    scripted_run(tmp_path, prompts, Cutting(), Script("labeler")).make()
    stored, manifest = load_shards(tmp_path), read_manifest(tmp_path)
    assert manifest.drops["candidate/truncated"] > 5
    assert len(stored) and not any(sample.truncated for sample in stored)
    assert not any(
        getattr(sample, side).endswith("gre") for sample in stored for side in ("chosen", "rejected")
    )


def test_kept_ones_lose_their_unfinished_sentence_and_say_that_they_have_no_end(prompts, tmp_path):
    scripted_run(tmp_path, prompts, Cutting(), Script("labeler"), truncated="keep").make()
    samples = list(load_shards(tmp_path))
    sides = [(sample, side) for sample in samples for side in ("chosen", "rejected")]
    assert any(side in sample.truncated for sample, side in sides)
    for sample, side in sides:
        assert getattr(sample, side).endswith(".")
        assert (side in sample.truncated) == (" and " in getattr(sample, side))


@pytest.mark.parametrize(
    "text, kept",
    [
        ("A dog runs. It is br", "A dog runs."),
        ("A dog", ""),
        ("It costs 3.", ""),
        ("We see Dr.", ""),
        ('He says "stop." The', 'He says "stop."'),
        ("- A dog\n- A ca", "- A dog"),
        ("\u72d7\u5728\u8dd1\u3002\u732b\u5728", "\u72d7\u5728\u8dd1\u3002"),
        ("", ""),
    ],
)
def test_what_is_finished_of_a_text(text, kept):
    assert finished_sentences(text) == kept
