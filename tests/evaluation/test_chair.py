"""CHAIR: published figures on real captions, the rules of mentions one by one, ground truth from COCO's annotations."""

import gzip
import json
import math
import os
from pathlib import Path

import pytest

from rlaifv_pl.cli.evaluate import compute_figures
from rlaifv_pl.coco import PLAIN
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError
from rlaifv_pl.evaluation.chair.benchmark import ChairBenchmark, chair_row
from rlaifv_pl.evaluation.chair.forms import classes
from rlaifv_pl.evaluation.chair.ground_truth import read_objects
from rlaifv_pl.evaluation.chair.mentions import mentions
from rlaifv_pl.evaluation.table_metric import TableMetric

CAPTIONS = Path(
    os.environ.get("RLAIFV_TEST_CAPTIONS", Path(__file__).resolve().parents[3] / "shared" / "data" / "chair")
)
EXPECTED = CAPTIONS / "expected.json"

needs_captions = pytest.mark.skipif(
    not EXPECTED.is_file(),
    reason=f"no captions in {CAPTIONS}: set RLAIFV_TEST_CAPTIONS to a folder with expected.json, "
    "objects.json.gz and responses/*.jsonl.gz",
)


@needs_captions
def test_real_captions_have_the_figures_that_were_published_of_them():
    published = json.loads(EXPECTED.read_text())
    objects = read_objects(CAPTIONS / "objects.json.gz", "A")
    for file, by_variant in published.items():
        path = CAPTIONS / "responses" / f"{file}.jsonl.gz"
        for variant, figures in by_variant.items():
            benchmark = ChairBenchmark.of_responses(objects, variant, path)
            _, found = compute_figures(benchmark, benchmark.read(path))
            assert found["n"] == figures["n"]
            for name in ("CHAIRs", "CHAIRi", "Recall", "words"):
                assert found[name] == pytest.approx(figures[name], abs=0.05), (file, name)


@needs_captions
def test_the_variants_read_real_captions_differently():
    with gzip.open(CAPTIONS / "responses" / "Instruction2_llava.jsonl.gz", "rt") as file:
        captions = [json.loads(line)["caption"] for line in file]
    apart = sum(mentions(text, "A") != mentions(text, "C") for text in captions)
    assert 0.02 < apart / len(captions) < 0.2


MENTIONS = {
    # text: (variant A, variant C)
    "A dog.": (["dog"], ["dog"]),
    "A dog chases another dog, and dogs bark": (["dog"] * 3, ["dog"] * 3),
    "": ([], []),
    "Nothing of note.": ([], []),
    "A man's hat and the dogs' bowls": (["person", "dog", "bowl"], ["person", "dog", "bowl"]),
    "women, children and geese": (["person", "person", "bird"], ["person", "person", "bird"]),
    # Mistakes of the singular forms, which are part of the variants.
    "men": (["person"], []),
    "people": (["person"], ["person"]),
    "a bus": ([], ["bus"]),
    "two buses": (["bus"], ["bus"]),
    "ties": ([], ["tie"]),
    "two vases": (["vase"], []),
    "bikers": (["person"], []),
    "canoes and a canoe": (["boat"], ["boat", "boat"]),
    # Words of one list alone.
    "a pedestrian": ([], ["person"]),
    "a cheesecake": ([], ["cake"]),
    "a motor bike": ([], ["motorcycle"]),
    # Two words.
    "a baby elephant, an adult bird, a baby": (["elephant", "bird", "person"],) * 2,
    "a passenger train beside a passenger": (["train", "person"],) * 2,
    "a train track": ([], []),
    "a bow tie": (["tie"], ["tie"]),
    "a toilet seat": (["toilet"], ["toilet"]),
    "a seat": (["chair"], ["chair"]),
    "the seat of the toilet": (["toilet"], ["toilet"]),
    "wine glasses and a wine glass": (["wine glass"] * 2,) * 2,
    "traffic lights, street lights and stop signs": (["traffic light"] * 2 + ["stop sign"],) * 2,
    "a teddy bear and a bear": (["teddy bear", "bear"],) * 2,
    "hot dogs": (["hot dog"], ["hot dog"]),
    "hot, dogs": (["dog"], ["dog"]),
    "hot (dogs)": (["dog"], ["dog"]),
    "It is hot. Dogs sleep.": (["dog"], ["dog"]),
    # Where words end.
    'a "cat"; a [dog]!': (["cat", "dog"],) * 2,
    "cat/dog": ([], []),
    "a t-shirt at 5 o'clock on the clock": (["clock"], ["clock"]),
    "a car.A truck.": (["truck"], ["truck"]),
    "one car,two cars": (["car", "car"],) * 2,
    "the car\u2019s door": (["car"], ["car"]),
    "A cat...dog": (["cat", "dog"],) * 2,
}


@pytest.mark.parametrize("text", MENTIONS)
def test_mentions_follow_the_rules(text):
    assert (mentions(text, "A"), mentions(text, "C")) == MENTIONS[text]


def test_the_vocabulary_has_each_class_and_no_word_twice():
    for variant in ("A", "C"):
        assert set(classes(variant).values()) == set(PLAIN) and len(PLAIN) == 80
    assert set(classes("C")) - set(classes("A")) == {"brother", "pedestrian", "cheesecake", "motor bike"}


