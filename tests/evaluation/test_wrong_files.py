"""Files that are taken for those of a benchmark: read where there is one meaning, else named in a line that helps."""

import json

import pytest

from rlaifv_pl.cli.commands import main

CHAIR = ["evaluate", "--metric", "chair", "--variant", "A", "--ground_truth", "objects.json", "--responses"]
ROW = {"image_id": 1, "caption": "a cat"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "objects.json").write_text(json.dumps({"1.jpg": ["cat"], "2.jpg": ["dog"]}))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("<!DOCTYPE html><html></html>", "responses, line 1.*web page"),
        ("image,answer\n1,a cat\n", "responses, line 1.*'image,answer'.*JSON object for each row"),
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS.*git lfs pull"),
        (json.dumps({"id": 1, "text": "a cat"}), "line 1.*'image_id'.*'id', 'text'.*{image_id, caption}"),
        (json.dumps(ROW | {"image_id": 99}), "line 1.*'image_id'.*'99'"),
        ("", "empty file"),
    ],
)
def test_what_is_no_file_of_responses_is_named(home, text, named):
    (home / "responses").write_text(text)
    with pytest.raises(SystemExit, match=named):
        main([*CHAIR, "responses"])


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(ROW).encode("utf-16"),
        json.dumps(ROW).encode("utf-8-sig"),
        json.dumps(ROW, indent=2).encode(),
        json.dumps([ROW], indent=2).encode(),
    ],
)
def test_what_has_one_meaning_is_read(home, data):
    (home / "responses").write_bytes(data)
    main([*CHAIR, "responses", "--out", "out.json"])
    report = json.loads((home / "out.json").read_text())
    assert (report["n"], report["n_mentions"], report["CHAIRi"]) == (1, 1, 0)


def test_keys_of_counts_are_the_objects_of_an_image(home, capsys):
    counted = {"1.jpg": {"counts": {"cat": 2}, "boxes": [[0, 0, 1, 1]]}, "2.jpg": {"counts": {"dog": 1}}}
    (home / "objects.json").write_text(json.dumps(counted))
    (home / "responses").write_text(json.dumps(ROW | {"caption": "a cat and a dog"}))
    main([*CHAIR, "responses", "--out", "out.json"])
    assert json.loads((home / "out.json").read_text())["CHAIRi"] == 50
    main(["pope", "objects.json", "questions.jsonl", "--per_side", "1"])
    assert "4 questions about 2 images" in capsys.readouterr().out
    (home / "objects.json").write_text(json.dumps({"1.jpg": {"boxes": []}}))
    for command in ([*CHAIR, "responses"], ["pope", "objects.json", "questions.jsonl"]):
        with pytest.raises(SystemExit, match=r"1.jpg.*list.*counts"):
            main(command)


def test_images_that_pope_cannot_ask_about_are_counted(home, capsys):
    names = ["cat", "dog", "bus", "cup"]
    there = {f"{number}.jpg": names[:2] if number < 3 else names[3:] for number in range(7)}
    (home / "objects.json").write_text(json.dumps(there))
    main(["pope", "objects.json", "questions.jsonl", "--per_side", "1"])
    assert "left out" not in capsys.readouterr().out
    (home / "objects.json").write_text(json.dumps(there | {"8.jpg": names[2:]}))
    main(["pope", "objects.json", "questions.jsonl", "--per_side", "2"])
    said = " ".join(capsys.readouterr().out.split())
    assert "16 questions about 4 images" in said and "4 of 8 images" in said and "--per_side" in said


def test_an_image_with_all_objects_is_left_out_and_counted(home, capsys):
    there = {"1.jpg": ["cat", "dog", "bus"], "2.jpg": ["cat"], "3.jpg": ["dog"], "4.jpg": []}
    (home / "objects.json").write_text(json.dumps(there))
    main(["pope", "objects.json", "questions.jsonl", "--per_side", "1"])
    said = " ".join(capsys.readouterr().out.split())
    assert "4 questions about 2 images" in said and "1 of 4 images have nearly all objects" in said
    assert "1 of 4 images have fewer than 1" in said
    questions = [json.loads(line) for line in (home / "questions.jsonl").read_text().splitlines()]
    assert {question["image"] for question in questions} == {"2.jpg", "3.jpg"}


def test_items_without_a_response_and_with_several_are_named(home, capsys):
    (home / "responses").write_text(
        "".join(json.dumps(row) + "\n" for row in (ROW, ROW | {"caption": "a dog"}))
    )
    main([*CHAIR, "responses", "--out", "out.json"])
    assert json.loads((home / "out.json").read_text())["n"] == 2
    assert "1 items have several responses" in capsys.readouterr().err
    main(["pope", "objects.json", "questions.jsonl", "--per_side", "1"])
    questions = [json.loads(line) for line in (home / "questions.jsonl").read_text().splitlines()]
    (home / "answers").write_text(
        json.dumps({"question_id": 1, "question": questions[0]["text"], "answer": "yes"})
    )
    main(["evaluate", "--metric", "pope", "--ground_truth", "questions.jsonl", "--responses", "answers"])
    said = " ".join(capsys.readouterr().err.split())
    assert f"{len(questions) - 1} of {len(questions)} items have no response" in said
