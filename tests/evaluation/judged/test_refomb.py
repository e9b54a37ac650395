"""RefoMB: comparisons over several runs, their figures, and the commands from questions to figures."""

import json
import re
import statistics

import pytest

from rlaifv_pl.cli.commands import main
from rlaifv_pl.cli.evaluate import evaluate
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow
from rlaifv_pl.evaluation.judged.refomb import RefombBenchmark, Runs, refomb_job, runs_are_alike
from rlaifv_pl.evaluation.judged.reviews import run_reviews
from rlaifv_pl.evaluation.table_metric import compute_figures
from tests.evaluation.judged.scripted import Filler, judge
from tests.feedback.openai_server import ChatServer, completion, says

BETTER = {"best": "BBB", "mixed": "ABA", "even": ["tie"] * 3, "odd": [None, "A", "B"]}
"""Of each answer, who wins in each run; None where the judge says nothing that holds."""
FEWER = {"best": "A", "mixed": "B", "even": "tie", "odd": "B"}
KINDS = ["ocr", "ocr", "text", "text"]


class Referee(Filler):
    """As the command line makes it; knows a run by the order in which seeds come up.

    Args:
        greedy: whether it says the same in all runs.
    """

    def __init__(self, greedy: bool = False) -> None:
        super().__init__(self.compare)
        self.greedy = greedy
        self.seeds: list[int] = []

    def compare(self, request, form):
        if request.seed not in self.seeds:
            self.seeds.append(request.seed)
        run = 1 if self.greedy else self.seeds.index(request.seed)
        if form == "Fewer":
            found = re.search(r"Review: (\w+) (\d)", request.text)
            assert found[2] == str(run)
            return {"explanation": "", "fewer": FEWER[found[1]]}
        assert "Description: scene" in request.text and "model A: theirs" in request.text
        answer = re.search("model B: (.*)", request.text)[1]
        better = BETTER[answer][run]
        return better and {"explanation": f"{answer} {run}", "better": better}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = [{"image_url": f"https://host/{n}.jpg", "question": "Why?"} for n in range(4)]
    official = [
        {**row, "description": f"scene {n}", "type": KINDS[n], "answer": "theirs"}
        for n, row in enumerate(named)
    ]
    answers = [{**row, "answer": answer} for row, answer in zip(named, BETTER, strict=True)]
    (tmp_path / "G.jsonl").write_text("\n".join(map(json.dumps, official)))
    (tmp_path / "A.jsonl").write_text("\n".join(map(json.dumps, reversed(answers))))
    return tmp_path


JUDGE = "judge refomb --responses A.jsonl --ground_truth G.jsonl --out R.jsonl --name d --judge"


def test_from_answers_to_figures_by_command(home):
    """Runs win (2 + 0 + 1) / 6, (2 + 2 + 1 + 0) / 8 and (2 + 0 + 1 + 2) / 8."""
    main([*JUDGE.split(), "tests.evaluation.judged.test_refomb.Referee"])
    rows = [json.loads(line) for line in (home / "R.jsonl").read_text().splitlines()]
    assert [row["run"] for row in rows] == [0] * 4 + [1] * 4 + [2] * 4
    assert [row.get("score") for row in rows] == [1, -1, 0, None, 1, 1, 0, -1, 1, -1, 0, 1]
    assert rows[4]["review"] == "best 1" and rows[4]["hallucination_score"] == -1 and "score" not in rows[3]
    report = evaluate("refomb", "R.jsonl")
    runs, fewer = [100 * 3 / 6, 100 * 5 / 8, 100 * 5 / 8], [100 * 3 / 6, 100 * 5 / 8, 100 * 5 / 8]
    assert report["win"] == pytest.approx(statistics.fmean(runs))
    assert report["win_sd"] == pytest.approx(statistics.stdev(runs))
    assert report["fewer_hallucinations"] == pytest.approx(statistics.fmean(fewer))
    assert report["win/ocr"] == pytest.approx(100 * 8 / 12) and report["win/text"] == 50
    assert (report["n"], report["n_missing"]) == (11, 1)
    assert report["name"] == f"refomb_by_{rows[0]['judge']}"


