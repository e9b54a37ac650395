"""Held-out figures of two processes, whoever starts them: what the policy says is what it says to one process alone."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.held import figures, held_out, measured_config, write_items
from tests.training.tiny import REPOSITORY, command, environment, write_pairs

SECONDS = 300
AT_START = "00000000.jsonl"
TWO = ["--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp"]


@pytest.fixture(scope="module")
def settings(family_dir, tmp_path_factory):
    """`settings(name)`: a run's directory and its command, measured before and after one step of 2 pairs."""
    root = tmp_path_factory.mktemp("launchers")
    shards, items = write_pairs(root / "pairs", 4), write_items(root / "items")

    def write(name: str) -> tuple[Path, list[str]]:
        groups = {"held_out": held_out(items, every_n_steps=0), "data": {"batch_size": 1}}
        path = measured_config(family_dir("llava"), shards, root / name, **groups)
        return root / name, ["fit", "--config", str(path), "--trainer.max_steps", "1"]

    return write


@pytest.fixture(scope="module")
def said_alone(settings) -> dict[str, str]:
    """What one process leaves of the policy as it is before the first step."""
    directory, arguments = settings("alone")
    finish([start(command(*arguments))])
    return said(directory)


def start(words: list[str], **told: str) -> subprocess.Popen:
    return subprocess.Popen(
        words, env=environment(**told), cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )  # fmt: skip


def finish(processes: list[subprocess.Popen]) -> None:
    try:
        for process in processes:
            _, error = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, error[-3000:]
    finally:
        for process in processes:
            process.kill()


def said(directory: Path) -> dict[str, str]:
    return {name: (directory / "held_out" / name / AT_START).read_text() for name in ("chair", "asked")}


def by_lightning(arguments: list[str]) -> None:
    finish([start(command(*arguments, *TWO))])


def by_torchrun(arguments: list[str]) -> None:
    elastic = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    finish([start([*elastic, *command(*arguments, *TWO)[1:]])])


def by_slurm(arguments: list[str]) -> None:
    """Two tasks, as srun starts them in `configs/machine/slurm.sh`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    job = {"SLURM_JOB_ID": "42", "SLURM_JOB_NAME": "rlaifv", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
           "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1",
           "MASTER_PORT": port}  # fmt: skip
    slurm = ["--config", str(REPOSITORY / "configs" / "machine" / "slurm.yaml")]
    words = command(*arguments[:1], *slurm, *arguments[1:], *TWO)
    finish([start(words, **job, SLURM_PROCID=rank, SLURM_LOCALID=rank) for rank in "01"])


@pytest.mark.slow
@pytest.mark.parametrize("launch", [by_lightning, by_torchrun, by_slurm])
def test_held_out_figures_of_two_processes(launch, settings, said_alone):
    directory, arguments = settings(launch.__name__)
    launch(arguments)
    assert said(directory) == said_alone
    for name, steps in figures(directory).items():
        assert list(steps) == [0, 1] and all(found["n"] == 5 for found in steps.values()), name
    assert not list(directory.glob("held_out/**/*.parts"))
