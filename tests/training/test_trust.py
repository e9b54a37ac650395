"""A config names classes of this package and of a few others; naming one runs its code."""

import subprocess
import sys
from pathlib import Path

import pytest

from rlaifv_pl.cli.trust import trust_packages
from tests.training.tiny import REPOSITORY, dpo_config, environment, run, write_config, write_pairs

STRANGER = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from lightning.pytorch import Callback
class Stranger(Callback):
    pass
def judge(verdicts):
    return 0
"""


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A folder with a module that leaves a file `ran` when it is imported."""
    (tmp_path / "stranger.py").write_text(STRANGER)
    return tmp_path


def fit(family_dir, folder: Path, name: str, *more: str) -> subprocess.CompletedProcess:
    settings = dpo_config(family_dir("llava"), write_pairs(folder / "pairs", 2))
    settings["trainer"] |= {"default_root_dir": str(folder / "run"), "max_epochs": 1}
    settings["trainer"]["callbacks"] = [{"class_path": name}]
    config = write_config(folder / "config.yaml", settings)
    return run("fit", "--config", config, *more, PYTHONPATH=str(folder))


def test_a_config_cannot_run_a_strangers_code(family_dir, stranger):
    done = fit(family_dir, stranger, "stranger.Stranger")
    assert done.returncode == 2 and not (stranger / "ran").exists(), done.stderr[-2000:]
    assert (
        "configs may not name stranger.Stranger, unless you trust it: --trust-config PACKAGE" in done.stderr
    )


def test_a_stranger_that_is_trusted_is_let_in(family_dir, stranger):
    done = fit(family_dir, stranger, "stranger.Stranger", "--trust-config", "stranger")
    assert done.returncode == 0 and (stranger / "ran").exists(), done.stderr[-2000:]


@pytest.mark.parametrize(
    "name", ["os.system", "rlaifv_pl.cli.fit.os.system", "torch.hub.load", "stranger.judge", "builtins.eval"]
)
def test_a_function_of_feedback_cannot_be_anything(stranger, name):
    """Not through a door of our own either."""
    config = str(REPOSITORY / "configs/feedback.yaml")
    arguments = ["--config", config, "--prompts", "none", "--out", str(stranger / "out")]
    done = subprocess.run(
        [sys.executable, "-c", "from rlaifv_pl.cli.commands import main; main()", "feedback", *arguments,
         f"--feedback.combine={name}"],
        env=environment(PYTHONPATH=f"{stranger}:{REPOSITORY}"), capture_output=True, text=True, cwd=stranger,
    )  # fmt: skip
    assert done.returncode != 0 and "configs may not name" in done.stderr, done.stderr[-2000:]
    assert not (stranger / "ran").exists()


def test_the_option_is_taken_off_the_command_line():
    assert trust_packages(["fit", "--trust-config", "json", "--x", "1", "--trust-config=csv"]) == [
        "fit",
        "--x",
        "1",
    ]
