"""Answers that are kept of each measurement: how many, which images, which bytes."""

import hashlib

import pytest

from rlaifv_pl.records import Answer, Sample
from rlaifv_pl.rounds.answers import KEPT_ANSWERS, answers_path, keep_answers, read_answers
from tests.report.made import image


def answers(many: int, text: str = "a cat.") -> list[Answer]:
    """The images repeat after three."""
    return [
        Answer(
            prompt=Sample(key=f"k{number}", prompt="what?", images=(image(number % 3),)),
            text=f"{text} {number}",
            mentions=((0, 5, number % 2 == 0),),
        )
        for number in range(many)
    ]


def test_the_first_answers_are_kept_and_each_image_once(tmp_path):
    keep_answers(tmp_path, 0, answers(KEPT_ANSWERS + 5))
    rows = list(read_answers(tmp_path, 0))
    assert [row["key"] for row, _ in rows] == [f"k{number}" for number in range(60)]
    assert [row["completion"] for row, _ in rows[:2]] == ["a cat. 0", "a cat. 1"]
    assert [row["mentions"] for row, _ in rows[:2]] == [[(0, 5, True)], [(0, 5, False)]]
    assert [images for _, images in rows[:4]] == [(image(number % 3),) for number in range(4)]
    names = {path.name for path in (tmp_path / "answers" / "images").iterdir()}
    assert names == {hashlib.sha256(image(number)).hexdigest() for number in range(3)}


def test_measured_again_they_are_the_same_bytes_and_other_answers_replace_them(tmp_path):
    keep_answers(tmp_path, 1, answers(3))
    before = answers_path(tmp_path, 1).read_bytes()
    keep_answers(tmp_path, 1, answers(3))
    assert answers_path(tmp_path, 1).read_bytes() == before
    keep_answers(tmp_path, 1, answers(2, "a dog."))
    assert [row["completion"] for row, _ in read_answers(tmp_path, 1)] == ["a dog. 0", "a dog. 1"]


def test_an_evaluator_need_not_answer_and_earlier_runs_have_none(tmp_path):
    assert list(read_answers(tmp_path, 0)) == []
    keep_answers(tmp_path, 0, [])
    assert list(read_answers(tmp_path, 0)) == []


@pytest.mark.parametrize(
    "text", ["{", "{}", "[]", '{"key": "a", "prompt": "", "completion": "", "mentions": 3}']
)
def test_a_damaged_file_is_no_answer(tmp_path, text):
    keep_answers(tmp_path, 0, [])
    answers_path(tmp_path, 0).write_text(text)
    with pytest.raises(ValueError, match=r"not an answer|Expecting"):
        list(read_answers(tmp_path, 0))
