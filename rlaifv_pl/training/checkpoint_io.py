"""Files of checkpoints: whole or not at all, and read without running what is in them."""

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
    """Writes beside the place of the file, and reads tensors and plain values alone.

    Lightning's own builds a checkpoint in memory, twice, writes it to the system's directory of temporary files, and
    copies it from there under its name; from a web address it unpickles whatever comes.
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
        """What is in a file, or in a directory of slices.

        Raises:
            RunError: as `checked`.
        """

        def read() -> dict[str, Any]:
            if Path(path).is_dir():
                return read_slices(Path(path))
            return super(AtomicCheckpointIO, self).load_checkpoint(path, map_location, weights_only=True)

        return checked(path, read)


def checked(path: str | Path, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A checkpoint, however it is read.

    Raises:
        RunError: it is no checkpoint, is damaged, or holds something that runs when it is read.
    """
    try:
        checkpoint = read()
    except UnpicklingError as error:
        raise RunError(
            f"{path} holds more than tensors and plain values, so it is no checkpoint of this program; nothing of "
            "it was run. Resume from a checkpoint of the run itself."
        ) from error
    except (RuntimeError, EOFError, SafetensorError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(
            f"{path} is no checkpoint, or was cut or damaged. Take another one of the run; --ckpt_path last takes "
            "the newest that is whole."
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise RunError(
            f"{path} is no checkpoint of a run. To start from weights, name their directory: policy.path."
        )
    return checkpoint


def sweep(directory: Path) -> None:
    """Remove what a kill left of files in writing."""
    for path in directory.glob(f"*.ckpt{TEMPORARY_SUFFIX}"):
        path.unlink()
    for path in directory.glob(f"*.ckpt{ASIDE}"):
        shutil.rmtree(path)
