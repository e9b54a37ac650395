"""Object HalBench: what a judge's lists mean, figures of them, and the commands from questions to figures."""

import json
import math

import pytest
import torch

from rlaifv_pl.cli.commands import main
from rlaifv_pl.cli.evaluate import evaluate
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError
from rlaifv_pl.evaluation.judged import objhal as bench
from rlaifv_pl.evaluation.judged.object_classes import named_classes
from rlaifv_pl.evaluation.judged.objhal import ObjHalBenchmark, objhal_figures, objhal_job, objhal_row
from rlaifv_pl.evaluation.judged.reviews import run_reviews
from tests.evaluation.judged.scripted import Filler, judge

LISTED = {
    ("dog",): ["dog"],
    ("dogs", "dog", "a dog"): ["dog"],
    ("dog", "puppy"): ["dog", "dog"],
    ("men",): ["person"],
    ("bus", "buses", "Vases"): ["bus", "vase"],
    ("people", "person"): ["person", "person"],
    ("wooden dining table",): ["dining table"],
    ("wooden table",): ["dining table"],
    ("stop sign pole",): ["stop sign"],
    ("hot dogs",): ["hot dog"],
    ("dog leash", "train track", "car door"): [],
    ("group of people", "cup of coffee"): ["person", "cup"],
    ("man's hand",): ["person"],
    ("baby elephant",): ["elephant"],
    ("toilet", "seat"): ["toilet"],
    ("seat",): ["chair"],
    ("sky", "", "  "): [],
}


@pytest.mark.parametrize("names", LISTED)
def test_listed_objects_are_classes_once_a_word(names):
    assert named_classes(names) == LISTED[names]


def test_figures_are_the_arithmetic_of_counts():
    """Of four answers one names a wrong object and two name any; 1 of 4 words is wrong; 2 of 5 classes are found."""
    table = torch.tensor([[1, 3, 1, 2, 8], [0, 1, 1, 1, 4], [0, 0, 0, 2, 3], [0, 0, 0, 0, 1], [-1] * 5])
    assert objhal_figures(table) == {
        "Response": 50,
        "Mention": 25,
        "CHAIRs": 25,
        "Recall": 40,
        "words": 4,
        "n_naming": 2,
        "n_mentions": 4,
    }
    nothing = objhal_figures(torch.tensor([[0, 0, 0, 0, 1]]))
    assert nothing["CHAIRs"] == 0 and all(
        math.isnan(nothing[name]) for name in ("Response", "Mention", "Recall")
    )
    assert objhal_row([], set(), "two  blanks ") == (0, 0, 0, 0, 3)


ANSWERS = {
    1: "A dog sits beside a big cat.",
    2: "Assistant: There is a cat.",
    3: "No, no idea.",
    4: "It cannot be told here.",
}
JUDGE = "judge objhal --responses A.jsonl --out R.jsonl"
MEASURE = "evaluate --metric objhal --responses R.jsonl --ground_truth G.json --out O.json"
SAID = {"A dog sits": ["dog", "cat"], "There is a cat.": ["cat"], "told here": None}


def list_objects(request, form):
    assert form == "Listed" and not request.images and "Question: Describe it." in request.text
    (found,) = [names for answer, names in SAID.items() if answer in request.text]
    return None if found is None else {"objects": found}


