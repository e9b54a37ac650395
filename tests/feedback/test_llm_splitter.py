"""Divide by a model: what it quotes must be in the answer, and what is left out is counted."""

import json
from collections import Counter

import pytest

from rlaifv_pl.feedback.claims.llm_splitter import (
    LONGEST_FUZZY,
    LLMSplitter,
    QuotedClaim,
    SplitResult,
    locate,
)
from rlaifv_pl.feedback.claims.splitter import PromptedAnswer, Undivided

TEXT = "A brown dog runs\nover the  grass. There is no cat."


class Scripted:
    """Gives prepared forms and keeps what it was asked."""

    identity = "scripted"

    def __init__(self, *forms):
        self.forms, self.requests = forms, []

    def fill(self, requests, form):
        assert form is SplitResult
        self.requests += requests
        return list(self.forms)


def division(*rows: tuple[str, str, str]) -> SplitResult:
    return SplitResult(
        claims=[QuotedClaim(quote=quote, claim=claim, question=question) for quote, claim, question in rows]
    )


def split(form, text: str = TEXT) -> tuple[list, dict]:
    (claims,) = LLMSplitter(engine=Scripted(form)).split([PromptedAnswer("What do you see?", text)])
    return claims, dict(Counter(claims.dropped))


def test_claims_are_tied_to_what_they_quote():
    claims, dropped = split(
        division(
            ("A brown dog runs", "A brown dog runs.", "Does a brown dog run?"),
            ("OVER the grass", "The dog is on grass.", "Is the dog on grass?"),
            ("There isno cat", "There is no cat.", "Is it true that there is no cat?"),
        )
    )
    assert [TEXT[start:end] for claim in claims for start, end in claim.spans] == [
        "A brown dog runs", "over the  grass", "There is no cat",
    ]  # fmt: skip
    assert [claim.question for claim in claims][2] == "Is it true that there is no cat?"
    assert not dropped


def test_what_cannot_be_used_is_left_out_and_counted():
    good = ("A brown dog", "There is a brown dog.", "Is there a brown dog?")
    claims, dropped = split(
        division(
            good,
            ("two purple elephants", "There are elephants.", "Are there elephants?"),
            ("A brown dog", "  ", "Is there a dog?"),
            ("A brown dog", "There is a dog.", "There is a dog"),
            ("", "There is a dog.", "Is there a dog?"),
            good,
        )
    )
    assert [claim.text for claim in claims] == ["There is a brown dog."]
    assert dropped == {"misquoted": 2, "incomplete": 1, "no_question": 1}


def test_an_answer_that_could_not_be_divided_tells_why_and_an_empty_one_is_empty():
    assert split(None) == (Undivided("no_form"), {})
    assert split(division()) == ([], {})
    assert split(division(("a zebra", "A.", "A?"))) == (
        Undivided("misquoted", ("misquoted",)),
        {"misquoted": 1},
    )


def test_each_answer_gets_its_own_form_and_a_missing_form_is_an_error():
    forms = [division((word, f"{word}.", f"{word}?")) for word in ("one", "two")]
    engine = Scripted(*forms)
    answered = [PromptedAnswer("Count.", "one {x}"), PromptedAnswer("Again.", "two")]
    assert [claims[0].text for claims in LLMSplitter(engine=engine).split(answered)] == ["one.", "two."]
    assert "Count." in engine.requests[0].text and "one {x}" in engine.requests[0].text
    assert len({request.where for request in engine.requests}) == 2
    with pytest.raises(ValueError, match="zip"):
        LLMSplitter(engine=Scripted(forms[0])).split(answered)


def test_a_quote_is_found_only_if_enough_of_it_matches():
    assert locate("abc defg hij", "defg", 1.0) == (4, 8)
    assert locate("A red buss is here", "a red bus is here", 0.9) == (0, 18)
    assert locate("A red buss is here", "a red bux is here", 1.0) is None
    assert locate("x" * 50 + "the end", "end of the story", 0.8) is None
    assert locate("a" * (LONGEST_FUZZY + 1), "ab", 0.5) is None


def test_the_recipe_names_model_prompt_and_threshold():
    recipe = LLMSplitter(engine=Scripted(), threshold=0.9).recipe()
    assert json.loads(json.dumps(recipe)) == recipe
    assert (recipe["model"], recipe["threshold"]) == ("scripted", 0.9) and len(recipe["prompt"]) == 16
    with pytest.raises(ValueError, match="threshold"):
        LLMSplitter(engine=Scripted(), threshold=0)
