"""`rlaifv evaluate` and `rlaifv pope` as commands."""

import json

import pytest

from rlaifv_pl.cli.commands import main


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "G.json").write_text('{"1": ["dog"], "2": ["cat", "bus"]}')
    (tmp_path / "R.jsonl").write_text(
        '{"image_id": 1, "caption": "A dog and a cat."}\n{"image_id": 2, "caption": "A cat."}\n'
    )
    return tmp_path


def test_chair_from_the_command_line(home, capsys):
    main(
        [
            "evaluate",
            "--metric",
            "chair",
            "--variant",
            "A",
            "--responses",
            "R.jsonl",
            "--ground_truth",
            "G.json",
            "--out",
            "out/O.json",
        ]
    )
    report = json.loads((home / "out" / "O.json").read_text())
    assert (report["metric"], report["variant"], report["name"]) == ("chair", "A", "chair_A")
    assert (report["CHAIRs"], report["CHAIRi"], report["Recall"]) == (
        50,
        pytest.approx(100 / 3),
        pytest.approx(200 / 3),
    )
    assert (report["n"], report["n_mentions"], report["words"]) == (2, 3, 3.5)
    shown = capsys.readouterr().out
    assert "chair_A" in shown and "33.33" in shown
    assert [path.name for path in (home / "out").iterdir()] == ["O.json"]


def test_pope_is_made_answered_and_measured(home, capsys):
    main(["pope", "G.json", "questions.json", "--strategy", "popular", "--per_side", "1"])
    assert "4 questions about 2 images" in capsys.readouterr().out
    rows = [json.loads(line) for line in (home / "questions.json").read_text().splitlines()]
    answers = [json.dumps({"question": row["text"], "answer": "Yes."}) for row in rows]
    (home / "answers.jsonl").write_text("\n".join(answers))
    main(
        [
            "evaluate",
            "--metric",
            "pope",
            "--responses",
            "answers.jsonl",
            "--ground_truth",
            "questions.json",
            "--out",
            "O.json",
        ]
    )
    report = json.loads((home / "O.json").read_text())
    assert (report["accuracy"], report["recall"], report["yes_ratio"], report["n"]) == (50, 100, 100, 4)


def test_images_with_too_few_objects_are_refused(home):
    with pytest.raises(SystemExit, match="none of 2 images has 3 objects"):
        main(["pope", "G.json", "questions.json"])
    assert not (home / "questions.json").exists()


def test_what_is_not_defined_is_null_in_json(home, capsys):
    (home / "R.jsonl").write_text('{"image_id": 1, "caption": "Nothing."}')
    main(
        [
            "evaluate",
            "--metric",
            "chair",
            "--variant",
            "C",
            "--responses",
            "R.jsonl",
            "--ground_truth",
            "G.json",
            "--out",
            "O.json",
        ]
    )
    report = json.loads((home / "O.json").read_text())
    assert report["CHAIRi"] is None and report["CHAIRs"] == 0 and report["n_mentions"] == 0
    assert "undefined" in capsys.readouterr().out


MISTAKES = {
    "--metric chair --responses R.jsonl --ground_truth G.json": "give --variant",
    "--metric chair --variant A --responses R.jsonl": "give --ground_truth",
    "--metric pope --variant A --responses R.jsonl --ground_truth G.json": "leave --variant out",
    "--metric pope --similarity s --responses R.jsonl --ground_truth G.json": "leave --similarity out",
    "--metric mmhal --responses R.jsonl --ground_truth G.json": "leave --ground_truth out",
    "--metric chair --variant A --responses none --ground_truth G.json": "none cannot be read",
    "--metric chair --variant A --responses R.jsonl --ground_truth R.jsonl": "R.jsonl, line 2: expected JSON",
    "--metric chair --variant B --responses R.jsonl --ground_truth G.json": "variant",
    "--metric chiar --responses R.jsonl": "chair",
}


@pytest.mark.parametrize("options", MISTAKES)
def test_a_mistake_is_one_message(home, options, capsys):
    with pytest.raises(SystemExit) as left:
        main(["evaluate", *options.split(), "--out", "O.json"])
    said = str(left.value) + capsys.readouterr().err
    assert MISTAKES[options] in said and "Traceback" not in said and not (home / "O.json").exists()