def test_figures_are_the_arithmetic_of_counts():
    """Wrong 1 of 3 mentions and 0 of 1; objects found 1 of 2 and 1 of 1; words 8 and 3."""
    benchmark = ChairBenchmark({"1": {"dog", "car"}, "2": {"cat"}, "3": {"cup"}}, "A")
    metric = TableMetric(benchmark)
    metric.update(["A dog and two cats near a dog.", "the cat sits"], [0, 1])
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == {
        "CHAIRs": 50.0,
        "CHAIRi": 25.0,
        "Recall": pytest.approx(200 / 3),
        "words": 5.5,
        "n_mentions": 4,
        "n": 2,
        "n_missing": 1,
    }
    assert benchmark.name == "chair_A" and chair_row("", {"cat"}, "A") == (0, 0, 0, 1, 0)


def test_what_is_not_defined_is_nan():
    empty = TableMetric(ChairBenchmark({"1": set()}, "A"))
    assert all(math.isnan(empty.compute()[name]) for name in ("CHAIRs", "CHAIRi", "Recall", "words"))
    empty.update(["Nothing."], [0])
    found = empty.compute()
    assert found["CHAIRs"] == 0 and math.isnan(found["CHAIRi"]) and math.isnan(found["Recall"])
    assert found["n"] == 1 and found["n_missing"] == 0


def test_ground_truth_joins_outlines_and_captions(tmp_path):
    instances = {
        "categories": [{"id": 1, "name": "person"}, {"id": 7, "name": "bus"}],
        "annotations": [{"image_id": 42, "category_id": 1}, {"image_id": 9, "category_id": 7}],
    }
    captions = {"annotations": [{"image_id": 42, "caption": "Two men wait for a bus."}]}
    (tmp_path / "instances_val2014.json").write_text(json.dumps(instances))
    with pytest.raises(BenchmarkError, match=r"got no captions_\*\.json"):
        read_objects(tmp_path, "A")
    (tmp_path / "captions_val2014.json").write_text(json.dumps(captions))
    assert read_objects(tmp_path, "A") == {"42": {"person"}, "9": {"bus"}}
    assert read_objects(tmp_path, "C") == {"42": {"person", "bus"}, "9": {"bus"}}


def test_images_are_known_by_any_of_their_names_and_may_be_described_twice(tmp_path):
    objects = {"42": frozenset({"dog"}), "7": frozenset({"cat"})}
    rows = [("COCO_val2014_000000000042.jpg", "a dog"), (7, "a dog"), ("000000000042", "a cat")]
    path = tmp_path / "responses.jsonl"
    path.write_text("".join(json.dumps({"image_id": name, "caption": text}) + "\n" for name, text in rows))
    benchmark = ChairBenchmark.of_responses(objects, "C", path)
    completions = benchmark.read(path)
    assert completions == {0: "a dog", 1: "a dog", 2: "a cat"}
    assert compute_figures(benchmark, completions)[1]["CHAIRs"] == pytest.approx(200 / 3)
    benchmark.write(tmp_path / "again.jsonl", completions)
    again = ChairBenchmark.of_responses(objects, "C", tmp_path / "again.jsonl")
    assert again.items == benchmark.items and again.read(tmp_path / "again.jsonl") == completions


def test_a_model_is_asked_about_each_image_whose_objects_are_known():
    (item,) = ChairBenchmark({"42": frozenset({"dog"})}, "A").items
    assert (item.image, item.prompt) == ("42", "Please describe this image in detail.")


BAD = {
    '{"image_id": 1, "caption": "a"}\n{"image_id": 1, "caption"}': r"line 2: expected JSON",
    '{"image_id": 1}': r"line 1: expected a field 'caption'",
    '{"caption": "a"}': r"line 1: expected a field 'image_id'",
    '{"image_id": 1, "caption": 3}': r"line 1: field 'caption': expected a text, got 3",
    '\n{"image_id": 5, "caption": "a"}': r"line 2: field 'image_id': expected an image of the ground truth, got '5'",
    "[1]": r"entry 0: expected an object, got 1",
    "": r"expected objects, got an empty file",
}


@pytest.mark.parametrize("content", BAD)
def test_a_bad_response_is_named_by_line_and_field(content, tmp_path):
    path = tmp_path / "responses.jsonl"
    path.write_text(content)
    with pytest.raises(BenchmarkError, match=BAD[content]) as caught:
        ChairBenchmark.of_responses({"1": frozenset()}, "A", path).read(path)
    assert str(path) in str(caught.value)


def test_a_bad_ground_truth_is_named(tmp_path):
    path = tmp_path / "objects.json"
    for content, message in (
        (
            '{"1": ["dog"], "2": ["televsion"]}',
            r"image '2': expected one of COCO's 80 classes, got 'televsion'",
        ),
        ('{"1": ["dogs"]}', r"did you mean 'dog'"),
        ('{"1": "dog"}', r"image '1': expected a list"),
        ('{"1": [], "0001.jpg": []}', r"image '0001.jpg': expected each image once"),
        ("[]", r"expected an object"),
        ("{", r"line 1: expected JSON"),
    ):
        path.write_text(content)
        with pytest.raises(BenchmarkError, match=message):
            read_objects(path, "A")
