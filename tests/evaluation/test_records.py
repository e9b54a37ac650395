"""What is said of single responses agrees with the figures of all of them, and mentions stand where they are."""

import json

import pytest

from rlaifv_pl.cli.commands import main
from rlaifv_pl.evaluation.benchmarks import records
from rlaifv_pl.evaluation.chair.mentions import located
from rlaifv_pl.evaluation.pope import PopeBenchmark, PopeQuestion
from tests.evaluation.every import benchmarks, metrics


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "figure"), [("pope", "accuracy"), ("mmstar", "final"), ("hallusionbench", "aAcc")]
)
def test_single_answers_are_right_as_often_as_the_figure_says(name, figure):
    metric, said = metrics()[name]
    metric.update(said, range(len(said)))
    rights = [metric.benchmark.record(number, text)["right"] for number, text in enumerate(said)]
    assert 0 < sum(rights) < len(said)
    assert metric.compute()[figure].item() == pytest.approx(100 * sum(rights) / len(said))


def test_a_record_of_each_metric_can_be_written():
    for benchmark, said in benchmarks().values():
        kept = [benchmark.record(number, text) for number, text in enumerate(said)]
        assert json.loads(json.dumps(kept)) == kept and all(kept)


def test_vqa_says_how_right_an_answer_is():
    benchmark, _ = benchmarks()["vqa"]
    assert benchmark.record(3, "red")["accuracy"] == pytest.approx(0.9)  # As its authors' table has it.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog's bowl; Two  TRAFFIC  lights!", ["dog", "bowl", "TRAFFIC  lights"]),
        ("The dogma of a dog.", ["dog"]),
        ("\U0001f408 (cats), \u0130 a hot dog... and a dog", ["cats", "hot dog", "dog"]),
        ("a toilet seat near a seat", ["toilet seat"]),
        ("", []),
    ],
)
def test_mentions_are_found_where_they_stand(text, expected):
    assert [text[one.start : one.end] for one in located(text, "A")] == expected


def test_records_of_captions_name_what_is_wrong(home):
    (home / "G.json").write_text('{"1": ["dog", "car"], "2": ["cat"]}')
    captions = {1: "A dog and a kite, a kite.", 2: "A cat."}
    rows = [json.dumps({"image_id": key, "caption": text}) for key, text in captions.items()]
    (home / "R.jsonl").write_text("\n".join(rows))
    options = "--metric chair --variant A --responses R.jsonl --ground_truth G.json --records new/rows.jsonl"
    main(["evaluate", *options.split()])
    first, second = map(json.loads, (home / "new" / "rows.jsonl").read_text().splitlines())
    assert (first["key"], first["completion"]) == ("1", captions[1]) and first["prompt"]
    assert first["right_objects"] == ["dog"] and first["hallucinated_objects"] == ["kite"]
    assert first["missed_objects"] == ["car"] and second["hallucinated_objects"] == []
    marked = [(captions[1][one["start"] : one["end"]], one["right"]) for one in first["mentions"]]
    assert marked == [("dog", True), ("kite", False), ("kite", False)]


def test_a_record_has_the_prompt_as_it_was_asked():
    questions = [PopeQuestion(question_id=1, image="a.png", text="Is it?", label="no")]
    (row,) = records(PopeBenchmark(questions), {0: "No."}, "{prompt} Yes or no?")
    assert row == {
        "key": "1", "prompt": "Is it? Yes or no?", "image": "a.png", "completion": "No.",
        "read_as": "no", "expected": "no", "right": True,
    }  # fmt: skip
