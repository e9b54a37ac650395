"""Which of several processes this is, by what launchers put into the environment."""

import pytest

from rlaifv_pl.launcher import LauncherError, this_process

NAMES = [
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_LOCALID",
    "SLURM_JOB_NAME",
]


@pytest.fixture(autouse=True)
def unlaunched(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("told", "place"),
    [
        ({}, (0, 1, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (5, 8, 1)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1", "SLURM_JOB_NAME": "rlaifv"}, (1, 2, 1)),
        # A step of fewer tasks than the job has.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}, (0, 1, 0)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_NAME": "interactive"}, (1, 2, 0)),
        # The shell of an interactive job, and a job that says nothing of tasks.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_NAME": "bash"}, (0, 1, 0)),
        ({"SLURM_PROCID": "0", "SLURM_JOB_NAME": "rlaifv"}, (0, 1, 0)),
        # torchrun inside of srun.
        ({"RANK": "3", "WORLD_SIZE": "4", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (3, 4, 0)),
        # What Lightning's own launcher leaves behind.
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, (0, 1, 0)),
    ],
)  # fmt: skip
def test_the_place_of_a_process(monkeypatch, told, place):
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert this_process() == place


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "WORLD_SIZE"),
        ({"RANK": "1"}, "WORLD_SIZE"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK"),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "2"}, "SLURM_NTASKS"),
    ],
)
def test_variables_that_contradict_each_other_are_named(monkeypatch, told, named):
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LauncherError, match=named):
        this_process()
