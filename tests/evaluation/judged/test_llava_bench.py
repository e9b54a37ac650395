"""LLaVA-Bench: a published review of a published model, and the commands from questions to figures."""

import json
import re

import pytest

from rlaifv_pl.cli.commands import main
from rlaifv_pl.cli.evaluate import evaluate
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow
from rlaifv_pl.evaluation.judged.llava_bench import LlavaBenchmark, read_contexts, read_points
from rlaifv_pl.evaluation.table_metric import compute_figures
from tests.evaluation.judged.scripted import Filler

PUBLISHED = {
    "conv": "7 9,9 2,9 2,10 10,8 6,9 8.5,9 2,9 9,9 2,9 2,10 10,9 4,9 2,9 6,7 4,9 1,10 10",
    "detail": "8 6,9 2,9 6,8 7,9 5,9 4,8 5,9 4,9 2,9 3,9 2,9 2,9 3,9 6,9 6",
    "complex": "8 6,9 8,8 7.5,8 9,9 8.5,9 7,8 9,9 7.5,9 7.5,8 7.5,9 7.5,9 8,8 6,8 6,9 6.5,5 7,9 6,9 2,9 3,9 4,9 6,9 6,"
    "9 7,9 6,8 7,9 7,9 9,8 4",
}
"""Points that GPT-4 gave the reference and LLaVA-1.5-7B in the first of its authors' three reviews in the wild, by
category in the order of the questions."""


def test_published_reviews_have_the_figures_that_the_authors_sum_up(tmp_path):
    """The authors' summary: means to three decimals, then their ratio to one."""
    rows, expected, every = [], {}, []
    for category, listed in PUBLISHED.items():
        pairs = [[float(points) for points in pair.split()] for pair in listed.split(",")]
        every += pairs
        for name, some in ((f"score/{category}", pairs), ("score", every)):
            means = [round(sum(pair[side] for pair in some) / len(some), 3) for side in (0, 1)]
            expected[name] = round(means[1] / means[0] * 100, 1)
        for pair in listed.split(","):
            row = {
                "question_id": len(rows),
                "category": f"llava_bench_{category}",
                "content": f"{pair}\nBoth.",
            }
            rows.append(row)
    (tmp_path / "R.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report = evaluate("llava_bench", str(tmp_path / "R.jsonl"))
    assert (report["name"], report["n"]) == ("llava_bench_by_unnamed", 60)
    for name, value in expected.items():
        assert report[name] == pytest.approx(value, abs=0.06), name


def test_points_are_read_as_the_authors_read_them():
    said = {"8 7\nGood.": (8, 7), "8, 7.5": (8, 7.5), "8": None, "8 7 6": None, "8/7": None, "": None}
    assert {text: read_points(text) for text in said} == said
    assert read_points("nan 7") is None and read_points("-1 -1") is None


def test_what_is_not_defined_is_nan_and_counted():
    reviews = [
        FileRow({"question_id": n, "category": kind, "content": ""}, "R")
        for n, kind in enumerate(("conv", "conv", "detail"))
    ]
    said = dict(enumerate(["8 6", "no points", "none either"]))
    _, found = compute_figures(LlavaBenchmark(reviews), said)
    assert (found["score"], found["score/conv"], found["n"], found["n_missing"]) == (75, 75, 1, 2)
    assert (found["reference"], found["answer"]) == (80, 60) and found["score/detail"] is None


def give_points(request, form):
    assert form == "Scores" and not request.images
    places = r"shows: ([\s\S]*)\nQuestion: (.*)\nFirst.*: (.*)\nSecond.*: (.*)\n"
    shown, asked, reference, answer = re.search(places, request.text).groups()
    assert (reference, shown) == (f"It is {asked[-2]}.", SHOWN[asked[-2]])
    return {
        "bad": {"explanation": "no", "first": 8, "second": 2.5},
        "good": {"explanation": "", "first": 8, "second": 8},
    }.get(answer)


SHOWN = {"0": "A cat.\nA black cat.\ncat: [0.1, 0.2]", "1": "A dog.", "2": "A dog."}


class Points(Filler):
    """As the command line makes it."""

    def __init__(self) -> None:
        super().__init__(give_points)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "official").mkdir()
    kinds = {"0": "conv", "1": "conv", "2": "detail"}
    files = {
        "official/qa_questions.jsonl": [
            {"question_id": int(n), "image": f"{int(n) and 1}.jpg", "text": f"Is it {n}?", "category": kind}
            for n, kind in kinds.items()
        ],
        "official/answers_gpt4.jsonl": [{"question_id": int(n), "text": f"It is {n}."} for n in kinds],
        "official/context.jsonl": [
            {"image": "1.jpg", "caption": "A dog."},
            {
                "image": "0.jpg",
                "captions": ["A cat.", "A black cat."],
                "instances": [{"category": "cat", "bbox": [0.1, 0.2]}],
            },
        ],
        "A.jsonl": [
            {"question_id": n, "text": text} for n, text in ((2, "unclear"), (0, "bad"), (1, "good"))
        ],
    }
    for name, rows in files.items():
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


