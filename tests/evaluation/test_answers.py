"""MMStar and VQA accuracy, and the tables that they come in."""

import json

import pytest

from rlaifv_pl.cli.evaluate import compute_figures
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError
from rlaifv_pl.evaluation.mmstar import MMStarBenchmark, mmstar_right
from rlaifv_pl.evaluation.spreadsheets import read_table, write_xlsx
from rlaifv_pl.evaluation.vqa import VqaBenchmark, normalize_answer, vqa_row

LETTERS = {
    # prediction to the right answer B
    "B": True,
    "b. the left one": True,
    " (B) it is": True,
    "Option B": True,
    "The answer is B.": True,
    "The answer is\nB.": True,
    "option\nB": True,
    "option\n\nB": False,
    "Because it is blue": True,
    "A": False,
    "The answer: B": False,
    "[B]": False,
    "": False,
}


@pytest.mark.parametrize("text", LETTERS)
def test_mmstar_reads_the_letter_where_it_stands(text):
    assert mmstar_right(text, "B") == LETTERS[text]


CATEGORIES = [
    ("math", "geometry"),
    ("math", "geometry"),
    ("math", "numeric"),
    ("logic", "diagram"),
    ("logic", "code"),
]
SAID = ["A", "B", "a", "", None]  # to A each; the last is not answered


def mmstar_rows() -> list[dict]:
    return [
        {
            "index": n,
            "question": f"Which?\nA: {n} B: <{n}>",
            "answer": "A",
            "category": category,
            "l2_category": finer,
        }
        for n, (category, finer) in enumerate(CATEGORIES)
    ]


def test_mmstar_counts_all_answers_alike(tmp_path):
    """2 of 4 answers are right: 2 of 3 in math, 0 of 1 in logic."""
    path = tmp_path / "mmstar.json"
    path.write_text(json.dumps(mmstar_rows()))
    benchmark = MMStarBenchmark.load(path)
    completions = {n: text for n, text in enumerate(SAID) if text is not None}
    _, found = compute_figures(benchmark, completions)
    assert (found["final"], found["math"], found["logic"]) == (50, pytest.approx(200 / 3), 0)
    assert (found["math (geometry)"], found["math (numeric)"], found["logic (code)"]) == (50, 100, None)
    assert (found["n"], found["n_missing"]) == (4, 1)
    benchmark.write(tmp_path / "said.xlsx", completions)
    again = MMStarBenchmark.load(tmp_path / "said.xlsx")
    assert again.read(tmp_path / "said.xlsx") == benchmark.read(tmp_path / "said.xlsx") == completions
    assert [item.prompt for item in again.items] == [item.prompt for item in benchmark.items[:4]]


def test_tables_are_read_in_each_form(tmp_path):
    rows = [{"index": 0, "text": "a & <b>\nc"}, {"index": 12, "text": ""}]
    with open(tmp_path / "t.xlsx", "wb") as file:
        write_xlsx(file, rows)
    (tmp_path / "t.tsv").write_text('index\ttext\n0\t"a & <b>\nc"\n12\t\n')
    (tmp_path / "t.csv").write_text('index,text\n0,"a & <b>\nc"\n12\n')
    for name in ("t.xlsx", "t.tsv", "t.csv"):
        found = [dict(row.fields) for row in read_table(tmp_path / name)]
        assert found == [{"index": "0", "text": "a & <b>\nc"}, {"index": "12", "text": ""}], name
    (tmp_path / "t.xlsx").write_text("no zip")
    with pytest.raises(BenchmarkError, match=r"t\.xlsx: expected an Excel workbook"):
        read_table(tmp_path / "t.xlsx")
    (tmp_path / "t.tsv").write_text("index\ttext\n")
    with pytest.raises(BenchmarkError, match=r"expected a header and rows below it, got 1 lines"):
        read_table(tmp_path / "t.tsv")


AGREED = {0: 0.0, 1: 0.3, 2: 0.6, 3: 0.9, 4: 1.0, 10: 1.0}


@pytest.mark.parametrize("agree", AGREED)
def test_an_answer_is_as_right_as_people_agree(agree):
    points, of = vqa_row("Red.", ["red"] * agree + ["blue"] * (10 - agree))
    assert points / of == pytest.approx(AGREED[agree])


NORMAL = {
    "  A Red\nBall ": "red ball",
    "three": "3",
    "none": "0",
    "10,000": "10000",
    "3.5": "3.5",
    "St. Louis.": "st louis",
    "yes/no": "yes no",
    "yes, no": "yes no",
    "isnt": "isn't",
    "the": "",
}


@pytest.mark.parametrize("text", NORMAL)
def test_what_does_not_matter_is_left_out(text):
    assert normalize_answer(text) == NORMAL[text]


def test_vqa_reads_both_kinds_of_annotations(tmp_path):
    """The first answer is right (4 of 10), the second to 0.3."""
    people = [["cat"] * 4 + ["dog"] * 6, ["2"] + ["3"] * 9]
    vqa = [
        {"question_id": n, "image_id": 7, "answers": [{"answer": text, "answer_id": 1} for text in said]}
        for n, said in enumerate(people)
    ]
    questions = [{"question_id": n, "image_id": 7, "question": f"What {n}?"} for n in range(2)]
    for name, content in (
        ("v2_annotations.json", {"annotations": vqa}),
        ("v2_questions.json", {"questions": questions}),
        ("said.json", [{"question_id": 1, "answer": "Two"}, {"question_id": 0, "answer": "a cat"}]),
    ):
        (tmp_path / name).write_text(json.dumps(content))
    textvqa = [{**asked, "answers": said} for asked, said in zip(questions, people, strict=True)]
    (tmp_path / "textvqa.json").write_text(json.dumps({"data": textvqa}))
    for source in (tmp_path, tmp_path / "textvqa.json"):
        benchmark = VqaBenchmark.load(source)
        assert [(item.prompt, item.image) for item in benchmark.items] == [("What 0?", "7"), ("What 1?", "7")]
        completions = benchmark.read(tmp_path / "said.json")
        assert compute_figures(benchmark, completions)[1] == {
            "accuracy": pytest.approx(65),
            "n": 2,
            "n_missing": 0,
        }
    benchmark.write(tmp_path / "again.json", completions)
    assert benchmark.read(tmp_path / "again.json") == completions
    assert compute_figures(benchmark, {})[1]["accuracy"] is None
    (tmp_path / "v2_questions.json").unlink()
    with pytest.raises(
        BenchmarkError, match=r"expected one \*annotations\.json and one \*questions\.json, got 1 and 0"
    ):
        VqaBenchmark.load(tmp_path)
    (tmp_path / "textvqa.json").write_text(
        json.dumps({"data": [{"question_id": 1, "image_id": 2, "answers": []}]})
    )
    with pytest.raises(BenchmarkError, match=r"data\[0\]: field 'answers': expected people's answers"):
        VqaBenchmark.load(tmp_path / "textvqa.json")
