"""Models that answer with garbage: nothing of it is final, and nothing usable at all is an error."""

import json
from pathlib import Path

import pytest

from rlaifv_pl.cli import commands
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.feedback.chunks import Chunks, RankShare
from rlaifv_pl.feedback.engines.engine import EngineError
from rlaifv_pl.feedback.engines.openai_engine import OpenAIEngine
from rlaifv_pl.feedback.judges.gate import Gate
from rlaifv_pl.feedback.judges.labeler import ModelLabeler
from rlaifv_pl.miniature.shards import Lessons, Scenes
from rlaifv_pl.records import Sample
from tests.feedback.dialogues import write
from tests.feedback.openai_server import Body, ChatServer, completion, says, tokens
from tests.feedback.scripted import Script, scripted_run

ANSWERS = ("A red cup stands here.", "A blue ring lies here.", "A green moon and a red cup.")


@pytest.fixture
def server():
    with ChatServer() as server:
        yield server


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    return Scenes(out=str(tmp_path_factory.mktemp("prompts")), split="tune", count=3, seed=3).ensure()


def is_splitter(body: Body) -> bool:
    return "response_format" in body


def is_labeler(body: Body) -> bool:
    return "logprobs" in body


def text_of(body: Body) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def good(body: Body, time: int):
    """A policy, a splitter and a labeler: of the three things, only rings are not there."""
    if is_splitter(body):
        answer = text_of(body).rpartition("Answer: ")[2]
        claims = [{"quote": answer, "claim": answer, "question": f"{answer.rstrip('.')}?"}]
        return says(completion(json.dumps({"claims": claims})))
    if is_labeler(body):
        yes = 0.1 if "ring" in text_of(body) else 0.9
        return says(completion("yes", logprobs=tokens({"yes": yes, "no": 1 - yes})))
    return says(completion(ANSWERS[body["seed"] % 3]))


def but(is_meant, reply):
    """The same server, except that it replies so to one kind of request."""
    return lambda body, time: says(reply) if is_meant(body) else good(body, time)


def feedback(server, prompts: Path, out: Path) -> None:
    engine = {"class_path": "rlaifv_pl.feedback.engines.openai_engine.OpenAIEngine"}
    engine["init_args"] = {
        "model": "m", "base_url": server.url, "retries": 0, "cache": str(out.parent / "answers"),
    }  # fmt: skip
    config = {
        "policy": engine,
        "feedback": {
            "splitter": {
                "class_path": "rlaifv_pl.feedback.claims.llm_splitter.LLMSplitter",
                "init_args": {"engine": engine},
            },
            "labeler": {
                "class_path": "rlaifv_pl.feedback.judges.labeler.ModelLabeler",
                "init_args": {"engine": engine, "cache": str(out.parent / "verdicts")},
            },
            "sampling": {"n": 4},
            "balance": False,
        },
    }
    path = out.parent / "feedback.json"
    path.write_text(json.dumps(config))
    commands.main(["feedback", "--config", str(path), "--prompts", str(prompts), "--out", str(out)])


NOT_QUOTED = {"claims": [{"quote": "two elephants", "claim": "a.", "question": "a?"}]}


