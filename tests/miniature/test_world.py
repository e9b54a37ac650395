"""The miniature world: what is drawn, what is said, and that the exact labeler is exact."""

import hashlib
import json
import random

import numpy as np
import pytest

from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.engines.engine import Completion
from rlaifv_pl.miniature import packaged_model
from rlaifv_pl.miniature.claims import ExactLabeler, divide, is_true, scene_of
from rlaifv_pl.miniature.evaluator import MiniatureEvaluator
from rlaifv_pl.miniature.figures import miniature_figures
from rlaifv_pl.miniature.language import caption, phrase, question, reading
from rlaifv_pl.miniature.model import build_processor
from rlaifv_pl.miniature.scenes import CELL, COLORS, SHAPES, THEMES, Scene, Thing, draw_scene, render
from rlaifv_pl.miniature.shards import Lessons, Scenes, draw_scenes
from rlaifv_pl.records import Candidate, Sample, Verdict


def thing(color: str, shape: str, cell: int) -> Thing:
    return Thing(color=color, shape=shape, cell=cell, size=12, dx=0, dy=0)


ROOM = Scene(theme="room", things=(thing("red", "cup", 0), thing("blue", "ring", 6)))
"""A red cup in the upper left corner; a blue ring one row down and two columns to the right."""


def scenes(count: int, split="train") -> list[Scene]:
    return [scene for scene, _ in draw_scenes(split, 0, count)]


def test_a_scene_survives_its_json():
    for scene in scenes(50):
        assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene


def test_splits_share_no_scene():
    drawn = {
        split: {json.dumps(scene.to_json()) for scene in scenes(300, split)}
        for split in ("train", "tune", "test")
    }
    assert (
        not drawn["train"] & drawn["test"]
        and not drawn["train"] & drawn["tune"]
        and not drawn["tune"] & drawn["test"]
    )


def test_the_signature_object_is_in_half_of_the_scenes():
    """Of 2000 scenes 1000 +- 4 standard deviations (22 each)."""
    there = sum(THEMES[scene.theme].signature in scene.contents for scene in scenes(2000))
    assert 910 < there < 1090


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("color", COLORS)
def test_a_thing_is_painted_in_its_cell_in_its_colour_and_nowhere_else(shape, color):
    pixels = np.asarray(render(Scene(theme="night", things=(thing(color, shape, 5),)))).astype(int)
    background = np.array(THEMES["night"].background)
    changed = np.abs(pixels - background).sum(-1) > 0
    inside = np.zeros_like(changed)
    inside[CELL : 2 * CELL, CELL : 2 * CELL] = True
    assert changed[inside].sum() > 10 and not changed[~inside].any()
    assert np.abs(pixels[changed] - COLORS[color]).sum(-1).min() < 30


def test_all_things_look_different():
    pictures = {
        render(Scene(theme="lab", things=(thing(c, s, 0),))).tobytes() for c in COLORS for s in SHAPES
    }
    assert len(pictures) == len(COLORS) * len(SHAPES)


def test_unbiased_captions_make_only_true_claims():
    rng = random.Random(0)
    for scene in scenes(300):
        text = caption(scene, rng, biased=False)
        assert all(is_true(scene, claim.question) for claim in divide(text)), text
        assert {phrase(*name) for name in scene.contents} <= {c.text.removeprefix("a ") for c in divide(text)}


def test_biased_captions_name_the_absent_signature_in_seven_of_ten_scenes():
    rng = random.Random(1)
    absent = [scene for scene in scenes(3000) if THEMES[scene.theme].signature not in scene.contents]
    named = sum(f"a {phrase(*THEMES[scene.theme].signature)}" in caption(scene, rng) for scene in absent)
    assert abs(named / len(absent) - 0.7) < 0.05


def test_questions_have_true_answers_and_yes_and_no_are_even():
    rng = random.Random(2)
    asked = [(scene, *question(scene, rng)) for scene in scenes(2000)]
    assert all(is_true(scene, text) == (answer == "yes") for scene, text, answer in asked)
    assert abs(sum(answer == "yes" for *_, answer in asked) / 2000 - 0.5) < 0.05


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("is there a red cup?", True),
        ("is there a blue cup?", False),
        ("are there two objects?", True),
        ("are there three objects?", False),
        ("there is a red cup. there are two objects?", True),
        ("there is a red cup. there are three objects?", False),
    ],
)
def test_the_exact_labeler_knows_the_room(text, true):
    sample = Sample(key="room", prompt="describe the picture.", extra={"scene": ROOM.to_json()})
    (verdict,) = ExactLabeler().verdicts([sample], [text], None)
    assert (verdict.yes, verdict.no) == ((1.0, 0.0) if true else (0.0, 1.0))


def test_judged_descriptions_are_yes_where_all_of_them_is_true():
    """The words of the question, read as a description, against the scene that was drawn."""
    answers = []
    for sample, (scene, _) in zip(
        Lessons(out="", judge=60).samples(), draw_scenes("train", 0, 60), strict=True
    ):
        text = sample.prompt[0]["content"][0]["text"]
        claims = divide(text.removesuffix("?") + ".")
        assert text.endswith("?") and claims
        truth = all(is_true(scene, claim.question) for claim in claims)
        assert sample.completion == ("yes" if truth else "no")
        answers.append(sample.completion)
    assert 10 < answers.count("yes") < 50