class Lister(Filler):
    """As the command line makes it."""

    def __init__(self) -> None:
        super().__init__(list_objects)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"image_id": number, "prompt": "Describe it.", "text": text, "model": "m"}
        for number, text in ANSWERS.items()
    ]
    (tmp_path / "A.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "G.json").write_text('{"1": ["dog"], "2": ["cat", "bus"], "3": ["car"], "4": []}')
    return tmp_path


def test_from_answers_to_figures_by_command(home):
    """Of three judged answers (the fourth has no review) two name objects, one a wrong one: 1 of 2, and of 3."""
    main([*JUDGE.split(), "--name", "d", "--judge", "tests.evaluation.judged.test_objhal.Lister"])
    rows = [json.loads(line) for line in (home / "R.jsonl").read_text().splitlines()]
    assert [row.get("objects") for row in rows] == [["dog", "cat"], ["cat"], [], None]
    assert all(row["model"] == "m" for row in rows) and "judge" not in rows[3]
    main(MEASURE.split())
    report = json.loads((home / "O.json").read_text())
    assert report["name"].startswith("objhal_by_d_") and report["name"].endswith(rows[0]["judge"])
    assert (report["Response"], report["Mention"]) == (50, pytest.approx(100 / 3))
    assert (report["CHAIRs"], report["Recall"]) == (pytest.approx(100 / 3), 50)
    assert (report["n"], report["n_missing"], report["n_naming"], report["words"]) == (
        3,
        1,
        2,
        pytest.approx(14 / 3),
    )


def test_an_answer_of_three_words_is_not_asked_about(home):
    engine = Filler(list_objects)
    job = objhal_job(ObjHalBenchmark.load(home / "A.jsonl"), bench.PROMPT_TEMPLATE)
    outcome = run_reviews(job, judge(engine), home / "R.jsonl")
    assert (len(engine.asked), len(outcome.reviews), outcome.reviews.count(None)) == (3, 4, 1)


def test_questions_become_answers_in_the_official_form(home):
    (home / "Q.jsonl").write_text('{"image_id": "COCO_val2014_000000000042.jpg", "question": "Describe it."}')
    benchmark = ObjHalBenchmark.load(home / "Q.jsonl")
    assert (benchmark.items[0].prompt, benchmark.items[0].image) == ("Describe it.", "42")
    benchmark.write(home / "A.jsonl", {0: "A dog."})
    (row,) = map(json.loads, (home / "A.jsonl").read_text().splitlines())
    assert row == {
        "image_id": "COCO_val2014_000000000042.jpg",
        "question": "Describe it.",
        "answer": "A dog.",
    }


def test_answers_may_be_in_the_order_of_the_questions(home):
    (home / "Q.jsonl").write_text('{"image_id": 1, "question": "a"}\n{"image_id": 2, "question": "b"}\n')
    (home / "T.jsonl").write_text('{"text": "A cat."}\n{"text": "A dog.", "prompt": "c", "image_id": 3}\n')
    benchmark = ObjHalBenchmark.of_answers(home / "T.jsonl", home / "Q.jsonl")
    assert [item.image for item in benchmark.items] == ["1", "3"]
    with pytest.raises(BenchmarkError, match=r"A.jsonl: expected an answer to each of 2 questions, got 4"):
        ObjHalBenchmark.of_answers(home / "A.jsonl", home / "Q.jsonl")
    with pytest.raises(BenchmarkError, match="line 1: expected a field 'image_id'"):
        ObjHalBenchmark.of_answers(home / "T.jsonl")


def test_what_is_wrong_with_a_review_is_named(home):
    row = {"image_id": 9, "question": "?", "answer": "a", "objects": ["dog"], "judge": "d"}
    for changed, message in (
        ({}, "line 1: field 'image_id': expected an image of the ground truth, got '9'"),
        ({"image_id": 1, "objects": [3]}, "line 1: field 'objects': expected a list of texts"),
        ({"image_id": 1, "objects": "dog"}, "line 1: field 'objects': expected a list, got 'dog'"),
    ):
        (home / "R.jsonl").write_text(json.dumps({**row, **changed}))
        with pytest.raises(BenchmarkError, match=message):
            evaluate("objhal", "R.jsonl", "G.json")
    with pytest.raises(BenchmarkError, match=r"reviews .* of one judge, got none"):
        evaluate("objhal", "A.jsonl", "G.json")
    with pytest.raises(BenchmarkError, match="give --ground_truth"):
        evaluate("objhal", "A.jsonl")
