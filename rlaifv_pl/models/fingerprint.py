"""Hashes of a model's weights, which any training changes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from rlaifv_pl.models.sharding import full_tensor

VALUES = 64
"""Number of leading values of each tensor that are hashed."""
SPOTS, SPOT_BYTES = 16, 1 << 16
"""Number of places of a weight file that are read, and bytes at each."""


def fingerprint(model: nn.Module, *, adapters: bool = False) -> str:
    """Hash the first values of each parameter; all processes of a sharded model call it together.

    Adapters are left out by default, since fresh ones are random.
    """
    digest = hashlib.sha256()
    for name, parameter in _named_weights(model):
        if adapters or "lora_" not in name:
            digest.update(full_tensor(parameter.detach()).flatten()[:VALUES].double().cpu().numpy().tobytes())
    return digest.hexdigest()


def weights_hash(model: nn.Module, *, adapters: bool = True) -> str:
    """Hash all weights byte by byte, statistics of batch normalisation included, and LoRA's by default.

    All processes of a sharded model call it together.
    """
    digest = hashlib.sha256()
    for name, parameter in _named_weights(model):
        if adapters or "lora_" not in name:
            digest.update(
                full_tensor(parameter.detach()).cpu().contiguous().view(-1).view(torch.uint8).numpy().data
            )
    return digest.hexdigest()


def _named_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and persistent buffers."""
    yield from model.named_parameters()
    # Not by `state_dict`, which makes a sharded model reshard.
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(prefix, recurse=False):
            if name.rpartition(".")[2] not in module._non_persistent_buffers_set:
                yield name, buffer


def directory_fingerprint(path: str | Path) -> str:
    """Hash a model's directory: names and sizes of its files, and their bytes at some places.

    A path that is no directory is a hub name, and is returned as it is.
    """
    directory = Path(path)
    if not directory.is_dir():
        return str(path)
    digest = hashlib.sha256()
    for file in sorted(directory.iterdir()):
        if file.is_file():
            digest.update(f"{file.name}/{file.stat().st_size}/".encode())
            digest.update(_sampled_bytes(file))
    return digest.hexdigest()


def _sampled_bytes(path: Path) -> bytes:
    step = max(path.stat().st_size // SPOTS, SPOT_BYTES)
    with open(path, "rb") as file:
        chunks = []
        for number in range(SPOTS):
            file.seek(number * step)
            chunks.append(file.read(SPOT_BYTES))
    return b"".join(chunks)
