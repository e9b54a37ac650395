"""A run that is told to stop saves at the end of its step and goes on as if nothing had been."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file

from rlaifv_pl.training.signals import EXIT_CODE
from tests.training.tiny import (
    REPOSITORY,
    command,
    dpo_config,
    environment,
    run,
    table,
    write_config,
    write_pairs,
)

PAIRS = 40


class SignalAt(Callback):
    """Sends SIGTERM to its own process in the middle of a step.

    Args:
        step: number of updates when the step is over.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *_) -> None:
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("shards") / "pairs", PAIRS)


def config(family_dir, shards, directory: Path, **trainer) -> list[str]:
    """Nothing is saved before the end of an epoch."""
    settings = dpo_config(family_dir("llava"), shards, checkpoint={"every_n_train_steps": 0})
    settings["trainer"] |= {"default_root_dir": str(directory), **trainer}
    return ["fit", "--config", str(write_config(directory.parent / f"{directory.name}.yaml", settings))]


def started(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        command(*arguments), env=environment(), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    )


def wait_for(is_there, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not is_there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def rows(directory: Path) -> int:
    file = directory / "metrics.csv"
    return len(file.read_text().splitlines()) - 1 if file.is_file() else 0


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stopped_run_goes_on_to_the_same_end(family_dir, shards, tmp_path, number):
    assert run(*config(family_dir, shards, tmp_path / "whole")).returncode == 0
    process = started(*config(family_dir, shards, tmp_path / "run"))
    wait_for(lambda: rows(tmp_path / "run") >= 3)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE == 75, said[-2000:]
    assert f"by {number.name}" in said and "--ckpt_path last" in said and "Traceback" not in said
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert 3 <= saved["global_step"] < 2 * PAIRS // 2 and not (tmp_path / "run/export").exists()
    done = run(*config(family_dir, shards, tmp_path / "run"), "--ckpt_path", "last")
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("metrics.csv", "export/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_one_signalled_process_stops_all(family_dir, shards, tmp_path):
    options = {"devices": 2, "strategy": "ddp", "max_epochs": 20}
    process = started(*config(family_dir, shards, tmp_path / "run", **options))
    wait_for(lambda: rows(tmp_path / "run") >= 3)
    (other,) = children(process.pid)
    os.kill(other, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE, said[-2000:]
    assert "a signal to another process" in said
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["AlignmentDataModule"]["batches"] > 0 and saved["global_step"] >= 3


def test_between_epochs_a_run_stops_at_once(family_dir, tmp_path):
    """In the pass of a cached reference, of which what is finished stays."""
    shards = write_pairs(tmp_path / "pairs", 200)
    process = started(*config(family_dir, shards, tmp_path / "run"), "--model.reference", "cached")
    wait_for(lambda: len(list(shards.glob("reference-*/*.safetensors"))) >= 2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    made = {path: path.stat().st_mtime_ns for path in shards.glob("reference-*/*")}
    assert process.returncode == EXIT_CODE and "stopped between epochs by SIGTERM" in said
    assert 2 <= len(made) < 40 and all(path.suffix == ".safetensors" for path in made)
    for path in made:
        load_file(path)
    # Stopped again in training; the log-ps that were there are there as they were.
    process = started(*config(family_dir, shards, tmp_path / "run"), "--model.reference", "cached")
    wait_for(lambda: rows(tmp_path / "run") >= 1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    after = {path: path.stat().st_mtime_ns for path in shards.glob("reference-*/*")}
    assert len(after) == 40 and all(after[path] == time for path, time in made.items())


def test_a_validation_that_is_due_at_the_step_of_a_signal_is_made_before_the_run_stops(
    family_dir, shards, tmp_path
):
    """A run that goes on from the checkpoint of that step would leave it out."""
    data = ("--data.val", shards, "--trainer.val_check_interval", "4", "--trainer.max_epochs", "1")
    assert run(*config(family_dir, shards, tmp_path / "whole"), *data).returncode == 0
    signalled = "--trainer.callbacks+=tests.training.test_signals.SignalAt"
    options = ("--trust-config", "tests", signalled, "--trainer.callbacks.step=8")
    stopped = run(*config(family_dir, shards, tmp_path / "run"), *data, *options)
    assert stopped.returncode == EXIT_CODE and "stopped after step 8" in stopped.stderr, stopped.stderr[
        -2000:
    ]
    assert list(table(tmp_path / "run", "val/loss")) == [3, 7]
    done = run(*config(family_dir, shards, tmp_path / "run"), *data, "--ckpt_path", "last")
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(table(tmp_path / "whole", "val/loss")) == [3, 7, 11, 15, 19]
    for name in ("metrics.csv", "export/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