JUDGE = "judge llava_bench --responses A.jsonl --ground_truth official --out R.jsonl --name d --judge"


def test_from_answers_to_figures_by_command(home):
    """Points 8 to 2.5 and 8 to 8; the third answer has no review."""
    main([*JUDGE.split(), "tests.evaluation.judged.test_llava_bench.Points"])
    rows = [json.loads(line) for line in (home / "R.jsonl").read_text().splitlines()]
    assert [row.get("content") for row in rows] == ["8 2.5\nno", "8 8\n", None]
    assert (rows[0]["tuple"], rows[0]["category"]) == ([8, 2.5], "llava_bench_conv")
    report = evaluate("llava_bench", "R.jsonl")
    assert report["score"] == report["score/conv"] == pytest.approx(100 * 10.5 / 16)
    assert (report["n"], report["n_missing"], report["score/detail"]) == (2, 1, None)
    assert report["name"] == f"llava_bench_by_{rows[0]['judge']}"


def test_questions_become_answers_in_the_official_form(home):
    benchmark = LlavaBenchmark.load(home / "official")
    assert (benchmark.items[1].prompt, benchmark.items[1].image) == ("Is it 1?", "1.jpg")
    benchmark.write(home / "new.jsonl", {1: "Yes."})
    (row,) = map(json.loads, (home / "new.jsonl").read_text().splitlines())
    assert row == {"question_id": 1, "prompt": "Is it 1?", "text": "Yes.", "category": "conv"}
    with pytest.raises(BenchmarkError, match="expected an answer to '0', got none"):
        benchmark.answers(home / "new.jsonl")


def test_what_is_wrong_with_the_official_files_is_named(home):
    context = home / "official" / "context.jsonl"
    context.write_text('{"image": "1.jpg", "caption": "A dog."}')
    with pytest.raises(
        SystemExit, match=r"field 'image': expected an image whose context is known, got '0.jpg'"
    ):
        main([*JUDGE.split(), "tests.evaluation.judged.test_llava_bench.Points"])
    context.write_text('{"image": "1.jpg", "caption": 3}')
    with pytest.raises(BenchmarkError, match="expected a text or a list of texts, got 3"):
        read_contexts(context)
    context.rename(home / "official" / "more_questions.jsonl")
    with pytest.raises(
        BenchmarkError, match=r"one file \*questions.jsonl, got more_questions.jsonl, qa_questions"
    ):
        LlavaBenchmark.load(home / "official")
    with pytest.raises(BenchmarkError, match=r"reviews .* of one judge, got none"):
        evaluate("llava_bench", "official/qa_questions.jsonl")
    with pytest.raises(BenchmarkError, match="leave --ground_truth out"):
        evaluate("llava_bench", "R.jsonl", "official")
