"""Two processes with a batch each = one process with both: samples, losses, weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.tiny import dpo_config, run, table, write_config, write_pairs

PAIRS = 15  # in batches of 4: three whole ones and a rest of 3


@pytest.fixture(scope="module")
def runs(family_dir, tmp_path_factory) -> dict[int, Path]:
    """Directories of the same run by the number of its processes."""
    root = tmp_path_factory.mktemp("processes")
    shards, val = write_pairs(root / "pairs", PAIRS), write_pairs(root / "val", 8, seed=1)
    directories = {}
    for processes in (1, 2):
        data = {"batch_size": 4 // processes, "val": str(val)}
        settings = dpo_config(family_dir("llava"), shards, data=data)
        # AdamW would make whole steps of gradients that are mere rounding.
        sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05, "momentum": 0.9}}
        settings["model"]["init_args"]["optimizer"] = sgd
        trainer = {"devices": processes, "max_epochs": 2}
        trainer |= {"strategy": "ddp" if processes == 2 else "auto", "gradient_clip_val": 1.0}
        directories[processes] = root / f"run{processes}"
        settings["trainer"] |= trainer | {"default_root_dir": str(directories[processes])}
        arguments = ["fit", "--config", str(write_config(root / f"{processes}.yaml", settings))]
        # Not in this process: the shim of torchvision would prepare the images a little differently.
        done = run(*arguments)
        assert done.returncode == 0, done.stderr[-2000:]
    return directories


@pytest.mark.parametrize(
    "column",
    [
        "train/loss",
        "train/logps/chosen",
        "train/logps/rejected",
        "train/rewards/margins",
        "val/loss",
        "train/lr",
    ],
)
def test_both_processes_together_see_the_batches_of_one(runs, column):
    """The mean log-ps of a batch tell its samples: no two have the same."""
    one, two = (table(runs[processes], column) for processes in (1, 2))
    assert list(one) == list(two) and len(one) == (2 if "val" in column else 8)
    for step, value in one.items():
        # What is logged is the mean over the processes; in an epoch's last step one of them has fewer pairs.
        if "val" in column or column == "train/lr" or step % 4 < 3:
            assert float(two[step]) == pytest.approx(float(value), rel=1e-5, abs=1e-6), step


def test_both_processes_together_learn_the_weights_of_one(runs, family_dir):
    one, two = (load_file(runs[processes] / "export" / "model.safetensors") for processes in (1, 2))
    start = load_file(family_dir("llava") / "model.safetensors")
    assert one.keys() == two.keys()
    moved = max((one[name] - start[name]).abs().max().item() for name in one)
    apart = max((one[name] - two[name]).abs().max().item() for name in one)
    assert moved > 1e-2 and apart < 1e-4 * moved, (moved, apart)


def test_one_process_writes_the_files_of_a_run_of_two(runs):
    names = [sorted(path.name for path in runs[processes].iterdir()) for processes in (1, 2)]
    assert names[0] == names[1]
    assert len(list((runs[2] / "tensorboard").glob("events.*"))) == 1
    (one, two) = (
        torch.load(runs[processes] / "checkpoints" / "last.ckpt", weights_only=True) for processes in (1, 2)
    )
    assert one["AlignmentDataModule"] == two["AlignmentDataModule"]
    assert one["AlignmentDataModule"].items() >= {"epoch": 1, "samples": 15, "batches": 4}.items()
    assert one["state_dict"].keys() == two["state_dict"].keys()
