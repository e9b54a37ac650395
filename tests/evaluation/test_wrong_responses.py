"""Wrong files of responses to each benchmark: one line that names file, field and remedy, or figures."""

import json

import pytest

from rlaifv_pl.cli.commands import main
from rlaifv_pl.evaluation.benchmarks import BENCHMARKS

NUMBERS = range(1, 5)
AMBER = {
    "query/query_all.json": [{"id": n, "image": "1.jpg", "query": "?"} for n in NUMBERS],
    "annotations.json": [{"id": n, "type": "relation", "truth": "yes"} for n in NUMBERS],
    "relation.json": {},
}
HALLUSION = {"category": "VS", "subcategory": "map", "set_id": "0", "figure_id": "1", "visual_input": "1"}
MMSTAR = {"question": "?", "answer": "A", "category": "math", "l2_category": "geometry"}


def rows(metric: str, key: int) -> dict:
    """A response to an item, or a review of one."""
    return {
        "chair": {"image_id": key, "caption": "a cat"},
        "amber": {"id": key, "response": "Yes"},
        "pope": {"question_id": key, "answer": "yes"},
        "mmstar": {"index": key, "prediction": "A", **MMSTAR},
        "mme": {"image": f"{key}.jpg", "question": "?", "answer": "Yes", "prediction": "yes"},
        "hallusionbench": {
            **HALLUSION, "question_id": str(key), "question": "?", "filename": "a", "gt_answer": "1",
            "model_prediction": "yes",
        },
        "vqa": {"question_id": key, "answer": "red"},
        "mmhal": {
            "image_id": str(key), "question": "?", "question_type": "a", "judge": "d", "rating": 3,
        },
        "objhal": {"image_id": key, "question": "?", "answer": "a cat", "objects": ["cat"], "judge": "d"},
        "llava_bench": {"question_id": key, "category": "conv", "content": "8 7", "judge": "d"},
        "refomb": {"image_url": f"{key}.jpg", "question": "?", "type": "ocr", "score": 0, "judge": "d"},
    }[metric]  # fmt: skip


ANSWER_FIELD = {
    "chair": "caption",
    "amber": "response",
    "pope": "answer",
    "mmstar": "prediction",
    "mme": "prediction",
    "hallusionbench": "model_prediction",
    "vqa": "answer",
    "mmhal": "rating",
    "objhal": "objects",
    "llava_bench": "content",
    "refomb": "score",
}
KEY_FIELD = {
    "chair": "image_id",
    "amber": "id",
    "pope": "question_id",
    "mmstar": "index",
    "mme": "image",
    "hallusionbench": "question_id",
    "vqa": "question_id",
    "objhal": "image_id",
}
"""Of benchmarks whose ground truth lies apart from the responses."""


def write(path, metric: str, responses: list[dict]) -> None:
    if metric != "mme":
        path.write_text(json.dumps(responses))
        return
    path.mkdir(exist_ok=True)
    (path / "count.txt").write_text("".join("\t".join(row.values()) + "\n" for row in responses))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ground_truth(home, metric: str):
    path = home / "truth"
    if metric in ("chair", "objhal"):
        path.write_text(json.dumps({str(n): ["cat"] for n in NUMBERS}))
    elif metric == "amber":
        (path / "query").mkdir(parents=True)
        for name, content in AMBER.items():
            (path / name).write_text(json.dumps(content))
        (path / "safe_words.txt").write_text("")
    elif metric == "pope":
        questions = [{"question_id": n, "image": "1.jpg", "text": "?", "label": "yes"} for n in NUMBERS]
        path.write_text(json.dumps(questions))
    elif metric == "vqa":
        answers = [{"question_id": n, "image_id": 1, "answers": ["red"] * 10} for n in NUMBERS]
        path.write_text(json.dumps({"annotations": answers}))
    else:
        write(path, metric, [rows(metric, n) for n in NUMBERS])
    return path


def evaluate(home, metric: str, capsys) -> tuple[str, dict | None]:
    """What is said of the file `responses` on stderr, and the figures if there are any."""
    options = ["--variant", "A"] if metric == "chair" else []
    if metric in KEY_FIELD:
        options += ["--ground_truth", str(ground_truth(home, metric))]
    (home / "out.json").unlink(missing_ok=True)
    try:
        main(["evaluate", "--metric", metric, "--responses", "responses", "--out", "out.json", *options])
    except SystemExit as left:
        said = str(left.code) + capsys.readouterr().err
        assert "Traceback" not in said and "Errno" not in said and not (home / "out.json").exists()
        assert len(said.strip().splitlines()) == 1, said
        return said, None
    return " ".join(capsys.readouterr().err.split()), json.loads((home / "out.json").read_text())


