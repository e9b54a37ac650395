"""MMHal-Bench: reviews by a judge that is a dictionary, their figures, and what is paid for twice."""

import json
import re
from collections.abc import Sequence

import pytest

from rlaifv_pl.cli.commands import main
from rlaifv_pl.cli.evaluate import evaluate
from rlaifv_pl.cli.judge import mmhal
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow
from rlaifv_pl.evaluation.judged import mmhal as bench
from rlaifv_pl.evaluation.judged.mmhal import MmhalBenchmark, Review, mmhal_job, read_rating
from rlaifv_pl.evaluation.judged.reviews import Judge as ReviewJudge
from rlaifv_pl.evaluation.judged.reviews import run_reviews
from rlaifv_pl.evaluation.table_metric import compute_figures
from rlaifv_pl.feedback.engines.engine import EngineError, Form, Request
from tests.feedback.scripted import Script

RATINGS = {"red": 6, "blue": 2, "a cat": 4, "unclear": None}
KINDS = ["attribute", "attribute", "counting", "other"]


class Judge(Script):
    """Rates by what the answer is, and keeps what it is asked."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.broken = broken

    def fill(self, requests: Sequence[Request], form: type[Form]) -> list[Form | None]:
        if self.broken:
            raise EngineError("the server went away")
        self.asked += [request.text for request in requests]
        found = [
            next(rating for answer, rating in RATINGS.items() if f"answer: {answer}" in text)
            for text in self.asked
        ]
        assert form is Review and not any(request.images for request in requests)
        # What it writes about its rating does not count.
        return [
            one if one is None else Review(explanation="rating: 1", rating=one)
            for one in found[-len(requests) :]
        ]


@pytest.fixture
def answers(tmp_path):
    rows = [
        {
            "question_type": kind,
            "image_id": f"{number}",
            "image_content": ["Door", "Cat"],
            "question": "What is it?",
            "gt_answer": "It is red.",
            "model_answer": answer,
        }
        for number, (kind, answer) in enumerate(zip(KINDS, RATINGS, strict=True))
    ]
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(rows))
    return path


def test_reviews_become_figures_that_bear_the_judges_name(answers, tmp_path, capsys):
    """Ratings 6, 2 and 4; the fourth answer has none: mean 4, one of three below 3, informativeness (3 + 2 + 1) / 9."""
    mmhal(str(answers), str(tmp_path / "reviews.json"), judge=Judge(), name="dictionary")
    assert re.search(r"without a review\D+1\b", capsys.readouterr().out)
    report = evaluate("mmhal", str(tmp_path / "reviews.json"), out=str(tmp_path / "O.json"))
    assert (report["score"], report["hallucination"]) == (4, pytest.approx(100 / 3))
    assert report["informativeness"] == pytest.approx(600 / 9)
    assert (report["score/attribute"], report["score/counting"], report["score/other"]) == (4, 4, None)
    assert (report["n"], report["n_missing"]) == (3, 1)
    assert (
        report["name"].startswith("mmhal_by_dictionary_")
        and len(report["name"]) == len("mmhal_by_dictionary_") + 8
    )


def test_the_command_line_names_a_judge_by_its_class(answers, tmp_path, capsys):
    files = ["--responses", str(answers), "--out", str(tmp_path / "reviews.json")]
    main(["judge", "mmhal", *files, "--name", "d", "--judge", "tests.evaluation.judged.test_mmhal.Judge"])
    assert re.search(r"without a review\D+1\b", capsys.readouterr().out)
    main(["evaluate", "--metric", "mmhal", "--responses", str(tmp_path / "reviews.json")])
    assert "mmhal_by_d_" in capsys.readouterr().out


def reviewed(answers, out, engine, template=bench.PROMPT_TEMPLATE, cache=None) -> int:
    """How many answers lack a review."""
    judge = ReviewJudge(name="d", engine=engine, cache=cache)
    return run_reviews(mmhal_job(MmhalBenchmark.load(answers), template), judge, out).reviews.count(None)


def test_nothing_is_paid_for_twice_but_what_had_no_review(answers, tmp_path):
    cache, first = tmp_path / "cache", Judge()
    assert reviewed(answers, tmp_path / "one.json", first, cache=cache) == 1
    assert len(first.asked) == 4 and all("It is red." in text and "Door, Cat" in text for text in first.asked)
    second = Judge()
    reviewed(answers, tmp_path / "two.json", second, cache=cache)
    assert len(second.asked) == 1 and "unclear" in second.asked[0]
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    third = Judge()
    template = "{contents} {question} {right} answer: {answer}"
    reviewed(answers, tmp_path / "three.json", third, template, cache)
    judges = {json.loads((tmp_path / f"{name}.json").read_text())[0]["judge"] for name in ("one", "three")}
    assert len(third.asked) == 4 and len(judges) == 2


def test_the_same_command_asks_only_what_had_no_review(answers, tmp_path):
    for expected in (list(RATINGS), ["unclear"]):
        engine = Judge()
        mmhal(str(answers), str(tmp_path / "out.json"), judge=engine, name="d")
        assert [text for text in RATINGS if any(f"answer: {text}" in one for one in engine.asked)] == expected
        assert len(engine.asked) == len(expected)


def test_a_judge_that_breaks_leaves_no_file(answers, tmp_path):
    with pytest.raises(EngineError):
        reviewed(answers, tmp_path / "out.json", Judge(broken=True))
    assert not (tmp_path / "out.json").exists()


def test_answers_that_nobody_has_reviewed_have_no_figures(answers):
    with pytest.raises(BenchmarkError, match=r"reviews .* of one judge, got none"):
        evaluate("mmhal", str(answers))


def test_the_template_is_filled_in_and_read(answers, tmp_path):
    benchmark = MmhalBenchmark.load(answers)
    assert (benchmark.items[1].prompt, benchmark.items[1].image) == ("What is it?", "1")
    benchmark.write(tmp_path / "filled.json", {0: "green"})
    (row,) = json.loads((tmp_path / "filled.json").read_text())
    assert row["model_answer"] == "green" and row["gt_answer"] == "It is red."


def test_ratings_are_read_as_the_authors_read_them():
    said = {"Rating: 4, fine": 4, "RATING: 0": 0, "rating: 7": 0, "4": 0, "Rating: 4. Or rating: 5": 0}
    assert {text: read_rating(text) for text in said} == said
    fields = {"image_id": "1", "question": "?", "question_type": "a", "rating": 3, "judge": "d"}
    benchmark = MmhalBenchmark([FileRow(fields, "R")])
    _, figures = compute_figures(benchmark, {})
    assert all(value is None for name, value in figures.items() if not name.startswith("n"))
    _, figures = compute_figures(benchmark, {0: "Rating: 3"})
    assert figures["hallucination"] == 0 and figures["informativeness"] == 0
