"""A prompt that cannot be asked is left out by name; one never ends a pass."""

import json
from dataclasses import replace

import pytest

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.data.shards import ShardWriter, load_shards
from rlaifv_pl.feedback.bad_prompts import skip_bad_prompts
from rlaifv_pl.feedback.engines.engine import EngineError, Request, Sampling
from rlaifv_pl.feedback.engines.requests import request_messages
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.feedback.pairs.pairing import PairRule, pair
from rlaifv_pl.records import Candidate, Sample
from tests.feedback.scripted import Script, scripted_run
from tests.models.plain import photo, user

PROMPTS = [
    Sample(key="first", prompt="What is it?", images=(photo(0),)),
    Sample(key="twice", prompt=[user("What?", 1), user("Be brief.")], images=(photo(0),)),
    Sample(key="last", prompt="Where is it?", images=(photo(1),)),
]


class Picky(Script):
    """Takes no prompt of several turns, as a template may."""

    def sample(self, samples, seeds, sampling):
        for sample in samples:
            if not isinstance(sample.prompt, str):
                raise BadSample(Reason.NOT_RENDERED, f"sample {sample.key}", "two turns of the user")
        return super().sample(samples, seeds, sampling)


def written(directory, samples):
    with ShardWriter(directory, recipe={}) as writer:
        for sample in samples:
            writer.write(sample)
    return directory


def test_a_pass_leaves_out_what_cannot_be_asked_and_counts_it(tmp_path, capsys):
    prompts, labeler = written(tmp_path / "prompts", PROMPTS), Script("labeler")
    scripted_run(tmp_path / "out", prompts, Picky(), labeler, balance=False).make()
    assert read_manifest(tmp_path / "out").drops["prompt/not_rendered"] == 1
    assert "left out: sample twice" in capsys.readouterr().err
    rows = map(json.loads, (tmp_path / "out" / "left_out.jsonl").read_text().splitlines())
    assert [row["key"] for row in rows if row["reason"] == "prompt/not_rendered"] == ["twice"]
    made = {sample.key.rpartition("_")[0] for sample in load_shards(tmp_path / "out")}
    assert made and made <= {"first", "last"}


class PickyLabeler(Script):
    """Refuses one image, as a processor may that wants another shape."""

    def choose(self, requests, words):
        for request in requests:
            if request.images == PROMPTS[0].images:
                raise BadSample(Reason.UNFIT_IMAGE, request.where, "expected a square image")
        return super().choose(requests, words)


def test_a_prompt_that_the_labeler_refuses_is_left_out_and_counted(tmp_path, capsys):
    prompts = written(tmp_path / "prompts", PROMPTS)
    scripted_run(tmp_path / "out", prompts, Script(), PickyLabeler("labeler"), balance=False).make()
    assert read_manifest(tmp_path / "out").drops["prompt/unfit_image"] == 2
    said = capsys.readouterr().err
    assert "left out: sample first" in said and "left out: sample twice" in said
    rows = map(json.loads, (tmp_path / "out" / "left_out.jsonl").read_text().splitlines())
    assert [row["key"] for row in rows if row["reason"] == "prompt/unfit_image"] == ["first", "twice"]
    scripted_run(tmp_path / "all", prompts, Script(), Script("labeler"), balance=False).make()
    alone = [one.key for one in load_shards(tmp_path / "all") if one.key.startswith("last")]
    assert [one.key for one in load_shards(tmp_path / "out")] == alone != []


def test_a_pass_of_which_nothing_can_be_asked_is_an_error(tmp_path):
    prompts = written(tmp_path / "prompts", PROMPTS[1:2])
    with pytest.raises(EngineError, match="none of the 1 prompts can be asked: not_rendered 1"):
        scripted_run(tmp_path / "out", prompts, Picky(), Script("labeler")).make()


def test_markers_in_prompts_are_found_whatever_the_engine():
    bad = [
        replace(PROMPTS[0], key="marker", prompt="What is on the <image> sign?"),
        replace(PROMPTS[0], key="rendered", prompt="USER: What? ASSISTANT:"),
        replace(PROMPTS[0], key="many", prompt=[user("What?", 2)]),
    ]
    found = skip_bad_prompts([PROMPTS[0], *bad], lambda numbers: numbers)
    assert found[0] == 0
    assert [fault.reason for fault in found[1:]] == ["special_token", "rendered_prompt", "image_count"]


def test_a_template_that_raises_leaves_the_other_answers_as_they_are(family_dir):
    engine = TransformersEngine(path=str(family_dir("gemma3")))
    sampling = Sampling(n=1, temperature=0.0, max_new_tokens=4)

    def answers(samples):
        return engine.sample(samples, [[0]] * len(samples), sampling)

    found = skip_bad_prompts(PROMPTS, lambda numbers: answers([PROMPTS[n] for n in numbers]))
    assert [found[0], found[2]] == answers([PROMPTS[0], PROMPTS[2]])
    assert found[1].reason == Reason.NOT_RENDERED and found[1].where == "sample twice"


def test_a_labeler_reads_the_markers_in_a_claim_as_words(family_dir):
    engine = TransformersEngine(path=str(family_dir("llava")))
    text = "Is there an <image> or a </s>?"
    images = PROMPTS[0].images
    words = "Is there an < image> or a < /s>?"
    odd, plain = engine.choose([Request(text, images), Request(words, images)], ("yes", "no"))
    assert odd == plain
    (message,) = request_messages(Request(text, images))
    assert message["content"][-1]["text"] == words


def test_a_candidate_that_spells_out_a_token_is_left_out():
    candidates = [
        Candidate(text=text, seed=n, score=float(n)) for n, text in enumerate(("A.", "A <image>.", "B."))
    ]
    found = pair(candidates, PairRule(), seed=0)
    assert found.drops["candidate/special_token"] == 1
    assert [(one.chosen.text, one.rejected.text) for one in found.pairs] == [("B.", "A.")]
