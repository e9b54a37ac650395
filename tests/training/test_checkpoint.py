"""What lies in the checkpoints' directory, what lies in a checkpoint, and which ones are refused."""

import shutil
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from rlaifv_pl.cli.fit import main
from rlaifv_pl.training.checkpoint import RunCheckpoint
from rlaifv_pl.training.checkpoint_io import AtomicCheckpointIO
from tests.families import build
from tests.training.tiny import dpo_config, table, write_config, write_pairs

LORA = ["--model.policy.lora.rank=2", "--model.policy.freeze=[]", "--model.reference=adapter_off"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("shards") / "pairs", 10)


@pytest.fixture(scope="module")
def start(family_dir, shards):
    """`start(directory, *options)` trains there and returns what `main` returns."""

    def run(directory: Path, *options: object):
        settings = dpo_config(family_dir("llava"), shards, export={"enabled": False})
        settings["trainer"]["default_root_dir"] = str(directory)
        return main(
            [
                "fit",
                "--config",
                str(write_config(directory.with_suffix(".yaml"), settings)),
                *map(str, options),
            ]
        )

    return run


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        # 5 updates an epoch, 2 epochs.
        (["--checkpoint.every_n_train_steps=2"], ["epoch1-step8.ckpt", "epoch1-step10.ckpt"]),
        (["--checkpoint.every_n_train_steps=0"], ["epoch0-step5.ckpt", "epoch1-step10.ckpt"]),
        (["--checkpoint.train_time_interval=0:30:00"], ["epoch0-step5.ckpt", "epoch1-step10.ckpt"]),
        (
            ["--checkpoint.every_n_train_steps=3", "--checkpoint.save_top_k=3"],
            ["epoch1-step6.ckpt", "epoch1-step9.ckpt", "epoch1-step10.ckpt"],
        ),
    ],
    ids=["steps", "epochs", "clock", "three"],
)
def test_the_newest_checkpoints_stay_and_last_links_to_the_newest(start, tmp_path, options, kept):
    start(tmp_path / "run", *options)
    assert names(tmp_path / "run") == sorted([*kept, "last.ckpt"])
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert last.is_symlink() and last.resolve().name == kept[-1]
    # Relative, so that the directory may be moved.
    assert not last.readlink().is_absolute()


def test_the_end_of_an_epoch_is_saved_whatever_the_interval(start, tmp_path):
    start(tmp_path / "run", "--checkpoint.every_n_train_steps=4", "--trainer.max_epochs=1")
    assert names(tmp_path / "run") == ["epoch0-step4.ckpt", "epoch0-step5.ckpt", "last.ckpt"]
    saved = torch.load(tmp_path / "run" / "checkpoints" / "epoch0-step5.ckpt", weights_only=True)
    assert saved["AlignmentDataModule"].items() >= {"epoch": 0, "samples": 10, "batches": 5}.items()


def test_a_checkpoint_needs_no_room_among_temporary_files(start, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    start(tmp_path / "run", "--trainer.max_steps=2")
    assert names(tmp_path / "run") == ["epoch0-step2.ckpt", "last.ckpt"]


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path):
    path = tmp_path / "checkpoints" / "epoch0-step2.ckpt"
    with pytest.raises(AttributeError, match="lambda"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "other": lambda: None}, path)
    assert list(path.parent.iterdir()) == []


def test_a_moved_run_goes_on_from_its_last_checkpoint(start, tmp_path):
    start(tmp_path / "old", "--trainer.max_epochs=1")
    (tmp_path / "old").rename(tmp_path / "new")
    start(tmp_path / "new", "--ckpt_path=last")
    assert list(table(tmp_path / "new", "train/loss")) == list(range(10))


@pytest.mark.parametrize("save_top_k", [-1, 0, 1])
def test_keeping_fewer_than_two_is_refused(save_top_k):
    with pytest.raises(ValueError, match=f"save_top_k is {save_top_k}.*at least 2"):
        RunCheckpoint(save_top_k=save_top_k)


def test_a_checkpoint_opens_without_running_code_and_holds_only_what_trains(start, tmp_path):
    cli = start(tmp_path / "run", "--trainer.max_epochs=1")
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    reading = f"import torch; print(len(torch.load({str(path)!r}, weights_only=True)['state_dict']))"
    done = subprocess.run([sys.executable, "-c", reading], capture_output=True, text=True, timeout=60)
    saved = torch.load(path, weights_only=True)
    trained = {name for name, p in cli.model.named_parameters() if p.requires_grad}
    assert 0 < len(trained) < len(list(cli.model.parameters()))
    assert set(saved["state_dict"]) == trained, "neither frozen weights nor the reference"
    assert done.stdout.strip() == str(len(trained)), done.stderr


