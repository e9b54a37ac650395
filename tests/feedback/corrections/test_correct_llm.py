"""Corrections by a model, which here is a script: what it says is checked and counted."""

import re
from collections.abc import Sequence

import pytest
from jsonargparse import auto_cli

from rlaifv_pl.cli.correct import correct
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.corrections.codebook import Codebook
from rlaifv_pl.feedback.corrections.dialogue_rules import CorrectionResult, TurnRule
from rlaifv_pl.feedback.corrections.llm_corrector import (
    DiagnosisAndScript,
    DialogueDraft,
    LLMCorrector,
    LLMDiagnosis,
)
from rlaifv_pl.feedback.engines.engine import Completion, Form, Request, Sampling
from rlaifv_pl.records import Correction, Sample
from tests.feedback.dialogues import write

SAMPLE = Sample(
    key="a",
    prompt="Describe {it}.",
    chosen="A red cup stands beside two plates.",
    rejected="There is a Blue  cup, and a spoon.",
)
BLUE = {"words": "a blue cup", "code": "attr.color", "truth": "It is red."}
SPOON = {"words": "spoon", "code": "obj.absent", "truth": "There are a cup and plates."}
PLATES = {"words": "two plates", "code": "obj.missed", "truth": "Two plates are beside it."}
TURNS = [
    {"question": "Is the cup blue?", "answer": "No, it is red.", "codes": ["attr.color"]},
    {"question": "Are there plates?", "answer": "Yes, two.", "codes": ["obj.missed"]},
]


