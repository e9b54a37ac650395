"""Texts that rows bring along with markup of chat templates: mended where there is one meaning, else named."""

import csv
import io
import json

import pytest

from rlaifv_pl.cli.commands import main
from rlaifv_pl.data.importers.messages import split_tags
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.data.shards import load_shards
from tests.data.rows import PAIR, dropped, imported


def test_end_tokens_of_answers_are_taken_away_and_counted(tmp_path):
    rows = [
        PAIR | {"chosen": "A red square.</s>", "rejected": "A blue dog. <|im_end|>\n"},
        PAIR | {"chosen": "A red square.", "rejected": "A blue dog."},
    ]
    first, second = imported(tmp_path, rows)
    assert (
        (first.chosen, first.rejected) == (second.chosen, second.rejected) == ("A red square.", "A blue dog.")
    )
    assert read_manifest(tmp_path / "out").notes["end_tokens_removed"] == 1


@pytest.mark.parametrize(
    ("row", "reason", "named"),
    [
        (PAIR | {"prompt": "USER: What is it? ASSISTANT:"}, "rendered_prompt", "USER: ... ASSISTANT:"),
        (PAIR | {"prompt": "<|im_start|>user\nWhat?<|im_end|>"}, "rendered_prompt", "<|im_start|>"),
        (PAIR | {"chosen": "A <image> here."}, "special_token", "chosen holds '<image>'"),
        (PAIR | {"rejected": "A dog.<|im_end|> A cat."}, "special_token", "rejected holds '<|im_end|>'"),
        (PAIR | {"prompt": "Is <pad> there?"}, "special_token", "turn 0 (user) holds '<pad>'"),
        (PAIR | {"chosen": "</s>"}, "empty_answer", "chosen is ''"),
        (PAIR | {"chosen": "Six.</s>", "rejected": "Six."}, "equal_answers", "chosen and rejected are both"),
    ],
)
def test_other_markup_is_named(tmp_path, row, reason, named):
    assert len(imported(tmp_path, [row, PAIR])) == 1
    (found,) = dropped(tmp_path)
    assert found["reason"] == reason and named in found["detail"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Is <image> the same place as <image>?", ["Is ", None, " the same place as ", None, "?"]),
        ("A: <image>\nB: <image>\nWhich?", ["A: ", None, "\nB: ", None, "\nWhich?"]),
        ("a <image> <image> b", ["a ", None, " ", None, " b"]),
        ("What is this: <image>", ["What is this: ", None]),
        ("<image>\nWhat?", [None, "What?"]),
        ("<image>\n<image>\nCompare.", [None, None, "Compare."]),
        ("What is it?\n<image>", ["What is it?", None]),
    ],
)
def test_blanks_beside_tags_stay_but_for_the_separators_at_the_ends(text, pieces):
    assert [block.get("text") for block in split_tags(text)] == pieces


def as_json(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_escaped_json(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_table(rows):
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def run_import(tmp_path, text, name="rows.jsonl", encoding="utf-8"):
    (tmp_path / name).write_bytes(text.encode(encoding, "surrogatepass"))
    main(["shards", "import", str(tmp_path / name), str(tmp_path / "out")])
    main(["shards", "show", str(tmp_path / "out"), "--out", str(tmp_path / "sheet.png")])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("name", "write"), [
    ("rows.jsonl", as_json), ("rows.jsonl", as_escaped_json), ("rows.csv", as_table),
], ids=["JSON", "escaped JSON", "CSV"])  # fmt: skip
@pytest.mark.parametrize("text", [
    "a\0b", "\ufeffa", "\u202e\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627", "\U0001f600",
    "\x1b[31mred", "a\u2028b\x85c",
], ids=["NUL", "byte order mark", "right to left", "beyond 16 bits", "terminal control", "line ends"])  # fmt: skip
def test_odd_texts_come_through_the_command_line_as_they_are(tmp_path, text, name, write, encoding):
    row = {"prompt": f"Is it {text}?", "chosen": f"Yes, {text}.", "rejected": "No."}
    run_import(tmp_path, write([row]), name, encoding)
    (sample,) = load_shards(tmp_path / "out")
    assert (sample.prompt, sample.chosen) == (row["prompt"], row["chosen"])
    assert (tmp_path / "sheet.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("write", "reason", "named"),
    [
        (as_escaped_json, "wrong_type", "chosen holds '\\ud800', half of a surrogate pair"),
        (as_json, "invalid_json", "line 1: the bytes of half a character"),
    ],
)
def test_half_a_character_in_a_text_is_refused_by_name(tmp_path, write, reason, named):
    run_import(tmp_path, write([PAIR | {"chosen": "a\ud800b"}, PAIR]))
    assert len(load_shards(tmp_path / "out")) == 1
    (record,) = dropped(tmp_path)
    assert (record["row"], record["reason"]) == (0, reason) and named in record["detail"]


def test_half_a_character_in_a_table_is_refused_by_its_line(tmp_path):
    with pytest.raises(SystemExit, match=r"rows\.csv, line 2: the bytes of half a character"):
        run_import(tmp_path, as_table([PAIR | {"chosen": "a\ud800b"}]), "rows.csv")


def test_half_a_character_beside_the_texts_costs_no_row(tmp_path, capsys):
    answer = {"role": "assistant", "content": "So.", "\udc00": 1}
    dialogue = {"messages": [{"role": "user", "content": "How?"}, answer]}
    run_import(
        tmp_path, as_escaped_json([PAIR | {"id": "a\ud800", "x\ud800\0y": 1, "\x1b[31m": 2}, dialogue])
    )
    assert load_shards(tmp_path / "out")[0].provenance["id"] == "a\\ud800"
    left = read_manifest(tmp_path / "out").notes["columns_not_read"]
    assert left == {"\\x1b[31m": 1, "messages[].\\udc00": 1, "x\\ud800\\x00y": 1}
    assert "\x1b[31m" not in capsys.readouterr().out


def test_a_column_is_read_whatever_marks_stand_around_its_name_and_named_as_messages_write_it(tmp_path):
    row = {"\ufeff prompt ": "How many?", "go\0od": "Two.", "rejected": "Six."}
    (sample,) = imported(tmp_path, [row], keys=r"chosen=go\x00od")
    assert (sample.prompt, sample.chosen) == ("How many?", "Two.")