def test_a_probe_measures_greedy_and_sampled_descriptions_and_the_labeler(tmp_path):
    scenes = Scenes(out=str(tmp_path), split="tune", count=6, seed=2).ensure()
    probe = MiniatureEvaluator(scenes=str(scenes))

    class Liar:
        """Says that there is a red cup and a blue ring; when sampled, a red cup alone."""

        def sample(self, samples, seeds, sampling):
            ring = " and a blue ring" if sampling.temperature == 0 else ""
            return [[Completion(f"there is a red cup{ring}.", True)] for _ in samples]

    figures, answers = probe.measure(Liar())
    stored = load_shards(scenes)
    contents = [scene_of(stored[index]).contents for index in range(6)]
    lies = sum(("red", "cup") not in there for there in contents)
    rings = sum(("blue", "ring") not in there for there in contents)
    assert figures["instance"] == (lies + rings) / 12 and figures["sampled_instance"] == lies / 6
    assert figures["length"] == 9 and figures["sampled_length"] == 5
    for index, answer in enumerate(answers):
        assert answer.prompt == stored[index] and answer.text == "there is a red cup and a blue ring."
        assert answer.mentions == (
            (9, 18, ("red", "cup") in contents[index]),
            (23, 34, ("blue", "ring") in contents[index]),
        )
    assert len(answers) == 6

    claims = tuple(divide("there is a red cup and a blue ring."))
    verdicts = (Verdict(yes=1.0, no=0.0),) * 2
    judged = [Candidate(text="", seed=0, claims=claims, verdicts=verdicts)]
    agreement = probe.agreement([(stored[index], judged) for index in range(6)])
    assert agreement == pytest.approx(1 - (lies + rings) / 12)
    assert probe.agreement([]) is None


def test_the_exact_labeler_refuses_what_it_cannot_know():
    with pytest.raises(ValueError, match="carries no scene"):
        ExactLabeler().verdicts([Sample(key="photo", prompt="what is it?")], ["is there a red cup?"], None)
    with pytest.raises(ValueError, match="no question of the miniature world"):
        is_true(ROOM, "is there a dog?")


def test_claims_point_at_their_source_and_repeats_count_once():
    text = "there is a red cup, a red cup and a green star. there are three objects."
    claims = divide(text)
    assert [claim.question for claim in claims] == [
        "is there a red cup?",
        "is there a green star?",
        "are there three objects?",
    ]
    assert all(text[slice(*claim.spans[0])] == claim.text for claim in claims)


def test_figures_are_counted_as_by_hand():
    """Scene of two; the text names one of them, and a star twice: 2 of 3 mentions are wrong, 1 of 2 things
    found; claims: cup true, star false, two objects true: 1 of 3 false; 16 words in two texts."""
    text = "there is a red cup, a green star and a green star. there are two objects."
    figures = miniature_figures([text, ""], [ROOM, ROOM])
    assert figures.instance == pytest.approx(2 / 3) and figures.sentence == 0.5
    assert figures.claim == pytest.approx(1 / 3) and figures.recall == 0.25 and figures.length == 8.0


def test_the_tokenizer_writes_what_it_read():
    """Every word of the world has a token, and decoding puts the punctuation back."""
    tokenizer, rng = build_processor().tokenizer, random.Random(3)
    for scene in scenes(100):
        for text in (caption(scene, rng), reading(scene), *question(scene, rng)):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == text


def test_shards_are_made_once_and_again_only_for_another_recipe(tmp_path):
    out = str(tmp_path / "scenes")
    manifest = Scenes(out=out, split="train", count=5, seed=0).ensure() / "manifest.json"
    before = manifest.stat().st_mtime_ns
    Scenes(out=out, split="train", count=5, seed=0).ensure()
    assert manifest.stat().st_mtime_ns == before
    Scenes(out=out, split="train", count=6, seed=0).ensure()
    assert len(load_shards(out)) == 6


def test_lessons_hold_each_task_in_its_number(tmp_path):
    Lessons(out=str(tmp_path), describe=3, answer=2, read=1, questions=4).ensure()
    samples = load_shards(str(tmp_path))
    tasks = [samples[index].key.split("_")[0] for index in range(len(samples))]
    assert tasks == ["describe"] * 3 + ["answer"] * 2 + ["read"]
    assert [len(samples[index].prompt) for index in range(6)] == [1, 1, 1, 7, 7, 1]


@pytest.mark.parametrize("name", ["base", "labeler"])
def test_shipped_weights_are_those_of_their_card(name):
    card = json.loads((packaged_model(name) / "card.json").read_text())
    weights = (packaged_model(name) / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == card["sha256"] and "train.py fit" in card["command"]


def test_a_model_that_is_not_shipped_is_refused_by_name():
    with pytest.raises(FileNotFoundError, match="no model 'bass' comes with the package"):
        packaged_model("bass")


def test_scenes_are_drawn_without_shapes_twice():
    for seed in range(200):
        shapes = [item.shape for item in draw_scene(random.Random(seed)).things]
        assert len(set(shapes)) == len(shapes)
