"""A run of rounds that is killed in every one of its stages ends as one that is not."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rounds.test_rounds import nsft
from tests.rounds.world_run import config, outcome, write
from tests.run.tiny import REPOSITORY, environment

MOMENTS = (
    "before:rounds/1/stages/gate",
    "after:rounds/1/stages/generate-[0-9a-f]*/part-000001",
    "before:rounds/1/stages/divide-[0-9a-f]*/part-000000",
    "before:rounds/1/stages/conquer-[0-9a-f]*/part-000002",
    "before:rounds/1/manifest.json",
    "step:1",
    "step:4",
    "after:rounds/2/reference.safetensors",
    "after:rounds/2/stages/generate-[0-9a-f]*/part-000000",
    "after:rounds/2/stages/conquer-[0-9a-f]*/part-000001",
    "before:rounds/2/shard-000000.tar",
    "step:8",
)


def start(moment: str, path: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tests.rounds.world_run", moment, "fit", "--config", str(path)]
    return subprocess.run(
        [*command, "--ckpt_path", "last"],
        env=environment(),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_a_run_killed_in_every_stage_leaves_what_an_unkilled_one_leaves(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    never = start("never:", write(tmp_path / "whole.yaml", config(whole)))
    assert never.returncode == 0, never.stderr[-3000:]
    path = write(tmp_path / "killed.yaml", config(killed))
    for moment in MOMENTS:
        done = start(moment, path)
        assert done.returncode == -signal.SIGKILL, (moment, done.returncode, done.stderr[-3000:])
        assert not (killed / "export").exists()
    done = start("never:", path)
    assert done.returncode == 0, done.stderr[-3000:]

    expected, found = outcome(whole), outcome(killed)
    assert list(found) == list(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    rows = [json.loads((run / "summary.json").read_text())["rounds"] for run in (whole, killed)]
    for row in (*rows[0], *rows[1]):
        del row["seconds"]  # How long it took is all that a kill may change.
    assert rows[0] == rows[1] and [row["round"] for row in rows[0]] == [0, 1, 2]


@pytest.mark.slow
def test_a_run_of_nsft_killed_around_its_corrections_ends_as_one_that_is_not(tmp_path):
    for name, moments in {
        "whole": (),
        "killed": (
            "before:rounds/1/corrections/manifest.json",
            "after:rounds/2/corrections/stages/correct-[0-9a-f]*/part-000000",
            "after:rounds/2/corrections/manifest.json",
        ),
    }.items():
        path = write(tmp_path / f"{name}.yaml", nsft(tmp_path / name))
        for moment in moments:
            done = start(moment, path)
            assert done.returncode == -signal.SIGKILL, (moment, done.stderr[-3000:])
        done = start("never:", path)
        assert done.returncode == 0, done.stderr[-3000:]
    expected, found = (outcome(tmp_path / name) for name in ("whole", "killed"))
    assert list(found) == list(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert sum("corrections/shard" in name for name in expected) == 2