def test_a_checkpoint_of_other_parameters_is_refused_by_their_names(start, tmp_path):
    start(tmp_path / "run", "--trainer.max_epochs=1")
    with pytest.raises(RuntimeError, match=r"missing \[.*lora_A.*\], unexpected \['policy\.model\.") as full:
        start(tmp_path / "run", "--ckpt_path=last", *LORA)
    assert "config.yaml" in str(full.value)
    with pytest.raises(RuntimeError, match=r"missing \[\], unexpected \['policy\..*multi_modal_projector"):
        start(tmp_path / "run", "--ckpt_path=last", "--model.policy.freeze_projector=true")


def test_a_run_is_not_resumed_from_another_base_but_from_the_same_elsewhere(start, family_dir, tmp_path):
    other = build("llava", tmp_path / "other", seed=1)
    moved = shutil.copytree(family_dir("llava"), tmp_path / "moved")
    start(tmp_path / "run", "--trainer.max_epochs=1", *LORA)
    with pytest.raises(RuntimeError, match=f"started from {family_dir('llava')}.*{other}.*other weights"):
        start(tmp_path / "run", "--ckpt_path=last", f"--model.policy.path={other}", *LORA)
    start(tmp_path / "run", "--ckpt_path=last", f"--model.policy.path={moved}", *LORA)
    assert list(table(tmp_path / "run", "train/loss")) == list(range(10))


def test_the_clock_alone_decides_when_it_is_given():
    checkpoint = RunCheckpoint(every_n_train_steps=5, train_time_interval=timedelta(hours=1))
    assert (checkpoint._every_n_train_steps, checkpoint._every_n_epochs) == (0, 0)


# What `--ckpt_path last` takes.


def test_a_torn_checkpoint_is_set_aside_and_the_one_before_it_taken(start, tmp_path, capsys):
    options = ["--checkpoint.every_n_train_steps", "2", "--checkpoint.save_top_k", "3"]
    start(tmp_path / "whole", *options)
    start(tmp_path / "run", *options, "--trainer.max_epochs", "1")
    # As the machine left it: 5 was linked, its last bytes never came to the disk.
    last = tmp_path / "run/checkpoints/epoch0-step5.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    capsys.readouterr()
    start(tmp_path / "run", *options, "--ckpt_path", "last")
    assert "epoch0-step5.ckpt.torn" in capsys.readouterr().err
    assert table(tmp_path / "run", "train/loss").keys() == table(tmp_path / "whole", "train/loss").keys()
    assert "epoch1-step10.ckpt" in names(tmp_path / "run")


def test_a_checkpoint_that_was_saved_and_not_yet_linked_is_taken(start, tmp_path):
    start(tmp_path / "run", "--trainer.max_epochs", "1")
    newest, link = tmp_path / "run/checkpoints/epoch0-step5.ckpt", tmp_path / "run/checkpoints/last.ckpt"
    link.unlink()
    trainer = start(tmp_path / "run", "--ckpt_path", "last").trainer
    assert trainer.ckpt_path == str(newest) and link.resolve().name == "epoch1-step10.ckpt"


def test_what_killed_runs_left_is_not_kept_for_ever(start, tmp_path):
    """A checkpoint does not know of the one that its run had yet to remove."""
    start(tmp_path / "run", "--trainer.max_epochs", "1")
    directory = tmp_path / "run/checkpoints"
    for step in (1, 2, 3):
        shutil.copy(directory / "epoch0-step5.ckpt", directory / f"epoch0-step{step}.ckpt")
    start(tmp_path / "run", "--ckpt_path", "last")
    assert names(tmp_path / "run") == ["epoch1-step10.ckpt", "epoch1-step8.ckpt", "last.ckpt"]


@pytest.mark.parametrize("other", ["notes.ckpt", "epoch9-step99.txt", "epochal.ckpt"])
def test_foreign_files_are_left_alone(start, tmp_path, other):
    start(tmp_path / "run", "--trainer.max_epochs", "1")
    foreign = tmp_path / "run/checkpoints" / other
    foreign.write_text("mine")
    trainer = start(tmp_path / "run", "--ckpt_path", "last").trainer
    assert trainer.ckpt_path.endswith("epoch0-step5.ckpt") and foreign.read_text() == "mine"


def test_a_run_without_any_starts_fresh(start, tmp_path):
    assert start(tmp_path / "run", "--ckpt_path", "last").trainer.global_step == 10


def test_the_last_checkpoint_is_of_the_run_that_was_started_last(start, tmp_path):
    """The one before it came further; nothing of it is left."""
    start(tmp_path / "run")
    start(tmp_path / "run", "--trainer.max_epochs", "1", "--overwrite", "true")
    assert names(tmp_path / "run") == ["epoch0-step4.ckpt", "epoch0-step5.ckpt", "last.ckpt"]
    trainer = start(tmp_path / "run", "--ckpt_path", "last").trainer
    assert trainer.ckpt_path.endswith("epoch0-step5.ckpt")
    assert list(table(tmp_path / "run", "train/loss")) == list(range(10))
