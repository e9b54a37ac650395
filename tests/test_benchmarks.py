"""The benchmarks run, and what they time is equal work; the figures themselves are nobody's test."""

import json
from functools import partial

import pytest
import torch

pytest.importorskip("trl")

from benchmarks import dpo_step, feedback, run


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    small = {
        "feedback": partial(feedback.measure, claims=[3], candidates=[2], new_tokens=4),
        "dpo_step": partial(dpo_step.measure, pairs=2),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "BENCHMARKS", small)
        run.main(shape="toy", repeats=2, json=folder / "results.json")
    return folder


def test_all_ways_are_timed_against_their_peer(results):
    found = json.loads((results / "results.json").read_text())
    races = [race for result in found.values() for race in result["races"]]
    assert [len(race["ways"]) for race in races] == [3, 3, 6, 6, 6]
    for race in races:
        assert race["ways"][race["peer"]]["ratio"] == 1.0
        assert all(way["seconds"] > 0 for way in race["ways"].values())


def test_the_report_says_where_and_what(results):
    text = (results / "RESULTS.md").read_text()
    assert f"torch {torch.__version__}" in text and "trl 1.16.0" in text
    assert text.count("| TRL |") == 3 and text.count("| shared prefix |") == 2


def test_a_pass_is_paid_over_its_epochs(results):
    found = json.loads((results / "results.json").read_text())["dpo_step"]
    for race, paid in zip(found["races"], found["tables"], strict=False):
        ways = race["ways"]
        step, once = ways[dpo_step.CACHED]["seconds"], ways[dpo_step.PASS]["seconds"]
        assert [row[0] for row in paid["rows"]] == [1, 4]
        assert [row[1] for row in paid["rows"]] == pytest.approx([step + once, step + once / 4])


def test_two_pairs_of_a_prompt_are_one_tree(tmp_path):
    path = dpo_step.build("toy", tmp_path / "toy")
    pairs = dpo_step.two_of_each_prompt(dpo_step.draw_pairs(4, 0, dpo_step.SHAPES["toy"].vocabulary))
    batch = dpo_step.OurSide(path, None).collate(pairs)
    assert (batch.layout.num_trees, batch.layout.rows_per_tree, len(batch.keys)) == (2, 4, 4)
    assert [pair.prompt == pairs[0].prompt for pair in pairs] == [True, True, False, False]


def test_one_benchmark_alone_keeps_what_another_found(results, monkeypatch):
    file = results / "results.json"
    before = json.loads(file.read_text())
    monkeypatch.setattr(run, "BENCHMARKS", {"feedback": lambda shape, repeats: []})
    run.main(only="feedback", json=file)
    after = json.loads(file.read_text())
    assert after["dpo_step"] == before["dpo_step"] and after["feedback"]["races"] == []


def test_the_trees_tokens_are_counted(batches):
    _, _, mine, _ = batches
    real = mine.tokens.rows["attention_mask"].sum(1).tolist()
    tokens, padded = dpo_step.token_ratios([mine])
    assert 1.5 < tokens < 2
    assert padded / tokens == pytest.approx(mine.tokens.rows["input_ids"].numel() / sum(real))


@pytest.fixture
def batches(tmp_path):
    """The same pairs, as both sides read them."""
    path = dpo_step.build("toy", tmp_path / "toy")
    pairs = dpo_step.draw_pairs(2, 0, dpo_step.SHAPES["toy"].vocabulary)
    ours = dpo_step.OurSide(path, None)
    theirs = dpo_step.TRLSide(path, pairs, None, dpo_step.RATE, tmp_path / "trl")
    return ours, theirs, ours.collate(pairs), theirs.collate(pairs)


def test_unequal_work_is_not_timed(batches):
    ours, theirs, mine, other = batches
    dpo_step.check_inputs(mine, other)
    with pytest.raises(AssertionError, match="ln 2"):
        dpo_step.check_steps(ours, theirs, mine, other)
    dpo_step.move(ours, theirs)
    before = dpo_step.check_steps(ours, theirs, mine, other)
    ours.step(mine, "split")
    theirs.step(other, answers_only=True)
    assert dpo_step.check_steps(ours, theirs, mine, other) < before - 1e-3
    other["input_ids"][0, -1 - int((other["attention_mask"][0] == 0).sum())] += 1
    with pytest.raises(AssertionError, match="tokens of row 0"):
        dpo_step.check_inputs(mine, other)
    with pytest.raises(AssertionError, match="differ"):
        dpo_step.check_steps(ours, theirs, mine, other)


def test_the_head_on_answers_only_is_trls_own_computation_on_fewer_rows(batches, monkeypatch):
    """Counts rows of the head, so that the peer is what it is said to be."""
    _, theirs, mine, other = batches
    from trl.trainer import utils

    rows, apply = [], utils._ChunkedLogProbFunction.apply

    class Counted:
        @staticmethod
        def apply(hidden, *inputs):
            rows.append(len(hidden))
            return apply(hidden, *inputs)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Counted)
    for answers_only in (True, False):
        theirs.backward(other, answers_only)
    ids = other["input_ids"]
    assert rows == [len(mine.tokens.labels)] * 2 + [ids.shape[0] * (ids.shape[1] - 1)] * 2