@pytest.mark.parametrize("metric", BENCHMARKS)
def test_the_right_file_has_figures(home, metric, capsys):
    write(home / "responses", metric, [rows(metric, n) for n in NUMBERS])
    said, figures = evaluate(home, metric, capsys)
    assert (said, figures["n"], figures["n_missing"]) == ("", 4, 0)


PATHS = {
    "missing": lambda path: None,
    "other kind": lambda path: path.write_text("") if path.name == "mme" else path.mkdir(),
    "empty": lambda path: path.write_text(""),
    "empty lines": lambda path: path.write_text("\n \n"),
    "not JSON": lambda path: path.write_text("image,answer\n1,yes\n"),
    "broken off": lambda path: path.write_text('[{"id": 1, "answer"'),
    "other JSON": lambda path: path.write_text("[1, 2]"),
    "bytes": lambda path: path.write_bytes(b"\xff\xd8\xff\x00"),
}


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("metric", BENCHMARKS)
def test_what_is_no_file_of_responses_is_named_with_its_format(home, metric, kind, capsys):
    if metric == "mme" and kind not in ("missing", "other kind"):
        (home / "responses").mkdir()
        PATHS[kind](home / "responses" / "count.txt")
    else:
        PATHS[kind](home / "responses")
    said, figures = evaluate(home, metric, capsys)
    assert figures is None and "responses" in said
    assert BENCHMARKS[metric].responses in said, "the remedy is the format that is expected"


@pytest.mark.parametrize("metric", BENCHMARKS)
def test_a_row_without_its_answer_is_named(home, metric, capsys):
    responses = [rows(metric, n) for n in NUMBERS]
    for row in responses:
        del row[ANSWER_FIELD[metric]]
    write(home / "responses", metric, responses)
    said, figures = evaluate(home, metric, capsys)
    assert figures is None and ANSWER_FIELD[metric] in said
    assert (
        "`rlaifv judge` adds them" in said
        if BENCHMARKS[metric].judged
        else BENCHMARKS[metric].responses in said
    )


@pytest.mark.parametrize("metric", [name for name in BENCHMARKS if name != "mme"])
def test_an_answer_that_is_none_is_named(home, metric, capsys):
    responses = [rows(metric, n) for n in NUMBERS]
    responses[1][ANSWER_FIELD[metric]] = None
    write(home / "responses", metric, responses)
    said, figures = evaluate(home, metric, capsys)
    assert figures is None and "entry 1" in said and repr(ANSWER_FIELD[metric]) in said


@pytest.mark.parametrize("metric", KEY_FIELD)
def test_an_answer_to_an_unknown_item_is_named(home, metric, capsys):
    write(home / "responses", metric, [rows(metric, n) for n in (1, 9)])
    said, figures = evaluate(home, metric, capsys)
    assert figures is None and KEY_FIELD[metric] in said and "9" in said and "Remove the row" in said


@pytest.mark.parametrize("metric", KEY_FIELD)
def test_half_of_the_items_are_measured_and_the_others_counted(home, metric, capsys):
    write(home / "responses", metric, [rows(metric, n) for n in NUMBERS[:2]])
    said, figures = evaluate(home, metric, capsys)
    over_responses = metric in ("chair", "objhal")
    assert (figures["n"], figures["n_missing"]) == (2, 0 if over_responses else 2)
    assert over_responses or "2 of 4 items have no response" in said


@pytest.mark.parametrize("metric", BENCHMARKS)
def test_a_second_answer_to_one_item_is_named_or_counted(home, metric, capsys):
    write(home / "responses", metric, [rows(metric, n) for n in (1, 2, 2)])
    said, figures = evaluate(home, metric, capsys)
    if metric == "chair":  # Several captions of an image all count, and that is said.
        assert figures["n"] == 3 and "1 items have several responses" in said
    else:
        assert figures is None and "2" in said and "Remove one of them" in said


@pytest.mark.parametrize("rating", [-1, 7])
def test_a_rating_that_no_judge_gives_is_named(home, rating, capsys):
    write(home / "responses", "mmhal", [rows("mmhal", 1) | {"rating": rating}])
    said, figures = evaluate(home, "mmhal", capsys)
    assert figures is None and "'rating'" in said and str(rating) in said
