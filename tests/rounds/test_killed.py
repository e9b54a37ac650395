"""A run of rounds that is killed in every one of its stages ends as one that is not."""

import json

import pytest

from tests.kill.works import training
from tests.rounds.test_rounds import nsft
from tests.rounds.world_run import config, outcome, write

MOMENTS = (
    "after:rounds/answers/0.jsonl",
    "before:rounds/1/stages/gate",
    "after:rounds/1/stages/generate-[0-9a-f]*/part-000001",
    "before:rounds/1/stages/divide-[0-9a-f]*/part-000000",
    "before:rounds/1/stages/conquer-[0-9a-f]*/part-000002",
    "before:rounds/1/left_out.jsonl",
    "before:rounds/1/manifest.json",
    "step:1",
    "step:4",
    "after:rounds/2/reference.safetensors",
    "after:rounds/2/stages/generate-[0-9a-f]*/part-000000",
    "after:rounds/2/stages/conquer-[0-9a-f]*/part-000001",
    "before:rounds/2/shard-000000.tar",
    "step:8",
)


@pytest.mark.slow
def test_a_run_killed_in_every_stage_leaves_what_an_unkilled_one_leaves(warm, tmp_path):
    whole, killed, warm.directory = tmp_path / "whole", tmp_path / "killed", tmp_path
    assert warm.start(training(write(tmp_path / "whole.yaml", config(whole))))
    command = training(write(tmp_path / "killed.yaml", config(killed)))
    for moment in MOMENTS:
        assert not warm.start(command, moment=moment), moment
        assert not (killed / "export").exists()
    assert warm.start(command)

    expected, found = outcome(whole), outcome(killed)
    assert list(found) == list(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    rows = [json.loads((run / "summary.json").read_text())["rounds"] for run in (whole, killed)]
    for row in (*rows[0], *rows[1]):
        del row["seconds"]  # How long it took is all that a kill may change.
    assert rows[0] == rows[1] and [row["round"] for row in rows[0]] == [0, 1, 2]


@pytest.mark.slow
def test_a_run_of_nsft_killed_around_its_corrections_ends_as_one_that_is_not(warm, tmp_path):
    warm.directory = tmp_path
    for name, moments in {
        "whole": (),
        "killed": (
            "before:rounds/1/corrections/manifest.json",
            "after:rounds/2/corrections/stages/correct-[0-9a-f]*/part-000000",
            "after:rounds/2/corrections/manifest.json",
        ),
    }.items():
        command = training(write(tmp_path / f"{name}.yaml", nsft(tmp_path / name)))
        for moment in moments:
            assert not warm.start(command, moment=moment), moment
        assert warm.start(command)
    expected, found = (outcome(tmp_path / name) for name in ("whole", "killed"))
    assert list(found) == list(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert sum("corrections/shard" in name for name in expected) == 2
