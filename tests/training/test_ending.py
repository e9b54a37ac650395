"""Commands that do not end well: Ctrl-C, a reader that has had enough, a terminal that knows few characters."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rlaifv_pl.cli import commands
from rlaifv_pl.training.signals import StopOnSignal
from tests.training.test_signals import children, config, rows, started, wait_for
from tests.training.tiny import REPOSITORY, environment, write_pairs

VERB = [sys.executable, "-m", "rlaifv_pl.cli.commands"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("shards") / "pairs", 40)


@pytest.mark.slow
def test_ctrl_c_ends_the_step_saves_and_says_how_to_go_on(family_dir, shards, tmp_path):
    """With a worker and two processes, all of which a terminal tells; a second Ctrl-C does not wait."""
    options = config(family_dir, shards, tmp_path / "run", devices=2, strategy="ddp", max_epochs=50)
    options += ["--data.num_workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "train.py", *options],
        env=environment(), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: rows(tmp_path / "run") >= 3)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 130, said[-2000:]
    assert "by SIGINT" in said and "Traceback" not in said
    assert f"python train.py {' '.join(options)} --ckpt_path last" in said
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] >= 3 and saved["AlignmentDataModule"]["batches"] > 0


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once(family_dir, shards, tmp_path):
    """The second comes as soon as the first is answered, long before a step of 40 batches ends."""
    options = ("--data.batch_size", "1")
    process = started(
        *config(family_dir, shards, tmp_path / "run", max_epochs=50, accumulate_grad_batches=40), *options
    )
    wait_for(lambda: rows(tmp_path / "run") >= 1)
    process.send_signal(signal.SIGINT)
    answered = next(line for line in process.stderr if "Ctrl-C" in line)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    said = answered + said
    assert process.returncode == 130 and "stopped at once by SIGINT" in said and "Traceback" not in said
    assert not children(os.getpid()) or process.pid not in children(os.getpid())


def test_a_worker_leaves_ctrl_c_to_the_process_that_it_works_for(monkeypatch):
    stop = StopOnSignal()
    stop._process, stop._launcher = os.getpid() + 1, None
    stop._on_signal(signal.SIGINT, None)
    assert stop._received is None


def test_ctrl_c_in_other_commands_is_a_line(monkeypatch, capsys):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(commands, "_run", interrupted)
    try:
        with pytest.raises(SystemExit) as ended:
            commands.main(["feedback"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 130
    assert "Interrupted; the same command" in capsys.readouterr().err


def ascii_only(*arguments: str, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*VERB, *arguments],
        env=environment(PYTHONIOENCODING="ascii", LANG="C", LC_ALL="C", PYTHONUTF8="0", COLUMNS="40", **more),
        cwd=REPOSITORY, capture_output=True, timeout=120,
    )  # fmt: skip


def test_an_ascii_terminal_shows_tables_and_foreign_letters(tmp_path):
    rows = '{"prompt": "caf\\u00e9?", "chosen": "\\u2713", "rejected": "\\u732b", "image": "no.png", "\\u00e9": 1}\n'
    (tmp_path / "caf\u00e9.jsonl").write_text(rows)
    done = ascii_only("shards", "import", str(tmp_path / "caf\u00e9.jsonl"), str(tmp_path / "out"))
    assert b"UnicodeEncodeError" not in done.stderr and b"Traceback" not in done.stderr, done.stderr[-2000:]
    done.stdout.decode("ascii"), done.stderr.decode("ascii")


def test_a_reader_that_has_had_enough_ends_a_command_without_a_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*VERB, "--help"],
        env=environment(),
        cwd=REPOSITORY,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    os.close(writer)
    assert done.returncode == 141 and done.stderr == b""
