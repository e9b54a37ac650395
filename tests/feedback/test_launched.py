"""Feedback of two processes, by what each launcher tells them: together they leave what one leaves."""

import subprocess
import sys
from pathlib import Path

import pytest

from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.feedback.chunks import RankShare
from rlaifv_pl.miniature.shards import Scenes
from tests.feedback.scripted import Script, scripted_run
from tests.training.tiny import REPOSITORY, environment

PROGRAM = """
import sys
from pathlib import Path
from rlaifv_pl.feedback.chunks import RankShare
from tests.feedback.scripted import Script, scripted_run

run = scripted_run(Path(sys.argv[1]), sys.argv[2], Script(), Script("labeler"))
run.executor = RankShare.from_launcher()
run.make()
print("asked", len(run.policy.sampled))
"""


def torchrun(program: str, *arguments: str) -> list[list[str]]:
    return [
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            program,
            *arguments,
        ]
    ]


def with_variables(**names: str):
    """Two processes that are told their places by variables, as `srun` and Lightning's own launcher do."""

    def commands(program: str, *arguments: str) -> list[list[str]]:
        ranks = ([f"{name}={value.format(rank=rank)}" for name, value in names.items()] for rank in (0, 1))
        return [["env", *rank, sys.executable, program, *arguments] for rank in ranks]

    return commands


@pytest.mark.parametrize(
    "launch",
    [
        pytest.param(torchrun, id="torchrun", marks=pytest.mark.slow),
        pytest.param(
            with_variables(SLURM_PROCID="{rank}", SLURM_NTASKS="2", SLURM_JOB_NAME="rlaifv"), id="slurm"
        ),
        pytest.param(with_variables(RANK="{rank}", WORLD_SIZE="2", LOCAL_RANK="{rank}"), id="lightning"),
    ],
)
def test_two_processes_share_out_the_prompts_and_leave_what_one_leaves(launch, tmp_path):
    prompts = Scenes(out=str(tmp_path / "prompts"), split="tune", count=12, seed=3).ensure()
    alone = scripted_run(tmp_path / "one", prompts, Script(), Script("labeler"))
    alone.make()
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    commands = launch(str(program), str(tmp_path / "two"), str(prompts))
    running = [
        subprocess.Popen(command, env=environment() | {"PYTHONPATH": str(REPOSITORY)}, cwd=REPOSITORY,
                         stdout=subprocess.PIPE, text=True)
        for command in commands
    ]  # fmt: skip
    said = "".join(one.communicate(timeout=200)[0] for one in running)
    assert [one.returncode for one in running] == [0] * len(commands)
    assert sorted(line for line in said.splitlines() if line.startswith("asked")) == ["asked 4", "asked 8"]
    assert read_manifest(tmp_path / "two") == read_manifest(tmp_path / "one")
    assert alone.executor == RankShare() and Path(tmp_path / "two" / "shard-000000.tar").is_file()