@pytest.mark.parametrize(
    "is_meant, reply, reason",
    [
        (is_splitter, completion("Lorem ipsum."), "no_form"),
        (is_splitter, completion('{"statements": []}'), "no_form"),
        (is_splitter, completion('{"claims": [', "length"), "no_form"),
        (is_splitter, completion(""), "no_form"),
        (is_splitter, completion(json.dumps(NOT_QUOTED)), "misquoted"),
        (is_labeler, completion("Maybe", logprobs=tokens({"Maybe": 0.9, "Hm": 0.1})), "unjudged"),
        (lambda body: not is_splitter(body) and not is_labeler(body), completion(""), "empty"),
    ],
)
def test_nothing_usable_is_an_error_and_the_same_command_asks_the_mended_server(
    server, prompts, tmp_path, is_meant, reply, reason
):
    server.plan = but(is_meant, reply)
    for _ in range(2):
        before = len(server.bodies)
        with pytest.raises(SystemExit, match=rf"candidate/{reason} \d.*asks again"):
            feedback(server, prompts, tmp_path / "out")
        assert sum(map(is_meant, server.bodies[before:])) >= 1, "nothing was asked again"
        assert not (tmp_path / "out" / "manifest.json").exists()
    server.plan = good
    feedback(server, prompts, tmp_path / "out")
    (tmp_path / "fresh").mkdir()
    feedback(server, prompts, tmp_path / "fresh" / "out")
    mended, fresh = (read_manifest(tmp_path / name) for name in ("out", "fresh/out"))
    assert mended.samples > 0 and mended == fresh
    asked = len(server.bodies)
    feedback(server, prompts, tmp_path / "out")
    assert len(server.bodies) == asked, "what was answered is asked again"


def test_what_cannot_be_used_is_drawn_again_with_another_seed(server, prompts, tmp_path):
    """The first draft of each form quotes what is not there."""
    server.plan = lambda body, time: (
        says(completion(json.dumps(NOT_QUOTED)))
        if is_splitter(body) and body["temperature"] == 0
        else good(body, time)
    )
    feedback(server, prompts, tmp_path / "out")
    assert "candidate/misquoted" not in read_manifest(tmp_path / "out").drops
    forms = [body for body in server.bodies if is_splitter(body)]
    assert {body["temperature"] for body in forms} == {0, 0.7} and len({body["seed"] for body in forms}) == 2


def test_some_garbage_is_counted_warned_of_and_asked_about_alone(server, prompts, tmp_path, capsys):
    cup = but(lambda body: is_splitter(body) and "red cup stands" in text_of(body), completion("Lorem"))
    server.plan = cup
    feedback(server, prompts, tmp_path / "out")
    first = read_manifest(tmp_path / "out")
    assert first.drops["candidate/no_form"] > 0 and first.notes["unfinished"] > 0 and first.samples > 0
    assert "asks about them again" in capsys.readouterr().err
    server.plan, asked = good, len(server.bodies)
    feedback(server, prompts, tmp_path / "out")
    second = read_manifest(tmp_path / "out")
    assert "candidate/no_form" not in second.drops and "unfinished" not in second.notes
    assert {"red cup stands" in text_of(body) for body in server.bodies[asked:]} == {True}
    assert second.samples > first.samples


def test_a_gate_that_garbage_closed_opens_when_the_server_is_mended(server, prompts, tmp_path):
    known = Lessons(out=str(tmp_path / "known"), split="tune", answer=8, questions=1).ensure()
    truth = {}

    def right(body: Body, time: int):
        yes = 0.9 if truth.get(text_of(body)) == "yes" else 0.1
        return says(completion("yes", logprobs=tokens({"yes": yes, "no": 1 - yes})))

    gate = Gate(shards=str(known))
    for one in gate.known():
        truth.setdefault(one.question, one.answer)
    labeler = ModelLabeler(engine=OpenAIEngine(model="m", base_url=server.url), question="{question}")
    run = scripted_run(tmp_path / "out", prompts, Script(), None, labeler=labeler, gate=gate)
    server.plan = lambda body, time: says(completion("Hm", logprobs=tokens({"Hm": 0.9, "Ah": 0.1})))
    with pytest.raises(EngineError, match="answered neither yes nor no"):
        run.make()
    server.plan = right
    assert run.make().notes["prompts"] == 3


# Corrections.

SAMPLES = [
    Sample(key=f"s{number}", prompt="Describe it.", chosen="A red cup stands.", rejected="A blue cup stands.")
    for number in range(3)
]
ERRORS = {"errors": [{"words": "blue cup", "code": "attr.color", "truth": "It is red."}]}
TURNS = {"turns": [{"question": "Is the cup blue?", "answer": "No, it is red.", "codes": ["attr.color"]}]}


