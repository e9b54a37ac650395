"""Which weights a model has: hashes that any training changes, some of them quick."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from rlaifv_pl.models.sharding import full_tensor

VALUES = 64
"""First values of each tensor that count."""
SPOTS, SPOT_BYTES = 16, 1 << 16
"""Places of a weight file that are read, and how much there."""


def fingerprint(model: nn.Module, *, adapters: bool = False) -> str:
    """A hash of the first values of each parameter; adapters are left out unless asked for, since a fresh
    one is drawn. Processes with slices must ask together."""
    digest = hashlib.sha256()
    for name, parameter in _kept(model):
        if adapters or "lora_" not in name:
            digest.update(full_tensor(parameter.detach()).flatten()[:VALUES].double().cpu().numpy().tobytes())
    return digest.hexdigest()


def weights_hash(model: nn.Module, *, adapters: bool = True) -> str:
    """A hash of all weights, byte by byte, statistics of batch normalisation included; of LoRA's too unless told
    otherwise. Processes with slices must ask together."""
    digest = hashlib.sha256()
    for name, parameter in _kept(model):
        if adapters or "lora_" not in name:
            digest.update(
                full_tensor(parameter.detach()).cpu().contiguous().view(-1).view(torch.uint8).numpy().data
            )
    return digest.hexdigest()


def _kept(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and the buffers that are saved with them."""
    yield from model.named_parameters()
    # Not by `state_dict`, which has a model in slices give up what it has gathered.
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(prefix, recurse=False):
            if name.rpartition(".")[2] not in module._non_persistent_buffers_set:
                yield name, buffer


def directory_fingerprint(path: str | Path) -> str:
    """A hash of a model's directory: names and sizes of its files, and what stands at spots spread over them.

    A name that is no directory is a hub's, and stands for itself.
    """
    directory = Path(path)
    if not directory.is_dir():
        return str(path)
    digest = hashlib.sha256()
    for file in sorted(directory.iterdir()):
        if file.is_file():
            digest.update(f"{file.name}/{file.stat().st_size}/".encode())
            digest.update(_spots(file))
    return digest.hexdigest()


def _spots(path: Path) -> bytes:
    step = max(path.stat().st_size // SPOTS, SPOT_BYTES)
    with open(path, "rb") as file:
        found = []
        for number in range(SPOTS):
            file.seek(number * step)
            found.append(file.read(SPOT_BYTES))
    return b"".join(found)