def test_runs_and_seed_decide_what_is_asked(home):
    def asked(**how) -> list[tuple[str, int]]:
        engine = Referee(greedy=True)
        job = refomb_job(home / "G.jsonl", home / "A.jsonl", Runs(**how))
        reviews = run_reviews(job, judge(engine), home / "R.jsonl").reviews
        assert len(reviews) == 4 * how["runs"] and runs_are_alike(reviews, how["runs"]) == (how["runs"] > 1)
        return [(one.text, one.seed) for one in engine.asked]

    one, two, other = asked(runs=1), asked(runs=2), asked(runs=1, seed=7)
    assert len(one) == 8 and len(two) == 16 and len({seed for _, seed in two}) == 2
    assert {seed for _, seed in other}.isdisjoint({seed for _, seed in two})
    with pytest.raises(ValueError, match="runs = 0"):
        Runs(runs=0)


def test_runs_that_are_alike_are_pointed_out(home, capsys):
    main([*JUDGE.split(), "tests.evaluation.judged.test_refomb.Referee", "--judge.greedy", "true"])
    assert "all runs are alike" in capsys.readouterr().out
    main([*JUDGE.split(), "tests.evaluation.judged.test_refomb.Referee", "--seed", "1"])
    assert "all runs are alike" not in capsys.readouterr().out


REPLIES = {"Comparison": {"explanation": "e", "better": "B"}, "Fewer": {"explanation": "e", "fewer": "tie"}}


def test_a_server_judges_and_draws_each_run_by_its_seed(home, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "")
    with ChatServer() as server:
        server.plan = lambda body, time: says(
            completion(json.dumps(REPLIES[body["response_format"]["json_schema"]["name"]]))
        )
        settings = ["--judge.model", "m", "--judge.base_url", server.url, "--judge.fill_temperature", "0.7"]
        engine = "rlaifv_pl.feedback.engines.openai_engine.OpenAIEngine"
        main([*JUDGE.split(), engine, *settings, "--cache", "cache"])
    named = [body["response_format"]["json_schema"] for body in server.bodies]
    assert all(one["strict"] and one["schema"]["additionalProperties"] is False for one in named)
    assert {body["temperature"] for body in server.bodies} == {0.7}
    # Four comparisons a run; what is then asked about them is the same text.
    assert len({body["seed"] for body in server.bodies}) == 3 and len(server.bodies) == 3 * (4 + 1)
    report = evaluate("refomb", "R.jsonl")
    assert (report["win"], report["win_sd"], report["fewer_hallucinations"]) == (100, 0, 50)


def test_official_results_are_read(home):
    rows = [
        {
            "image_path_list": f"https://host/{n}.jpg",
            "question": "Why?",
            "type_name": kind,
            "score": score,
            "review": "",
        }
        for n, (kind, score) in enumerate(zip(KINDS, (1, 1, 0, -1), strict=True))
    ]
    (home / "official.json").write_text(json.dumps(rows))
    report = evaluate("refomb", "official.json")
    assert (report["name"], report["win"], report["win/ocr"], report["win/text"]) == (
        "refomb_by_unnamed",
        62.5,
        100,
        25,
    )
    assert report["fewer_hallucinations"] is None and report["win_sd"] is None
    (home / "official.json").write_text(json.dumps([{**rows[0], "score": 3}]))
    with pytest.raises(BenchmarkError, match=r"entry 0: field 'score': expected -1, 0 or 1, got \[3\]"):
        evaluate("refomb", "official.json")


def test_questions_become_answers_in_the_official_form(home):
    benchmark = RefombBenchmark.load(home / "G.jsonl")
    assert (benchmark.items[1].prompt, benchmark.items[1].image) == ("Why?", "1.jpg")
    benchmark.write(home / "new.jsonl", {1: "So."})
    (row,) = map(json.loads, (home / "new.jsonl").read_text().splitlines())
    assert row == {"image_url": "https://host/1.jpg", "type": "ocr", "question": "Why?", "answer": "So."}
    with pytest.raises(
        BenchmarkError, match=r"new.jsonl: expected an answer to '0 https://host/0.jpg Why\?'"
    ):
        benchmark.answers(home / "new.jsonl")


def test_figures_of_nothing_are_nan():
    fields = {"image_url": "1.jpg", "question": "?", "type": "a", "score": 0}
    rows = [FileRow(fields | {"run": run}, "R") for run in (0, 1)]
    _, found = compute_figures(RefombBenchmark(rows), {})
    assert all(value is None for name, value in found.items() if not name.startswith("n"))
