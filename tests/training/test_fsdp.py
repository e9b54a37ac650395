"""Models in slices over two processes = a whole model in one: losses, weights, checkpoints, exports."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlaifv_pl.cli.export import export
from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.records import Correction
from rlaifv_pl.training.checkpoint import is_whole
from rlaifv_pl.training.checkpoint_io import AtomicCheckpointIO
from tests.training.tiny import REPOSITORY, dpo_config, environment, noise_pairs, table, write_config

PAIRS, VAL = 15, 9
FSDP = "rlaifv_pl.training.fsdp.FSDP2Strategy"
SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05, "momentum": 0.9}}
LORA = {"lora": {"rank": 4, "dropout": 0.0}, "freeze": []}
MODELS = {
    "live": ("DPOModule", {"reference": "live"}, {}),
    "cached": ("DPOModule", {"reference": "cached"}, {}),
    "lora": ("DPOModule", {"reference": "adapter_off"}, LORA),
    "checkpointing": ("DPOModule", {"reference": "live"}, {"gradient_checkpointing": True}),
    "nsft": ("NSFTModule", {}, {}),
    "sft": ("SFTModule", {}, {}),
}
FILES = {"distributed_checkpoint": False}
RESUMED = {"slices": "live", "file": "live-file", "one": "live-one"}
"""Runs whose last checkpoint is taken away, by the kind of those that are left."""


def write_samples(directory: Path, count: int, seed: int) -> Path:
    """Pairs with corrections; every third one is without an image, so that processes differ in having any."""
    with ShardWriter(directory, recipe={"seed": seed}, samples_per_shard=5) as writer:
        for number, sample in enumerate(noise_pairs(count, seed)):
            correction = Correction(question=f"Is it {sample.chosen[:9]}?", answer="No.")
            images = () if number % 3 == 2 else sample.images
            writer.write(replace(sample, images=images, corrections=(correction,)))
    return directory


def write_run(root: Path, name: str, model: Path, processes: int, strategy: object, kind: str) -> Path:
    module, options, policy = MODELS[kind]
    settings = dpo_config(
        model, root / "pairs", data={"batch_size": 4 // processes, "val": str(root / "val")}
    )
    settings["model"]["class_path"] = f"rlaifv_pl.objectives.{module}"
    settings["model"]["init_args"] |= options | {"optimizer": SGD}
    settings["model"]["init_args"]["policy"] |= policy
    settings["data"] |= {"val_batch_size": 4 // processes}
    settings["trainer"] |= {"devices": processes, "strategy": strategy, "gradient_clip_val": 1.0}
    settings["trainer"] |= {"default_root_dir": str(root / name)}
    return write_config(root / f"{name}.yaml", settings)


def launch(processes: int, configs: Sequence[Path]) -> None:
    """Run them one after the other, in the same processes; each must end well."""
    elastic = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    start = [sys.executable, *(elastic if processes > 1 else []), "-m", "tests.training.many"]
    done = subprocess.run(
        [*start, *map(str, configs)], env=environment(), cwd=REPOSITORY, capture_output=True, text=True, timeout=400
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for config in configs:
        for rank in range(processes):
            said = config.with_name(f"{config.stem}.{rank}.txt").read_text()
            assert not said, f"{config.stem}, rank {rank}: {said}"


def strategy(**options: object) -> dict[str, object]:
    return {"class_path": FSDP, "init_args": options}


@pytest.fixture(scope="module")
def root(family_dir, tmp_path_factory) -> Path:
    """Runs `<kind>-one` of one process and `<kind>` in slices; and resumed ones, `<what was saved>-<who reads it>`."""
    root, model = tmp_path_factory.mktemp("fsdp"), family_dir("llava")
    write_samples(root / "pairs", PAIRS, 0)
    write_samples(root / "val", VAL, 1)
    alone = [write_run(root, f"{kind}-one", model, 1, "auto", kind) for kind in MODELS]
    launch(1, alone)
    sliced = [write_run(root, kind, model, 2, strategy(), kind) for kind in MODELS]
    sliced += [
        write_run(root, "live-file", model, 2, strategy(**FILES), "live"),
        write_run(root, "live-ddp", model, 2, "ddp", "live"),
        write_run(root, "live-copies", model, 2, strategy(devices_per_copy=1), "live"),
        write_run(root, "live-bf16", model, 2, strategy(compute="bfloat16"), "live"),
    ]
    launch(2, sliced)
    again = {}
    for reader, processes, how in (("sliced", 2, strategy()), ("ddp", 2, "ddp"), ("alone", 1, "auto")):
        for kind, source in RESUMED.items():
            name = f"{kind}-{reader}"
            again.setdefault(processes, []).append(write_run(root, name, model, processes, how, "live"))
            shutil.copytree(root / source, root / name, symlinks=True)
            _forget_the_last(root / name)
    for processes, configs in again.items():
        launch(processes, configs)
    return root


def _forget_the_last(run: Path) -> None:
    last = run / "checkpoints" / "epoch1-step8.ckpt"
    shutil.rmtree(last) if last.is_dir() else last.unlink()
    (run / "checkpoints" / "last.ckpt").unlink()
    shutil.rmtree(run / "export")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "export" / "model.safetensors")


def largest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


@pytest.mark.parametrize("kind", MODELS)
def test_slices_learn_what_a_whole_model_learns(root: Path, family_dir, kind: str):
    """Two processes of two samples as one of four; a third of the samples has no image, so that in most batches one
    process has none, or neither."""
    start = load_file(family_dir("llava") / "model.safetensors")
    one, two = weights(root / f"{kind}-one"), weights(root / kind)
    moved = largest(one, start)
    assert moved > 1e-3 and largest(one, two) < 1e-4 * moved


@pytest.mark.parametrize("kind", [*MODELS, "live-ddp", "live-copies"])
def test_slices_log_what_a_whole_model_logs(root: Path, kind: str):
    """Training and validation, batches with samples left over included."""
    alone = f"{kind.partition('-')[0]}-one"
    for column in ("train/loss", "train/lr", "val/loss"):
        one, two = (table(root / name, column) for name in (alone, kind))
        assert list(one) == list(two) and len(one) == (2 if "val" in column else 8)
        for step, value in one.items():
            assert float(two[step]) == pytest.approx(float(value), rel=2e-5, abs=1e-6), (column, step)


@pytest.mark.parametrize("reader", ["sliced", "ddp", "alone"])
@pytest.mark.parametrize("kind", RESUMED)
def test_checkpoints_are_read_by_any_number_of_processes(root: Path, kind: str, reader: str):
    """Of slices, of whole weights from slices, and of a lone process; each run goes on to where it would have been."""
    expected = weights(root / RESUMED[kind])
    assert largest(expected, weights(root / f"{kind}-{reader}")) < 1e-5
    steps = list(table(root / f"{kind}-{reader}", "train/loss"))
    assert steps == list(range(8))


def test_who_saved_in_slices_goes_on_bit_by_bit(root: Path):
    assert largest(weights(root / "live"), weights(root / "slices-sliced")) == 0.0
    assert (root / "live/metrics.csv").read_bytes() == (root / "slices-sliced/metrics.csv").read_bytes()


def test_both_kinds_of_checkpoints_hold_the_same(root: Path):
    sliced, filed = (
        AtomicCheckpointIO().load_checkpoint(root / name / "checkpoints" / "epoch1-step8.ckpt")
        for name in ("live", "live-file")
    )
    assert (root / "live/checkpoints/epoch1-step8.ckpt").is_dir()
    assert sliced["state_dict"].keys() == filed["state_dict"].keys()
    for name, value in filed["state_dict"].items():
        assert torch.equal(sliced["state_dict"][name], value), name
    (one,), (other,) = sliced["optimizer_states"], filed["optimizer_states"]
    assert one["param_groups"] == other["param_groups"] and one["state"].keys() == other["state"].keys()
    for number, state in other["state"].items():
        assert torch.equal(one["state"][number]["momentum_buffer"], state["momentum_buffer"])


def test_an_export_out_of_slices_is_that_of_one_process(root: Path, tmp_path: Path):
    """File by file: as the run wrote it, and as the command makes it of the checkpoint."""
    export(str(root / "live"), str(tmp_path / "made"))
    names = sorted(path.name for path in (root / "live/export").iterdir())
    assert names == sorted(path.name for path in (root / "live-one/export").iterdir())
    # The card and what goes with it tell of the way there, which was not the same.
    for name in set(names) - {"README.md", "rlaifv.json", "training_config.yaml"}:
        made = (tmp_path / "made" / name).read_bytes()
        assert made == (root / "live/export" / name).read_bytes(), name
        assert name.endswith(".safetensors") or made == (root / "live-one/export" / name).read_bytes(), name


def test_bfloat16_is_only_what_is_computed_in(root: Path):
    assert {value.dtype for value in weights(root / "live-bf16").values()} == {torch.float32}
    one, two = (table(root / name, "train/loss") for name in ("live-one", "live-bf16"))
    assert all(abs(float(two[step]) - float(one[step])) < 0.05 for step in one)
    assert largest(weights(root / "live-one"), weights(root / "live-bf16")) > 1e-5


@pytest.mark.parametrize("damage", ["cut", "gone", "rest"])
def test_a_torn_directory_is_recognised(root: Path, tmp_path: Path, damage: str):
    path = tmp_path / "epoch1-step8.ckpt"
    shutil.copytree(root / "live/checkpoints/epoch1-step8.ckpt", path)
    assert is_whole(path)
    slices = sorted(path.glob("*.safetensors"))
    assert len(slices) == 2
    if damage == "gone":
        slices[1].unlink()
    else:
        torn = slices[1] if damage == "cut" else path / "rest.pt"
        torn.write_bytes(torn.read_bytes()[:-100])
    assert not is_whole(path)
