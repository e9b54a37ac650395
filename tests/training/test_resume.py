"""Killed anywhere = never killed, through the real command line: samples, losses, logs, weights."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from rlaifv_pl.cli.fit import main
from tests.training.tiny import command, dpo_config, environment, run, table, write_config, write_pairs

LORA = {"rank": 2, "alpha": 8.0, "dropout": 0.5}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("shards") / "pairs", 21)


def config(family_dir, shards: Path, directory: Path, **changes) -> Path:
    """The config file of a run in `directory`."""
    settings = dpo_config(family_dir("llava"), shards, **changes)
    settings["trainer"]["default_root_dir"] = str(directory)
    return write_config(directory.with_suffix(".yaml"), settings)


def weights(directory: Path) -> bytes:
    return (directory / "export" / "model.safetensors").read_bytes()


def kill_when(path: Path, lines: int, *arguments: object) -> int:
    """Starts training and kills it for good as soon as `path` has that many lines; its return code."""
    process = subprocess.Popen(command(*arguments), env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    return process.wait(timeout=30)


def test_a_run_killed_twice_leaves_what_an_unkilled_one_leaves(family_dir, shards, tmp_path):
    val = {"val": str(write_pairs(tmp_path / "val", 4, seed=1))}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    keeping = {"every_n_train_steps": 3}
    never = run("fit", "--config", config(family_dir, shards, whole, data=val, checkpoint=keeping))
    assert never.returncode == 0, never.stderr

    options = ["fit", "--config", config(family_dir, shards, killed, data=val, checkpoint=keeping)]
    options += ["--ckpt_path", "last"]  # there is none at first: it starts fresh
    for lines in (6, 15):  # in the first epoch, in the second; both between two checkpoints
        assert kill_when(killed / "metrics.csv", lines, *options) == -signal.SIGKILL
        assert not (killed / "export").exists()
    done = run(*options)
    assert done.returncode == 0, done.stderr

    # Byte for byte; the log-ps of a batch tell its samples: no two have the same.
    assert (killed / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    assert list(table(killed, "train/loss")) == list(range(22))
    assert list(table(killed, "val/loss")) == [10, 21]
    assert weights(killed) == weights(whole)

    assert len(list((killed / "tensorboard").glob("events.out.tfevents.*"))) >= 3
    starts = sorted(path.name for path in killed.glob("config*.yaml"))
    assert starts == ["config.start0.yaml", "config.start1.yaml", "config.start2.yaml", "config.yaml"]

    main([str(option) for option in options])  # a finished run has nothing left to do
    assert list(table(killed, "train/loss")) == list(range(22))
    assert weights(killed) == weights(whole)


class Killed(BaseException):
    """Nothing that Lightning would handle."""


class KillAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise Killed


def killed_at(step: int, *arguments: str) -> None:
    """Trains in this process up to the first moment of a step."""
    callback = ["--trust-config", "tests", "--trainer.callbacks+=tests.training.test_resume.KillAt"]
    callback += [f"--trainer.callbacks.step={step}"]
    with pytest.raises(Killed):
        main(["fit", *arguments, *callback])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_dropout_of_a_resumed_run_is_that_of_an_unkilled_one(family_dir, shards, tmp_path, accumulate):
    def options(name):
        changed = {"accumulate_grad_batches": accumulate, "max_epochs": 1}
        path = config(family_dir, shards, tmp_path / name, trainer=changed)
        more = ["--model.reference", "adapter_off"]
        more += [f"--model.policy.lora.{key}={value}" for key, value in LORA.items()]
        return ["--config", str(path), *more, "--model.policy.freeze=[]"]

    main(["fit", *options("whole")])
    killed_at(3, *options("killed"))
    torch.rand(17)  # the generator is elsewhere when the run goes on
    main(["fit", *options("killed"), "--ckpt_path", "last"])
    losses = table(tmp_path / "whole", "train/loss")
    assert table(tmp_path / "killed", "train/loss") == losses
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")

    # Dropout does act, and differs from step to step: without it the run is another one.
    main(["fit", *options("dry"), "--model.policy.lora.dropout=0"])
    assert table(tmp_path / "dry", "train/loss") != losses


def test_a_row_that_a_kill_left_unwritten_is_added_on_resuming(family_dir, shards, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    main(["fit", "--config", str(config(family_dir, shards, whole))])
    options = ["--config", str(config(family_dir, shards, killed))]
    killed_at(4, *options)  # right after the checkpoint of 4 updates
    file = killed / "metrics.csv"
    lines = file.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 4
    file.write_text("".join(lines[:-1]) + lines[-1][:-9])  # the row of the last was just being written
    main(["fit", *options, "--ckpt_path", "last"])
    assert file.read_text() == (whole / "metrics.csv").read_text()


def test_a_fresh_start_in_an_old_directory_starts_the_table_afresh(family_dir, shards, tmp_path):
    options = ["fit", "--config", str(config(family_dir, shards, tmp_path / "run"))]
    main([*options, "--trainer.max_steps", "5"])
    main([*options, "--trainer.max_steps", "3", "--overwrite", "true"])
    assert list(table(tmp_path / "run", "train/loss")) == [0, 1, 2]


def test_a_longer_run_goes_on_where_max_steps_stopped_a_shorter_one(family_dir, shards, tmp_path):
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    constant = ["--model.schedule", "constant", "--model.warmup", "0"]
    main(["fit", "--config", str(config(family_dir, shards, whole)), *constant])
    options = ["fit", "--config", str(config(family_dir, shards, longer)), *constant]
    main([*options, "--trainer.max_steps", "6"])
    main([*options, "--ckpt_path", "last"])
    assert table(longer, "train/loss") == table(whole, "train/loss")
    assert weights(longer) == weights(whole)