def corrected(server, shards: Path, out: Path) -> None:
    engine = "rlaifv_pl.feedback.engines.openai_engine.OpenAIEngine"
    options = ["--corrector", "LLMCorrector", "--corrector.engine", engine, "--corrector.engine.model", "m"]
    options += ["--corrector.engine.base_url", server.url, "--corrector.engine.retries", "0"]
    commands.main(["feedback", "correct", "--shards", str(shards), "--out", str(out), *options])


def scribe(body: Body, time: int):
    form = body["response_format"]["json_schema"]["name"]
    return says(completion(json.dumps(ERRORS if form == "LLMDiagnosis" else TURNS)))


UNQUOTED = {"errors": [ERRORS["errors"][0] | {"words": "a fork"}]}


@pytest.mark.parametrize(
    "reply, reason",
    [
        (completion("Lorem"), "unanswered"),
        (completion("{}"), "unanswered"),
        (completion('{"errors": [', "length"), "unanswered"),
        (completion(json.dumps(UNQUOTED)), "unusable"),
    ],
)
def test_corrections_that_cannot_be_used_are_asked_for_again(server, tmp_path, reply, reason):
    shards = write(tmp_path / "pairs", SAMPLES)
    server.plan = lambda body, time: says(reply)
    with pytest.raises(SystemExit, match=rf"No correction was made.*{reason} 3.*asks about them again"):
        corrected(server, shards, tmp_path / "out")
    assert {body["seed"] for body in server.bodies} == {0, 1, 2}
    server.plan = scribe
    corrected(server, shards, tmp_path / "out")
    assert read_manifest(tmp_path / "out").samples == 3
    asked = len(server.bodies)
    corrected(server, shards, tmp_path / "out")
    assert len(server.bodies) == asked


def test_of_corrections_only_what_could_not_be_used_is_asked_for_again(server, tmp_path, capsys):
    shards = write(tmp_path / "pairs", [*SAMPLES[:2], Sample(
        key="other", prompt="Describe it.", chosen="A red cup waits.", rejected="A blue cup waits.")])  # fmt: skip
    server.plan = lambda body, time: (
        says(completion("Lorem")) if "waits" in text_of(body) else scribe(body, time)
    )
    corrected(server, shards, tmp_path / "out")
    assert read_manifest(tmp_path / "out").notes["unfinished"] == 1
    assert "asks about them again" in " ".join(capsys.readouterr().err.split())
    server.plan, asked = scribe, len(server.bodies)
    corrected(server, shards, tmp_path / "out")
    assert read_manifest(tmp_path / "out").samples == 3
    assert all("waits" in text_of(body) for body in server.bodies[asked:])


# Parts.


def test_unfinished_rows_alone_are_made_anew_whosever_share_they_are_in(tmp_path):
    asked: list[list[int]] = []

    def rows(bad):
        def make(some):
            asked.append(list(some))
            return [{"n": n, **({"unfinished": True} if n in bad else {})} for n in some]

        return make

    parts = Chunks(tmp_path, "stage", {}, 8, 2)
    for rank in (0, 1):
        list(RankShare(rank, 2).make(parts, rows({1, 2, 7})))
    assert [parts.is_finished(number) for number in range(4)] == [False, False, True, False]
    del asked[:]
    list(RankShare(1, 2).make(parts, rows(())))
    assert not asked, "only the first process can know when all have been tried again"
    list(RankShare(0, 2).make(parts, rows({7})))
    assert sorted(asked) == [[1], [2], [7]]
    assert [row["n"] for row in parts.rows()] == list(range(8)) and not parts.is_finished(3)
    assert [path.name for path in sorted(parts.directory.iterdir())][-1] == "part-000003.unfinished.jsonl"
