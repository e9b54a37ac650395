"""Sharded checkpoints: a directory into which each process writes its slices.

Tensors are stored in safetensors, everything else in `rest.pt`, which is written last and lists the files. The
directory is written under another name and renamed when it is complete. Any number of processes can read it, without
unpickling code.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor

from rlaifv_pl.data.atomic import WriteError, atomic_file, explain_disk_error, writing
from rlaifv_pl.data.atomic_directory import replace_directory
from rlaifv_pl.models.sharding import shard_like

REST = "rest.pt"
ASIDE = ".writing"
"""Suffix of a directory that is being written."""

Like = Callable[[str, Sequence[int]], Tensor | None]
"""Gives the tensor in use for a place in the checkpoint and a shape."""


def write_slices(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint whose tensors are slices; all processes must call this together.

    Raises:
        WriteError: a process has no space or no permission; raised in all processes.
    """
    aside = path.with_name(path.name + ASIDE)
    rest, tensors = _split_tensors(checkpoint)
    _on_first(lambda: _make_empty(aside), aside)
    try:
        dcp.save(tensors, storage_writer=HuggingFaceStorageWriter(str(aside), save_distributed=True))
    except dcp.CheckpointException as error:
        fault = next(
            (found for cause, _ in error.failures.values() if (found := explain_disk_error(cause))), None
        )
        if fault is None:
            raise
        raise WriteError(aside, fault) from error
    _on_first(lambda: _finish(rest, aside, path), aside)


def _on_first(work: Callable[[], None], path: Path) -> None:
    """Do something in the first process; its failure is raised in all."""
    failed: list[tuple[int | None, str | None] | None] = [None]
    try:
        if dist.get_rank() == 0:
            with writing(path):
                work()
    except OSError as error:
        failed = [(error.errno, error.strerror)]
        raise
    finally:
        dist.broadcast_object_list(failed)
    if failed[0] is not None:
        raise OSError(*failed[0], str(path))


def _make_empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def _finish(rest: dict[str, Any], aside: Path, path: Path) -> None:
    rest["slices"] = {file.name: file.stat().st_size for file in aside.iterdir()}
    with atomic_file(aside / REST) as file:
        torch.save(rest, file)
    replace_directory(aside, path)


def _split_tensors(checkpoint: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Split a checkpoint into everything but its slices, and the slices by their places."""
    rest = _with_copied_dicts(checkpoint)
    tensors: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    for place, holder, name in _places(rest):
        value = holder[name]
        if isinstance(value, DTensor) and id(value) in first:
            holder[name] = first[id(value)]  # Tied: it stands there.
        elif isinstance(value, DTensor):
            first[id(value)] = place
            tensors[place], holder[name] = value.detach(), None
    return rest, tensors


def read_slices(path: Path, like: Like | None = None) -> dict[str, Any]:
    """Read the checkpoint in a directory.

    Args:
        path: the directory.
        like: gives the tensor that each one is sharded like, or None to leave it out; all processes must call this
            together. Without it, each process gets whole tensors on the CPU.
    """
    checkpoint = torch.load(path / REST, map_location="cpu", weights_only=True)
    del checkpoint["slices"]
    reader = HuggingFaceStorageReader(str(path))
    metadata: dict[str, Any] = reader.read_metadata().state_dict_metadata
    tensors: dict[str, Tensor] = {}
    for place in [place for place, holder, name in _places(checkpoint) if holder[name] is None]:
        stored = metadata[place]
        if like is None:
            tensors[place] = torch.empty(stored.size, dtype=stored.properties.dtype)
        elif (target := like(place, stored.size)) is not None:
            tensors[place] = torch.empty_like(target, dtype=stored.properties.dtype)
    dcp.load(tensors, storage_reader=reader, no_dist=like is None)
    for place, holder, name in _places(checkpoint):
        holder[name] = tensors.get(holder[name] if isinstance(holder[name], str) else place, holder[name])
    return checkpoint


def read_file(path: Path, like: Like) -> dict[str, Any]:
    """Read a single-file checkpoint into slices.

    Args:
        path: the file.
        like: gives the tensor that each one is sharded like, or None to keep it whole.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    for place, holder, name in _places(checkpoint):
        value = holder[name]
        # The step counts of optimisers are not sharded.
        if isinstance(value, Tensor) and value.dim():
            target = like(place, value.shape)
            holder[name] = value if target is None else shard_like(value, target)
    return checkpoint


def are_complete(path: Path) -> bool:
    """Whether a directory holds all slices of a checkpoint, each complete."""
    try:
        files = torch.load(path / REST, map_location="cpu", weights_only=True)["slices"]
        return all((path / name).stat().st_size == size for name, size in files.items())
    except Exception:
        return False


def _places(checkpoint: dict[str, Any]) -> Iterator[tuple[str, dict, Any]]:
    """Places of the tensors of weights and optimisers: a name for each, the dict that holds it, and its key there."""
    for name in checkpoint["state_dict"]:
        yield f"weights/{name}", checkpoint["state_dict"], name
    for number, optimizer in enumerate(checkpoint.get("optimizer_states", [])):
        for parameter, state in optimizer["state"].items():
            for name in state:
                yield f"optimizer {number}/{parameter}/{name}", state, name


def _with_copied_dicts(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_copied_dicts(inner) for name, inner in value.items()}
    return [_with_copied_dicts(inner) for inner in value] if type(value) is list else value
