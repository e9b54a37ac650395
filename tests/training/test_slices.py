"""Checkpoints in slices, as one process with one slice writes and reads them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

from rlaifv_pl.data.atomic import WriteError
from rlaifv_pl.training.checkpoint import is_whole
from rlaifv_pl.training.checkpoint_io import AtomicCheckpointIO, remove_unfinished
from rlaifv_pl.training.sharded_checkpoint import ASIDE, read_file, read_slices, write_slices
from tests.disk import longest_file, mounted

ROWS = 4000


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def checkpoint(mesh: DeviceMesh, value: float) -> dict:
    """With a tied head, and a parameter that AdamW has seen."""
    weight = distribute_tensor(torch.full((ROWS, 3), value), mesh)
    moment = distribute_tensor(torch.full((ROWS, 3), value + 1), mesh)
    return {
        "state_dict": {"embedding": weight, "head": weight, "mean": torch.tensor(value)},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(7.0), "exp_avg": moment}}, "param_groups": []}],
        "callbacks": {"round": 2},
    }  # fmt: skip


def test_what_is_written_is_read_whole_or_in_slices(mesh, tmp_path):
    path = tmp_path / "epoch0-step7.ckpt"
    written = checkpoint(mesh, 0.5)
    write_slices(written, path)
    assert isinstance(written["state_dict"]["head"], DTensor), "the run's own is left as it is"
    whole = AtomicCheckpointIO().load_checkpoint(path)
    sliced = read_slices(path, lambda place, shape: written["state_dict"]["embedding"])
    assert type(whole["state_dict"]["head"]) is torch.Tensor
    assert isinstance(sliced["state_dict"]["head"], DTensor)
    for read in (whole, sliced):
        state = read["state_dict"]
        assert state["head"] is state["embedding"] and state["mean"] == 0.5
        assert (state["head"] == 0.5).all() and state["head"].shape == (ROWS, 3)
        (optimizer,) = read["optimizer_states"]
        assert optimizer["state"][0]["step"] == 7 and (optimizer["state"][0]["exp_avg"] == 1.5).all()
        assert read["callbacks"] == {"round": 2} and "slices" not in read


def test_a_file_is_cut_into_slices(mesh, tmp_path):
    made = checkpoint(mesh, 0.5)
    for state in (made["state_dict"], made["optimizer_states"][0]["state"][0]):
        for name, value in state.items():
            state[name] = value.full_tensor() if isinstance(value, DTensor) else value
    torch.save(made, tmp_path / "one.ckpt")
    like = distribute_tensor(torch.zeros(ROWS, 3), mesh)
    seen = {}
    read = read_file(tmp_path / "one.ckpt", lambda place, shape: seen.setdefault(place, like))
    assert set(seen) == {"weights/embedding", "weights/head", "optimizer 0/0/exp_avg"}
    assert isinstance(read["state_dict"]["head"], DTensor)
    assert (read["optimizer_states"][0]["state"][0]["exp_avg"].full_tensor() == 1.5).all()


def test_a_checkpoint_of_the_same_name_is_replaced_when_the_new_one_is_complete(mesh, tmp_path):
    path = tmp_path / "epoch0-step7.ckpt"
    write_slices(checkpoint(mesh, 0.5), path)
    with longest_file(9_000), pytest.raises(WriteError, match="ulimit"):
        write_slices(checkpoint(mesh, 1.5), path)
    assert is_whole(path) and (read_slices(path)["state_dict"]["head"] == 0.5).all()
    write_slices(checkpoint(mesh, 1.5), path)
    assert (read_slices(path)["state_dict"]["head"] == 1.5).all()
    assert [file.name for file in tmp_path.glob("*.ckpt*")] == [path.name]


def test_a_full_disk_ends_in_one_message(mesh, tmp_path):
    with mounted(tmp_path / "disk", "1m") as disk:
        write_slices(checkpoint(mesh, 0.5), disk.path / "epoch0-step1.ckpt")
        disk.leave(40_000)
        with pytest.raises(WriteError, match=r"epoch0-step2.*cannot be written.*Make room"):
            write_slices(checkpoint(mesh, 1.5), disk.path / "epoch0-step2.ckpt")
        assert [path.name for path in disk.path.glob("*.ckpt")] == ["epoch0-step1.ckpt"]
        disk.empty()
        remove_unfinished(disk.path)
        assert not list(disk.path.glob(f"*{ASIDE}"))
        write_slices(checkpoint(mesh, 1.5), disk.path / "epoch0-step2.ckpt")
        assert is_whole(disk.path / "epoch0-step2.ckpt")
