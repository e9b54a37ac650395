"""What all judged benchmarks share: a cache, batches that survive a break, processes in step, wordings."""

import json

import pytest
from pydantic import BaseModel

from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow
from rlaifv_pl.evaluation.judged import reviews
from rlaifv_pl.evaluation.judged.reviews import judge_from_rows, make_reviews, read_template
from rlaifv_pl.feedback.engines.engine import EngineError, Request
from tests.evaluation.judged.scripted import Filler, judge


class Note(BaseModel):
    said: str


REQUESTS = [Request(f"text {number}") for number in range(7)]


def echo(request: Request, form: str) -> dict[str, str] | None:
    return {"said": f"{request.text} {request.seed}"}


def all_but_3(request: Request, form: str) -> dict[str, str] | None:
    return None if request.text == "text 3" else echo(request, form)


def review(engine: Filler, out, cache=None) -> list | None:
    """Reviews of all requests, two at a time."""
    who = judge(engine, cache)

    def make(some: range) -> list:
        forms = who.ask([REQUESTS[number] for number in some], Note)
        return [one and one.model_dump() for one in forms]

    return make_reviews(out, {"judge": "d"}, len(REQUESTS), make)


@pytest.fixture(autouse=True)
def pairs(monkeypatch):
    monkeypatch.setattr(reviews, "BATCH", 2)


def texts(engine: Filler) -> list[str]:
    return [request.text for request in engine.asked]


@pytest.mark.parametrize("calls", range(4))
def test_after_a_break_only_what_is_missing_is_asked(tmp_path, calls):
    with pytest.raises(EngineError):
        review(Filler(echo, breaks_at=calls), tmp_path / "out")
    rest = Filler(echo)
    found = review(rest, tmp_path / "out")
    assert [one["said"] for one in found] == [f"text {number} 0" for number in range(7)]
    assert texts(rest) == [request.text for request in REQUESTS[2 * calls :]]
    assert review(again := Filler(echo), tmp_path / "out") == found and again.asked == []


def test_what_had_no_review_is_asked_about_again_alone(tmp_path):
    cache = tmp_path / "cache"
    found = review(Filler(all_but_3), tmp_path / "out", cache)
    assert [one is None for one in found] == [number == 3 for number in range(7)]
    again = Filler(echo)
    assert None not in review(again, tmp_path / "out", cache) and texts(again) == ["text 3"]


def test_two_processes_leave_what_one_does(tmp_path, monkeypatch):
    whole = review(Filler(echo), tmp_path / "whole")
    monkeypatch.setenv("WORLD_SIZE", "2")
    asked = {}
    for rank, expected in (("1", None), ("0", whole)):
        monkeypatch.setenv("RANK", rank)
        engine = Filler(echo)
        assert review(engine, tmp_path / "out") == expected
        asked[rank] = texts(engine)
    assert asked == {"1": ["text 2", "text 3", "text 6"], "0": ["text 0", "text 1", "text 4", "text 5"]}


def test_memory_knows_model_form_text_and_seed(tmp_path):
    class Other(BaseModel):
        said: str

    cache, request = tmp_path / "cache", Request("a")
    other = Filler(echo)
    other.identity = "other"
    seeded = Request("a", seed=5)
    for engine, asked, form, is_new in (
        (Filler(echo), request, Note, True),
        (Filler(echo), request, Note, False),
        (Filler(echo), seeded, Note, True),
        (Filler(echo), request, Other, True),
        (other, request, Note, True),
        (Filler(echo), seeded, Note, False),
    ):
        (one,) = judge(engine, cache).ask([asked], form)
        assert one.said == f"a {asked.seed}" and bool(engine.asked) == is_new


def test_one_request_is_asked_once_in_a_batch():
    engine = Filler(echo)
    assert len(judge(engine).ask([Request("a")] * 3, Note)) == 3 and len(engine.asked) == 1


def test_a_template_has_the_same_placeholders(tmp_path):
    path = tmp_path / "template.txt"
    path.write_text('{answer} {"json": {x}} {question}')
    assert read_template("{question} {answer}", str(path)) == path.read_text()
    assert read_template("{question} {answer}", None) == "{question} {answer}"
    with pytest.raises(BenchmarkError, match=r"template.txt: .*placeholders \{context\}, \{right\}"):
        read_template("{right} {context} {answer}", str(path))
    with pytest.raises(BenchmarkError, match="none cannot be read"):
        read_template("", str(tmp_path / "none"))


def test_reviews_are_of_one_judge():
    def rows(*judges: str | None) -> list[FileRow]:
        named = ({"rating": 1} | ({"judge": one} if one else {}) for one in judges)
        return [FileRow(json.loads(json.dumps(fields)), "R, line 1") for fields in named]

    assert (
        judge_from_rows(rows("a", "a"), "rating") == "a"
        and judge_from_rows(rows(None), "rating", "unnamed") == "unnamed"
    )
    for wrong, said in (
        (rows("a", "b"), r"\['a', 'b'\]"),
        (rows(None), "none"),
        ([FileRow({}, "R")], "none"),
    ):
        with pytest.raises(BenchmarkError, match=f"R.*: expected reviews .* of one judge, got {said}"):
            judge_from_rows(wrong, "rating")
    with pytest.raises(BenchmarkError, match="got none"):
        judge_from_rows([FileRow({"judge": "a"}, "R")], "rating", "unnamed")
