"""A checkpoint in slices: a directory into which each process writes what it holds.

Tensors lie in safetensors, everything else in `rest.pt`, which is written last and lists the files. The directory is
written aside and takes its name when it is complete. It is read with any number of processes; nothing of it is
unpickled.
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
"""What the name of a directory ends in while it is written."""

Like = Callable[[str, Sequence[int]], Tensor | None]
"""Of a tensor's place in the checkpoint and its shape, the one in use."""


def write_slices(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint whose tensors are slices; all processes call this together.

    Raises:
        WriteError: a process has no room, or no permission; all processes get it.
    """
    aside = path.with_name(path.name + ASIDE)
    rest, tensors = _taken_apart(checkpoint)
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
    """Do something in the first process, and let the others fail with it."""
    failed: list[tuple[int, str] | None] = [None]
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


def _taken_apart(checkpoint: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A checkpoint without its slices, and these by their places."""
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
    """The checkpoint in a directory.

    Args:
        path: the directory.
        like: what each tensor is cut like; all processes call this together then, and tensors without it are left
            out. Each process gets whole tensors on the CPU if this is not given.
    """
    checkpoint = torch.load(path / REST, map_location="cpu", weights_only=True)
    del checkpoint["slices"]
    reader = HuggingFaceStorageReader(str(path))
    known: dict[str, Any] = reader.read_metadata().state_dict_metadata
    tensors: dict[str, Tensor] = {}
    for place in [place for place, holder, name in _places(checkpoint) if holder[name] is None]:
        about = known[place]
        if like is None:
            tensors[place] = torch.empty(about.size, dtype=about.properties.dtype)
        elif (target := like(place, about.size)) is not None:
            tensors[place] = torch.empty_like(target, dtype=about.properties.dtype)
    dcp.load(tensors, storage_reader=reader, no_dist=like is None)
    for place, holder, name in _places(checkpoint):
        holder[name] = tensors.get(holder[name] if isinstance(holder[name], str) else place, holder[name])
    return checkpoint


def read_file(path: Path, like: Like) -> dict[str, Any]:
    """The checkpoint in a file that a process without slices wrote, cut into slices.

    Args:
        path: the file.
        like: what each tensor is cut like.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    for place, holder, name in _places(checkpoint):
        value = holder[name]
        # The numbers of steps that optimisers count are no weights.
        if isinstance(value, Tensor) and value.dim():
            target = like(place, value.shape)
            holder[name] = value if target is None else shard_like(value, target)
    return checkpoint


def are_complete(path: Path) -> bool:
    """Whether a directory holds all slices of a checkpoint, to their ends."""
    try:
        files = torch.load(path / REST, map_location="cpu", weights_only=True)["slices"]
        return all((path / name).stat().st_size == size for name, size in files.items())
    except Exception:
        return False


def _places(checkpoint: dict[str, Any]) -> Iterator[tuple[str, dict, Any]]:
    """Where tensors of weights and optimisers stand: a name for each, and the dict that holds it under which key."""
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
