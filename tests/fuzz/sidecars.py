"""Damage to sidecars: the files beside shards with what was computed of their samples."""

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rlaifv_pl.data.manifest import MANIFEST_NAME
from tests.fuzz.base import Case, write_base

Tensors = dict[str, torch.Tensor]


def _tensors(change: Callable[[Tensors, random.Random], object]) -> Callable[[Case, Path], None]:
    """Other tensors under the right header."""

    def damage(case: Case, path: Path) -> None:
        with safe_open(path, "pt") as file:
            head, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        change(tensors, case.rng)
        save_file({name: value.contiguous() for name, value in tensors.items()}, path, head)

    return damage


def _ends(tensors: Tensors, rng: random.Random) -> str:
    return rng.choice(sorted(name for name in tensors if name.endswith(".ends")))


def _of_ends(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Case, Path], None]:
    def replace(tensors: Tensors, rng: random.Random) -> None:
        name = _ends(tensors, rng)
        tensors[name] = change(tensors[name].clone())

    return _tensors(replace)


def _flipped(case: Case, path: Path) -> None:
    data = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    at = case.rng.choice(
        [case.rng.randrange(start), case.rng.randrange(start, len(data)), case.rng.randrange(8)]
    )
    data[at] ^= 1 << case.rng.randrange(8)
    path.write_bytes(data)
    case.note(f"byte {at} of {len(data)}, values from {start} on")
    # The numbers themselves have no hash: one that changed is delivered, but to no other sample.
    case.loose = at >= start


def _cut(case: Case, path: Path) -> None:
    os.truncate(
        path, case.rng.choice([0, 7, 8, path.stat().st_size - 1, case.rng.randrange(path.stat().st_size)])
    )


def _of_another(case: Case, path: Path) -> None:
    others = [other for other in sorted(path.parent.glob("*.safetensors")) if other != path]
    shutil.copy(case.rng.choice(others), path)


def _instead(make: Callable[[Path], object]) -> Callable[[Case, Path], None]:
    def damage(case: Case, path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def _header(text: bytes) -> Callable[[Case, Path], None]:
    """A file of no tensors with a header of its own."""
    return lambda case, path: path.write_bytes(struct.pack("<Q", len(text)) + text) and None


def _of_older_shards(case: Case, path: Path) -> None:
    kept = path.read_bytes()
    shutil.rmtree(case.shards)
    write_base(case.shards)
    document = json.loads((case.shards / MANIFEST_NAME).read_bytes())
    document["shards"][0]["sha256"] = document["shards"][1]["sha256"]
    (case.shards / MANIFEST_NAME).write_text(json.dumps(document))
    path.parent.mkdir()
    path.write_bytes(kept)


BESIDE: dict[str, Callable[[Case, Path], None]] = {
    "flipped": _flipped,
    "flipped again": _flipped,
    "cut": _cut,
    "of another shard": _of_another,
    "of shards of another hash": _of_older_shards,
    "missing": lambda case, path: path.unlink(),
    "half written": lambda case, path: path.rename(f"{path}.part") and None,
    "directory": _instead(Path.mkdir),
    "pipe": _instead(os.mkfifo),
    "circle": _instead(lambda path: path.symlink_to(path.name)),
    "nowhere": _instead(lambda path: path.symlink_to("gone")),
    "noise": lambda case, path: path.write_bytes(case.rng.randbytes(500)) and None,
    "a header of exabytes": lambda case, path: path.write_bytes(b"\xff" * 7 + b"\x7f" + b"{}") and None,
    "a header that is deep": _header(b"[" * 5000),
    "a header of no tensors": _header(b'{"__metadata__":{"sidecar":"{}"}}'),
    "a header of another kind": _header(b'{"__metadata__":{"sidecar":"[1]"}}'),
    "a header whose JSON is deep": _header(b'{"__metadata__":{"sidecar":"' + b"[" * 5000 + b'"}}'),
    "no ends": _tensors(lambda tensors, rng: tensors.pop(_ends(tensors, rng))),
    "no values": _tensors(lambda tensors, rng: tensors.pop(_ends(tensors, rng).removesuffix(".ends"))),
    "no tensors": _tensors(lambda tensors, rng: tensors.clear()),
    "other names": _tensors(
        lambda tensors, rng: tensors.update({f"x{name}": tensors.pop(name) for name in list(tensors)})
    ),
    "ends of one sample less": _of_ends(lambda ends: ends[:-1]),
    "ends of one sample more": _of_ends(lambda ends: torch.cat([ends, ends[-1:]])),
    "ends moved": _of_ends(lambda ends: ends + 1),
    "an inner end moved": _of_ends(lambda ends: ends.index_add(0, torch.tensor([1]), torch.tensor([1]))),
    "ends turned round": _of_ends(lambda ends: ends.flip(0)),
    "ends beyond the values": _of_ends(lambda ends: ends * 1000),
    "negative ends": _of_ends(lambda ends: -ends),
    "ends of no whole numbers": _of_ends(lambda ends: ends.double() + 0.5),
    "ends that are not numbers": _of_ends(lambda ends: ends.double() * torch.nan),
    "ends of two dimensions": _of_ends(lambda ends: ends[None]),
    "ends of no dimension": _of_ends(lambda ends: ends[0]),
    "values of another type": _tensors(
        lambda tensors, rng: tensors.update({name: value.double() for name, value in tensors.items()})
    ),
    "values of two dimensions": _tensors(
        lambda tensors, rng: tensors.update(
            {name: value[:, None] for name, value in tensors.items() if not name.endswith(".ends")}
        )
    ),
    "values of no dimension": _tensors(
        lambda tensors, rng: tensors.update(
            {name: value[0] for name, value in tensors.items() if not name.endswith(".ends")}
        )
    ),
    "fewer values": _tensors(
        lambda tensors, rng: tensors.update(
            {name: value[:-1] for name, value in tensors.items() if not name.endswith(".ends")}
        )
    ),
}


def _damage(case: Case, kind: str) -> None:
    name = case.pick(BESIDE)
    path = case.rng.choice(sorted(case.shards.glob(f"{kind}-*/*.safetensors")) or [None])
    if path is None:
        return
    case.note(f"{kind} of {path.stem}: {name}")
    if name.startswith(("values", "fewer")):
        case.loose = True
    BESIDE[name](case, path)


def surveyed(case: Case) -> None:
    """A file of sizes."""
    _damage(case, "sizes")


def compared(case: Case) -> None:
    """A file of log-ps under the reference."""
    _damage(case, "reference")


KINDS = {"sizes": surveyed, "log-ps": compared}
