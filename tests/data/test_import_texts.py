"""Texts that rows bring along with markup of chat templates: mended where there is one meaning, else named."""

import pytest

from rlaifv_pl.data.importers.messages import split_tags
from rlaifv_pl.data.manifest import read_manifest
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
