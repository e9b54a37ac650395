"""Nothing that a row holds is dropped in silence: it is read, refused by name, or listed by the table of the import."""

import json
import re

import pytest

from rlaifv_pl.cli.commands import main
from rlaifv_pl.data.importers.importer import import_shards
from rlaifv_pl.data.importers.sources import SourceError
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.data.shards import load_shards
from tests.data.rows import PAIR, assistant, dropped, imported
from tests.data.samples import picture

PHOTO, OTHER = picture(), picture(colour=200)
ASKED = {"role": "user", "content": "How many?"}
TWO = assistant("Two.")
EARLIER = [{"role": "user", "content": "A?"}, assistant("B.")]


@pytest.fixture(autouse=True)
def photos(tmp_path):
    (tmp_path / "1.jpg").write_bytes(PHOTO)
    (tmp_path / "2.jpg").write_bytes(OTHER)


HISTORIES = {
    "pairs": [["A?", "B."]],
    "messages": EARLIER,
    "sharegpt": [{"from": "human", "value": "A?"}, {"from": "gpt", "value": "B."}],
    "objects": [{"user": "A?", "assistant": "B."}],
    "objects of questions": [{"question": "A?", "answer": "B."}],
    "JSON": '[["A?", "B."]]',
}
ROWS = {
    "query": {"query": "How many?", "response": "Two."},
    "query and pair": {"query": "How many?", "response": "Two.", "rejected_response": "Six."},
    "alpaca": {"instruction": "How many?", "output": "Two."},
    "TRL": PAIR,
    "RLAIF-V": {"question": "How many?", "chosen": "Two.", "rejected": "Six."},
    "messages": {"messages": [ASKED, TWO]},
    "llava": {"conversations": [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": "Two."}]},
    "ranks": {"context": [ASKED], "completions": [{"rank": 1, "completion": "A"}, {"rank": 2, "completion": "B"}]},
}  # fmt: skip


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_earlier_turns_of_any_format_are_context(tmp_path, row, history):
    (sample,) = imported(tmp_path, [row | {"history": history, "system": "Count."}], on_bad="raise")
    assert sample.prompt == [{"role": "system", "content": "Count."}, *EARLIER, ASKED]
    assert (sample.completion or sample.chosen) in ("Two.", "A")


@pytest.mark.parametrize("history", [[["A?"]], ["A?", "B."], [["A?", 1]], {"A?": "B."}, [{"user": "A?"}]])
def test_a_history_of_no_known_shape_is_named(tmp_path, history):
    assert len(imported(tmp_path, [PAIR, PAIR | {"history": history}])) == 1
    assert dropped(tmp_path)[0]["detail"].startswith("history: expected")


@pytest.mark.parametrize("row", [ROWS["query"], ROWS["query and pair"], ROWS["messages"], ROWS["llava"]])
def test_a_path_in_a_text_is_an_image(tmp_path, row):
    row = json.loads(json.dumps(row).replace("How many?", "<img>1.jpg</img>How many?"))
    (sample,) = imported(tmp_path, [row], on_bad="raise")
    assert (sample.prompt, sample.images) == ("How many?", (PHOTO,))


def test_images_of_texts_and_of_a_column_stand_in_their_order(tmp_path):
    block = {"type": "text", "text": "<img>2.jpg</img>How many?"}
    rows = [
        {"query": "<image> or <img>2.jpg</img>?", "response": "This.", "image": "1.jpg"},
        {"query": "<img>2.jpg</img> or <image>?", "response": "This.", "image": "1.jpg"},
        {"query": "Picture 1: <img>2.jpg</img>\nPicture 2: <img>1.jpg</img>\nWhich?", "response": "This."},
        {"query": "<img>2.jpg</img>Which?", "response": "This.", "image": "2.jpg"},
        {"messages": [{"role": "user", "content": [block]}, TWO]},
    ]
    samples = [
        sample
        for number, row in enumerate(rows)
        for sample in imported(_made(tmp_path / f"{number}"), [row], images_root=tmp_path, on_bad="raise")
    ]
    assert [sample.images for sample in samples] == [
        (PHOTO, OTHER), (OTHER, PHOTO), (OTHER, PHOTO), (OTHER,), (OTHER,)
    ]  # fmt: skip
    kinds = [[block["type"] for block in sample.prompt[0]["content"]] for sample in samples[:3]]
    assert kinds == [
        ["image", "text", "image", "text"],
        ["image", "text", "image", "text"],
        ["text", "image"] * 2 + ["text"],
    ]


def _made(path):
    path.mkdir()
    return path


TOOLS = [{"name": "count"}]
CALL = {"id": "1", "function": {"name": "count"}}
REFUSED = {
    "tools": PAIR | {"tools": TOOLS},
    "context": {"instruction": "How many?", "context": "In the photo.", "response": "Two."},
    "input": PAIR | {"input": "In the photo."},
    "prompt": {"messages": [ASKED, TWO], "prompt": "Which?"},
    "messages[].tool_calls": {"messages": [ASKED, TWO | {"tool_calls": [CALL]}]},
    "objects": {"messages": [{"role": "user", "content": "What is <bbox>?"}, TWO], "objects": {"bbox": [[1, 2, 3, 4]]}},
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_column_without_which_the_row_says_something_else_is_refused(tmp_path, name):
    with pytest.raises(SourceError, match="unread_column 1"):
        imported(tmp_path, [REFUSED[name]])
    (record,) = dropped(tmp_path)
    assert record["reason"] == "unread_column"
    assert record["detail"].startswith(f"{name} is not read")
    assert "--ignore" in record["remedy"]


def test_a_column_is_left_behind_knowingly(tmp_path):
    assert (
        len(imported(tmp_path, [PAIR | {"tools": TOOLS, "videos": ["1.mp4"]}], ignore="tools, videos")) == 1
    )
    (tmp_path / "other").mkdir()
    with pytest.raises(SourceError, match=r"--ignore names the columns \['tool'\]"):
        imported(tmp_path / "other", [PAIR | {"tools": TOOLS}], ignore="tool")


@pytest.mark.parametrize(
    ("row", "left"),
    [
        (PAIR | {"margin": 0.5, "difficulty": 3, "note": "", "tags": []}, {"margin": 1, "difficulty": 1}),
        ({"messages": [ASKED, TWO | {"loss": False}], "channel": "c"}, {"messages[].loss": 1, "channel": 1}),
        (PAIR | {"label": False}, {"label": 1}),
        ({"messages": [ASKED, TWO], "prompt": " How many?"}, {"prompt": 1}),
        (PAIR | {"messages": [ASKED, TWO], "prompt_id": "7"}, {"messages": 1, "prompt_id": 1}),
        ({"problem": "How many?", "answer": "2", "chosen": "Two.", "rejected": "Six."}, {"answer": 1}),
    ],
)
def test_any_other_column_is_listed(tmp_path, row, left):
    assert len(imported(tmp_path, [row], on_bad="raise")) == 1
    assert read_manifest(tmp_path / "out").notes["columns_not_read"] == left


def test_the_table_names_the_format_and_what_was_not_read(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(PAIR | {"difficulty": 3}))
    main(["shards", "import", str(path), str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "format" in printed and "trl" in printed
    assert "columns not read" in printed and "difficulty (1)" in printed


SPELT = {
    "all": ({"promt": "Q?", "choosen": "A", "rejectd": "B"}, "--keys chosen=choosen,prompt=promt,rejected=rejectd"),
    "both answers": ({"prompt": "Q?", "choosen": "A", "rejectd": "B"}, "--keys chosen=choosen,rejected=rejectd"),
    "the question": ({"quesiton": "Q?", "chosen": "Q? A", "rejected": "Q? B"}, "--keys question=quesiton"),
    "the image": (PAIR | {"imgae": "1.jpg"}, "--keys image=imgae"),
    "the history": (PAIR | {"histroy": [["A?", "B."]]}, "--keys history=histroy"),
    "the mark": ({"prompt": "Q?", "completion": "A", "lable": True}, "--keys label=lable"),
    "case": ({"Prompt": "Q?", "Chosen": "A", "Rejected": "B"}, "--keys chosen=Chosen,prompt=Prompt,rejected=Rejected"),
    "dashes": ({"query": "Q?", "response": "A", "rejected-response": "B"}, "rejected_response=rejected-response"),
    "blanks": ({"query": "Q?", "response": "A", "Rejected Response": "B"}, "--keys 'rejected_response=Rejected Resp"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELT)
def test_a_near_miss_of_a_column_ends_with_the_option_that_mends_it(tmp_path, name):
    row, option = SPELT[name]
    with pytest.raises(SourceError) as raised:
        imported(tmp_path, [row])
    assert option in str(raised.value)
    keys = re.search(r"--keys ('.*?'|\S+?)(,? or | )", str(raised.value))[1].strip("',")
    assert len(imported(tmp_path, [row], keys=keys, on_bad="raise")) == 1


def test_blanks_around_a_columns_name_are_no_part_of_it(tmp_path):
    (sample,) = imported(tmp_path, [{" prompt": "Q?", "chosen ": "A", "rejected": "B"}], on_bad="raise")
    assert (sample.prompt, sample.chosen) == ("Q?", "A")


@pytest.mark.parametrize(
    "extra", ["prompt_id", "answers", "chosen_model", "content", "reason", "image_2", "score"]
)
def test_other_columns_are_no_near_misses(tmp_path, extra):
    assert len(imported(tmp_path, [PAIR | {extra: "x"}], on_bad="raise")) == 1


def test_a_later_row_with_a_near_miss_is_dropped_by_name(tmp_path):
    odd = {"prompt": "Q?", "choosen": "A", "rejectd": "B"}
    assert len(imported(tmp_path, [PAIR] * 16 + [odd])) == 16
    (record,) = dropped(tmp_path)
    assert (record["row"], record["reason"]) == (16, "unread_column")
    assert "'choosen' looks like 'chosen'" in record["detail"]


def test_scores_that_contradict_a_pair_are_counted(tmp_path):
    rows = [
        PAIR | {"score_chosen": 1, "score_rejected": 2},
        PAIR | {"chosen-rating": 4.5, "rejected-rating": 4},
        PAIR | {"margin": -1},
    ]
    assert len(imported(tmp_path, rows, on_bad="raise")) == 3
    assert read_manifest(tmp_path / "out").notes["rejected_scored_higher"] == 2


def test_ha_dpos_rows_that_were_right_are_left_out(tmp_path):
    rows = [
        {
            "image_id": "1",
            "question": "A cat?",
            "chosen": "No.",
            "reject": "Yes.",
            "answer": "no",
            "correct": mark,
        }
        for mark in (True, False, None)
    ]
    assert len(imported(tmp_path, rows)) == 2
    assert [(record["row"], record["reason"]) for record in dropped(tmp_path)] == [(0, "right_already")]


def test_a_pair_with_nothing_in_it_is_no_prompt(tmp_path):
    rows = [PAIR, PAIR | {"chosen": None, "rejected": None}, {"prompt": "Only asked?"}]
    assert [sample.prompt for sample in imported(tmp_path, rows)] == ["How many?", "Only asked?"]
    assert dropped(tmp_path)[0]["reason"] == "missing_answer"


def test_two_formats_in_one_import_are_both_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(PAIR))
    (tmp_path / "b.jsonl").write_text(json.dumps(ROWS["query"]))
    import_shards([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "out")
    assert read_manifest(tmp_path / "out").notes["formats"] == {"trl": 1, "plain": 1}
    assert len(load_shards(tmp_path / "out")) == 2
