"""A run whose disk is full, or may not be written: one message, nothing lost, and it goes on."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from rlaifv_pl.cli import commands
from rlaifv_pl.data.atomic import WriteError
from rlaifv_pl.export.policy import export_policy
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor
from rlaifv_pl.training.checkpoint import is_whole
from tests.disk import Disk, longest_file, mounted
from tests.training.tiny import dpo_config, write_config, write_pairs


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", "16m") as made:
        yield made


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("shards") / "pairs", 10)


@pytest.fixture
def start(family_dir, shards, tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """`start(directory, *options)` trains there, as the shell would; what it says when it fails, else nothing."""

    def train(directory: Path, *options: str) -> str:
        settings = dpo_config(family_dir("llava"), shards)
        settings["trainer"]["default_root_dir"] = str(directory)
        settings["model"]["init_args"] |= {"schedule": "constant", "warmup": 0.0}
        config = write_config(tmp_path / f"{directory.name}.yaml", settings)
        monkeypatch.setattr(sys, "argv", ["train.py", "fit", "--config", str(config), *options])
        try:
            commands.main()
        except SystemExit as stopped:
            assert "Traceback" not in capsys.readouterr().err
            return stopped.code
        return ""

    return train


def left(directory: Path) -> list[str]:
    """Whatever is not meant to stay."""
    endings = (".part", ".tmp", ".torn", ".writing", ".old")
    return [path.name for path in directory.rglob("*") if path.name.endswith(endings)]


# A checkpoint has 613 kB: the disk is full before the first step, at the first, and in the first checkpoint.
@pytest.mark.parametrize("free", [0, 9_000, 600_000])
def test_a_run_goes_on_once_there_is_room(start, disk, tmp_path, free):
    assert not start(tmp_path / "whole")
    directory = disk.path / "run"
    assert not start(directory, "--trainer.max_epochs", "1")
    before = {path.name: path.read_bytes() for path in directory.glob("checkpoints/epoch*")}
    disk.leave(free)
    said = start(directory, "--ckpt_path", "last")
    assert said.startswith(f"error: {directory}/") and said.count("cannot be written") == 1
    assert "No space left on device" in said and "free). Make room there" in said and len(said) < 500
    assert not left(directory)
    kept = [path for path in directory.glob("checkpoints/epoch*") if is_whole(path)]
    assert len(kept) >= 2 and any(path.read_bytes() == before.get(path.name) for path in kept)
    for path in kept:
        assert torch.load(path, weights_only=True)["global_step"] >= 4
    disk.empty()
    assert not start(directory, "--ckpt_path", "last")
    for name in ("metrics.csv", "export/model.safetensors"):
        assert (directory / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_where_nobody_may_write_says_so_at_its_start(start, disk):
    disk.protect()
    said = start(disk.path / "run")
    assert said.startswith("error: trainer.default_root_dir: ") and f"{disk.path} is read-only" in said
    assert "Name another place: --trainer.default_root_dir" in said


def test_a_checkpoint_that_cannot_be_written_leaves_the_ones_before(start, tmp_path):
    """On any machine: no file may be as long as a checkpoint."""
    directory = tmp_path / "run"
    assert not start(directory, "--trainer.max_epochs", "1", "--export.enabled", "false")
    with longest_file(400_000):
        said = start(directory, "--ckpt_path", "last")
    assert "epoch1-step6.ckpt cannot be written: File too large" in said and "ulimit -f" in said
    names = sorted(path.name for path in (directory / "checkpoints").iterdir())
    assert names == ["epoch0-step4.ckpt", "epoch0-step5.ckpt", "last.ckpt"]
    assert not start(directory, "--ckpt_path", "last") and (directory / "export").is_dir()


def test_what_a_kill_left_of_a_checkpoint_is_swept_away(start, tmp_path):
    directory = tmp_path / "run"
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "checkpoints/epoch0-step2.ckpt.part").write_bytes(b"half")
    assert not start(directory, "--trainer.max_steps", "2") and not left(directory)


def test_an_export_that_does_not_fit_takes_no_room_and_leaves_the_last_one(family_dir, disk):
    spec = PolicySpec(path=str(family_dir("llava")))
    model, processor, out = load_model(spec), load_processor(spec), disk.path / "model"
    export_policy(model, processor, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    disk.leave(100_000)
    with pytest.raises(
        WriteError, match=r"model.writing cannot be written: No space .*at least 338.* needed"
    ):
        export_policy(model, processor, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before and not left(disk.path)
    assert shutil.disk_usage(disk.path).free > 90_000
    AutoModelForImageTextToText.from_pretrained(out)
    disk.empty()
    export_policy(model, processor, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_verb_says_it_too(disk, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a?", "chosen": "b", "rejected": "c"}\n')
    disk.leave(0)
    with pytest.raises(SystemExit) as stopped:
        commands.main(["shards", "import", str(rows), str(disk.path / "shards")])
    assert str(stopped.value).startswith(f"error: {disk.path}/shards")
    assert "No space left on device" in str(stopped.value)
    disk.empty()
    commands.main(["shards", "import", str(rows), str(disk.path / "shards")])
    assert (disk.path / "shards/manifest.json").is_file()