class ScriptedEngine:
    """Answers each form with what was written down for it."""

    def __init__(self, answers: dict[str, list[dict | None]] | None = None) -> None:
        self.answers = answers or {}
        self.requests: list[Request] = []

    @property
    def identity(self) -> str:
        return "script"

    def sample(
        self, samples: Sequence[Sample], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        raise NotImplementedError

    def choose(self, requests: Sequence[Request], words: Sequence[str]) -> list[list[float]]:
        raise NotImplementedError

    def fill(self, requests: Sequence[Request], form: type[Form]) -> list[Form | None]:
        self.requests += requests
        answers = self.answers[form.__name__][: len(requests)]
        assert len(answers) == len(requests)
        return [answer and form.model_validate(answer) for answer in answers]

    def release(self) -> None:
        pass


class SteadyEngine(ScriptedEngine):
    """Says the same of every sample; made without arguments, as a command line makes it."""

    def __init__(self) -> None:
        super().__init__({"LLMDiagnosis": [{"errors": [BLUE]}] * 9, "DialogueDraft": [{"turns": TURNS}] * 9})


def ask(errors: list[dict], turns: list[dict], **options) -> CorrectionResult:
    """What comes of SAMPLE when the model says this; both ways to call it must agree."""
    engine = ScriptedEngine(
        {
            "LLMDiagnosis": [{"errors": errors}],
            "DialogueDraft": [{"turns": turns}],
            "DiagnosisAndScript": [{"errors": errors, "turns": turns}],
        }
    )
    one, two = (
        LLMCorrector(engine=engine, calls=calls, **options).correct([SAMPLE], 0)[0] for calls in (1, 2)
    )
    assert one == two
    return one


def test_errors_and_turns_that_hold_become_corrections():
    corrected = ask([BLUE, PLATES], TURNS)
    assert corrected == CorrectionResult(
        corrections=(
            Correction(question="Is the cup blue?", answer="No, it is red.", codes=("attr.color",)),
            Correction(question="Are there plates?", answer="Yes, two.", codes=("obj.missed",)),
        )
    )


@pytest.mark.parametrize(
    "error, reason",
    [
        (SPOON | {"code": "obj.imagined"}, "unknown_code"),
        (SPOON | {"words": "a fork"}, "unquoted"),
        (SPOON | {"words": " ... "}, "unquoted"),
        (SPOON | {"words": "spoo"}, "unquoted"),
        (SPOON | {"words": "two plates"}, "unquoted"),
        (PLATES | {"words": "a spoon"}, "unquoted"),
    ],
)
def test_errors_that_do_not_hold_are_counted_and_turns_about_them_removed(error, reason):
    about = {"question": "Is there a spoon?", "answer": "No.", "codes": [error["code"]]}
    alone = ask([error], [about])
    assert alone == CorrectionResult(drop="unusable", removed={reason: 1})
    beside = ask([error, BLUE], [about, TURNS[0]])
    assert [turn.codes for turn in beside.corrections] == [("attr.color",)]
    assert beside.removed == {reason: 1, "undiagnosed": 1}


def test_quotes_may_differ_in_case_blanks_and_marks():
    assert ask([BLUE | {"words": '"a blue CUP"'}], TURNS[:1]).drop is None


def test_turns_about_nothing_are_kept_and_codes_that_were_not_found_taken_off():
    free = {"question": "Is it a photo?", "answer": "Yes.", "codes": []}
    mixed = TURNS[0] | {"codes": ["attr.color", "obj.absent", "attr.color"]}
    assert [turn.codes for turn in ask([BLUE], [free, mixed]).corrections] == [(), ("attr.color",)]


def test_an_unbalanced_leaking_repeating_script_is_cleaned():
    said = [
        ("Is the cup blue?", "No."),
        ("Is it blue?", "No."),
        ("Is there a green cup?", "No."),
        ("is the cup  BLUE", "No, red."),
        ("What is the mistake?", "The colour."),
        ("Describe {it}!", "A red cup."),
        ("What color is the cup?", "Red."),
        ("How many plates?", " "),
    ]
    turns = [{"question": question, "answer": answer, "codes": ["attr.color"]} for question, answer in said]
    corrected = ask([BLUE], turns)
    assert [turn.question for turn in corrected.corrections] == ["Is the cup blue?", "What color is the cup?"]
    assert corrected.removed == {"duplicate": 1, "leak": 1, "prompt": 1, "empty": 1, "surplus": 2}


def test_a_script_of_which_nothing_holds_leaves_no_turns():
    leaking = TURNS[0] | {"answer": "No, by the reference."}
    assert ask([BLUE], [leaking]) == CorrectionResult(drop="no_turns", removed={"leak": 1})


def test_no_error_and_no_answer_have_names_of_their_own():
    engine = ScriptedEngine(
        {
            "LLMDiagnosis": [None, {"errors": []}, {"errors": [BLUE]}, {"errors": [BLUE]}],
            "DialogueDraft": [None, {"turns": TURNS}],
        }
    )
    outcomes = LLMCorrector(engine=engine).correct([SAMPLE] * 4, 0)
    assert [one.drop for one in outcomes] == ["unanswered", "no_error", "unanswered", None]
    assert len(engine.requests) == 4 + 2
    engine = ScriptedEngine({"DiagnosisAndScript": [None]})
    assert LLMCorrector(engine=engine, calls=1).correct([SAMPLE], 0) == [CorrectionResult(drop="unanswered")]


def test_where_no_sample_has_an_error_nothing_more_is_asked():
    engine = ScriptedEngine({"LLMDiagnosis": [{"errors": []}]})
    assert LLMCorrector(engine=engine).correct([SAMPLE], 0)[0].drop == "no_error"
    assert len(engine.requests) == 1


def test_the_model_reads_both_answers_the_codebook_and_what_was_found():
    engine = SteadyEngine()
    LLMCorrector(engine=engine, rule=TurnRule(turns=3)).correct([SAMPLE], 0)
    first, second = (request.text for request in engine.requests)
    for text in (first, second):
        assert all(said in text for said in (SAMPLE.prompt, SAMPLE.chosen, SAMPLE.rejected))
    assert Codebook.load().text() in first and Codebook.load().text() not in second
    assert '- "a blue cup" (attr.color): It is red.' in second and "up to 3 turns" in second
    assert all(request.where == "sample a" and request.images == () for request in engine.requests)


def test_earlier_turns_of_the_prompt_are_shown():
    turns = ("user", "Is it day?"), ("assistant", "Yes."), ("user", "What is there?")
    prompt = [{"role": role, "content": text} for role, text in turns]
    engine = SteadyEngine()
    LLMCorrector(engine=engine).correct([Sample(key="a", prompt=prompt, chosen="b", rejected="c")], 0)
    assert "user: Is it day?\nassistant: Yes.\nuser: What is there?" in engine.requests[0].text


def test_all_that_decides_is_in_the_recipe(tmp_path, monkeypatch: pytest.MonkeyPatch):
    mine = tmp_path / "mine.yaml"
    mine.write_text("- {id: x, level: image, description: d, example: e}\n")
    options = [{}, {"calls": 1}, {"rule": TurnRule(turns=3)}, {"codebook": str(mine)}]
    recipes = [LLMCorrector(engine=ScriptedEngine(), **each).recipe() for each in options]
    monkeypatch.setattr("rlaifv_pl.feedback.corrections.llm_corrector.WRITE", "another text")
    recipes.append(LLMCorrector(engine=ScriptedEngine()).recipe())
    assert len({str(recipe) for recipe in recipes}) == 5
    assert all(recipe["engine"] == "script" for recipe in recipes)


@pytest.mark.parametrize(
    "form, fields",
    [(LLMDiagnosis, {"errors"}), (DialogueDraft, {"turns"}), (DiagnosisAndScript, {"errors", "turns"})],
)
def test_forms_leave_nothing_optional(form, fields):
    """Servers that hold a model to a schema want every field required."""
    assert set(form.model_json_schema()["required"]) == fields


def test_the_verb_takes_a_model_on_the_command_line(tmp_path, capsys: pytest.CaptureFixture):
    shards = write(tmp_path / "pairs", [SAMPLE])
    args = [shards, str(tmp_path / "out"), "--corrector", "LLMCorrector", "--corrector.calls", "2"]
    args += ["--corrector.engine", f"{__name__}.SteadyEngine", "--corrector.rule.turns", "4"]
    auto_cli(correct, args=args, as_positional=True)
    (sample,) = load_shards(tmp_path / "out")
    assert sample.provenance["engine"] == "script" and len(sample.corrections) == 1
    assert read_manifest(tmp_path / "out").recipe["correct"]["rule"]["turns"] == 4
    assert re.search("about attr.color .* 1", capsys.readouterr().out)
