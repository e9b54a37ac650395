"""Checkpoint files: written atomically, and read without unpickling code."""

import shutil
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from safetensors import SafetensorError
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rlaifv_pl.data.atomic import TEMPORARY_SUFFIX, atomic_file, writing
from rlaifv_pl.objectives.checks import RunError
from rlaifv_pl.training.sharded_checkpoint import ASIDE, read_slices


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the final path, and reads tensors and plain values only.

    Lightning's own builds a checkpoint in memory, twice, writes it to the system's temporary directory, and copies it
    from there; from a web address it unpickles whatever comes.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        path = Path(path)
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        tensors = (leaf for leaf in tree_leaves(checkpoint) if isinstance(leaf, Tensor))
        with atomic_file(path, sum(tensor.nbytes for tensor in tensors)) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint file, or a directory of slices.

        Raises:
            RunError: see `read_checked`.
        """

        def read() -> dict[str, Any]:
            if Path(path).is_dir():
                return read_slices(Path(path))
            return super(AtomicCheckpointIO, self).load_checkpoint(path, map_location, weights_only=True)

        return read_checked(path, read)


def read_checked(path: str | Path, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Read a checkpoint, and explain what is wrong with it.

    Raises:
        RunError: it is not a checkpoint, is damaged, or holds objects that would run code when unpickled.
    """
    try:
        checkpoint = read()
    except UnpicklingError as error:
        raise RunError(
            f"{path} holds more than tensors and plain values, so it is not a checkpoint of this program; none of "
            "its code was run. Resume from a checkpoint of the run itself."
        ) from error
    except (RuntimeError, EOFError, SafetensorError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(
            f"{path} is not a checkpoint, or is truncated or damaged. Use another one of the run; --ckpt_path last "
            "takes the newest complete one."
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise RunError(
            f"{path} is not a checkpoint of a run. To start from weights, set policy.path to their directory."
        )
    return checkpoint


def remove_unfinished(directory: Path) -> None:
    """Remove checkpoints that a killed process did not finish writing."""
    for path in directory.glob(f"*.ckpt{TEMPORARY_SUFFIX}"):
        path.unlink()
    for path in directory.glob(f"*.ckpt{ASIDE}"):
        shutil.rmtree(path)
