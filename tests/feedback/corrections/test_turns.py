"""Which turns of a corrective dialogue are kept, whoever wrote them."""

import pytest

from rlaifv_pl.feedback.corrections.dialogue_rules import CorrectionResult, TurnRule, polarity
from rlaifv_pl.records import Correction, Sample

SAMPLE = Sample(key="a", prompt="What do you see?", chosen="A cup.", rejected="A ring.")


def turns(*texts: str) -> list[Correction]:
    """`question|answer` each."""
    pairs = (text.split("|") for text in texts)
    return [Correction(question=question, answer=answer) for question, answer in pairs]


def questions(corrected: CorrectionResult) -> str:
    return " ".join(turn.question for turn in corrected.corrections)


@pytest.mark.parametrize(
    "written, kept, removed",
    [
        (["a?|Yes.", "b?|No."], "a? b?", {}),
        (["a?| ", " |No.", "c?|No."], "c?", {"empty": 2}),
        (["Is that a Mistake?|No.", "b?|Yes, by reference.", "c?|No."], "c?", {"leak": 2}),
        (["a?|Hallucinated.", "Unmistakenly?|Yes."], "Unmistakenly?", {"leak": 1}),
        (["is this in the rejected answer?|No.", "a?|Red."], "a?", {"leak": 1}),
        (["what do you SEE|A cup.", "a?|Red."], "a?", {"prompt": 1}),
        (["Is it red?|Yes.", "is  it red|No.", "a?|No."], "Is it red? a?", {"duplicate": 1}),
        (["a?|Yes.", "b?|yes", "c?|YES!"], "a?", {"surplus": 2}),
        (["a?|Yes.", "b?|No.", "c?|Yes, red.", "d?|Yes.", "e?|Red."], "a? b? c? e?", {"surplus": 1}),
        (["a?|No.", "b?|Two.", "c?|No.", "d?|No."], "a? b?", {"surplus": 2}),
        (
            ["a?|No.", "b?|Yes.", "c?|No.", "d?|Yes.", "e?|Red.", "f?|Blue."],
            "a? b? c? d? e?",
            {"too_many": 1},
        ),
        (["a?|Yesterday.", "b?|Nothing.", "c?|Not it."], "a? b? c?", {}),
    ],
)
def test_what_does_not_hold_is_removed_and_counted(written, kept, removed):
    corrected = TurnRule().check(turns(*written), SAMPLE)
    assert (questions(corrected), corrected.removed, corrected.drop) == (kept, removed, None)


def test_where_nothing_is_left_the_sample_is_dropped_by_name():
    assert TurnRule().check([], SAMPLE) == CorrectionResult(drop="no_turns")
    assert TurnRule().check(turns("a mistake?|No."), SAMPLE) == CorrectionResult(
        drop="no_turns", removed={"leak": 1}
    )


def test_each_question_of_an_earlier_turn_counts_as_asked():
    image = {"type": "image"}
    prompt = [
        {"role": "user", "content": [image, {"type": "text", "text": "Is it day?"}]},
        {"role": "assistant", "content": "Is it red?"},
        {"role": "user", "content": "Why?"},
    ]
    sample = Sample(key="a", prompt=prompt, images=(b"x",), chosen="b", rejected="c")
    corrected = TurnRule().check(turns("Is it day?|Yes.", "why|No.", "Is it red?|No."), sample)
    assert (questions(corrected), corrected.removed) == ("Is it red?", {"prompt": 2})


def test_balance_length_and_leaks_can_be_set():
    three = turns("a?|Yes.", "b?|Yes.", "a mistake?|Yes.")
    assert questions(TurnRule(balanced=False, leaks=()).check(three, SAMPLE)) == "a? b? a mistake?"
    assert questions(TurnRule(balanced=False, turns=2, leaks=("B",)).check(three, SAMPLE)) == "a? a mistake?"
    with pytest.raises(ValueError, match="turns is 1"):
        TurnRule(turns=1)


def test_the_first_word_alone_tells_yes_from_no():
    answers = ["No, it is red.", "'no'", "Know nothing.", "yes", "Yes-man", ""]
    assert [polarity(answer) for answer in answers] == ["no", None, None, "yes", None, None]
