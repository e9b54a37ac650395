"""The README's commands, run one after the other as a newcomer would, on small data."""

import json
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from rlaifv_pl import cli, verbs
from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.world import shipped
from tests import coco

ROOT = Path(__file__).parents[1]
COMMANDS = re.findall(
    r"^    (?:.*&& )?((?:python train\.py|rlaifv) .*)$", (ROOT / "README.md").read_text(), re.MULTILINE
)
SMALL = (
    " --trainer.max_steps 2 --trainer.max_epochs 1 --trainer.accelerator cpu --trainer.precision 32-true"
    " --trainer.enable_progress_bar false --trainer.accumulate_grad_batches 1"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with the repository's configs, a source file, correction shards and a small model."""
    home = tmp_path_factory.mktemp("home")
    for name in ("configs", "train.py", "rlaifv_pl"):
        (home / name).symlink_to(ROOT / name)
    (home / "DIR").symlink_to(shipped("base"))
    coco.write_trl(home).rename(home / "my_pairs.parquet")
    with ShardWriter(home / "shards" / "corrections", recipe={"photos": "corrections"}) as writer:
        for sample in coco.nsft_samples():
            writer.write(sample)
    return home


def run(command: str, monkeypatch) -> None:
    """What the shell would do, without the seconds that each new process takes to import torch."""
    words = command.split()
    monkeypatch.setattr(sys, "argv", words[1:] if words[0] == "python" else words)
    (cli.main if words[0] == "python" else verbs.main)()


@coco.needs_photos
def test_the_commands_of_the_readme_run_in_their_order(home, monkeypatch):
    monkeypatch.chdir(home)
    quickstart, *others = COMMANDS
    assert len(others) >= 9 and quickstart.endswith("configs/quickstart.yaml")
    few = (
        (home / "configs" / "quickstart.yaml")
        .read_text()
        .replace("count: 400", "count: 12")
        .replace("count: 500", "count: 12")
    )
    (home / "few.yaml").write_text(few)
    run(f"{quickstart} --config few.yaml{SMALL}", monkeypatch)
    summary = json.loads((home / "runs" / "quickstart" / "summary.json").read_text())
    assert set(summary) == {"before", "after", "seconds", "seed"}
    assert {"instance", "sentence", "recall", "length"} <= set(summary["before"])
    for command in others:
        run(command + (SMALL if "train.py" in command else ""), monkeypatch)
    assert (home / "my-model" / "model.safetensors").is_file() and (home / "mine.png").stat().st_size > 10_000


def test_the_console_script_is_installed():
    (script,) = entry_points(group="console_scripts", name="rlaifv")
    assert script.load() is verbs.main
