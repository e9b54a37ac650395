"""Damage to what lies beside shards: the manifest, and sidecars with what was computed of the samples."""

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rlaifv_pl.data.manifest import MANIFEST_NAME
from tests.data.rows import odd_value
from tests.fuzz.base import Case, write_base

Document = dict[str, Any]


def _shard(changes: Callable[[Case], Document]) -> Callable[[Case, Document], None]:
    return lambda case, document: document["shards"][case.rng.randrange(3)].update(changes(case))


def _set(**changes: object) -> Callable[[Case, Document], None]:
    return lambda case, document: document.update(changes)


def _name(case: Case) -> Document:
    outside = str(case.here / "canary" / "secret.png")
    names = ["../canary/secret.png", outside, "..", ".", "", "canary/../x.tar", "x\0.tar", "x" * 5000, "\udcff.tar",
             "~/x.tar", "-rf.tar", "manifest.json", "no.tar", "s\u00e9.tar", "http://x.org/y.tar"]  # fmt: skip
    return {"name": case.rng.choice(names)}


def _linked(case: Case, document: Document) -> None:
    """The name of a shard leads to a directory, a pipe or nowhere."""
    tar = case.shards / document["shards"][1]["name"]
    tar.unlink()
    how = case.rng.choice(["directory", "pipe", "circle", "nowhere"])
    {
        "directory": tar.mkdir,
        "pipe": lambda: os.mkfifo(tar),
        "circle": lambda: tar.symlink_to(tar.name),
        "nowhere": lambda: tar.symlink_to("gone.tar"),
    }[how]()
    case.note(how)


EDITS: dict[str, Callable[[Case, Document], None]] = {
    "name": _shard(_name),
    "name of another": _shard(lambda case: {"name": "shard-000001.tar"}),
    "name of no text": _shard(lambda case: {"name": case.rng.choice([7, None, ["shard-000001.tar"], {}])}),
    "bytes": _shard(lambda case: {"bytes": case.rng.choice([0, -1, 10**30, "10240", None, 10240.0, [1]])}),
    "hash": _shard(lambda case: {"sha256": case.rng.choice(["", "0" * 64, "0" * 63, None, 7, "A" * 64])}),
    "count": _shard(lambda case: {"samples": case.rng.choice([0, 2, 4, -3, 10**30, "3", None, 3.0, True, [3]])}),
    "counts that add up": lambda case, document: (
        document["shards"][0].update(samples=4),
        document["shards"][1].update(samples=2),
    ),
    "shard with more fields": _shard(lambda case: {"url": "x"}),
    "shard with fewer fields": lambda case, document: document["shards"][0].pop("sha256"),
    "no shards": _set(shards=[]),
    "shards of no list": lambda case, document: document.update(
        shards=case.rng.choice([None, 7, "abc", {"name": 1}, [None], [[]], ["x"], [{}]])
    ),
    "a shard left out": lambda case, document: document["shards"].pop(),
    "a shard twice": lambda case, document: document["shards"].append(document["shards"][0]),
    "shards turned round": lambda case, document: document["shards"].reverse(),
    "a shard that leads elsewhere": _linked,
    "version": lambda case, document: document.update(
        schema_version=case.rng.choice([0, 2, "1", None, 1.0, True, [1], 10**30])
    ),
    "no version": lambda case, document: document.pop("schema_version"),
    "another field": _set(format="webdataset"),
    "a field less": lambda case, document: document.pop(case.rng.choice(["kinds", "recipe", "parents", "recipe_hash"])),
    "counts of no numbers": _set(kinds={"preference": "many"}, drops={"x": None}),
    "drops of no object": lambda case, document: document.update(
        {case.rng.choice(["drops", "kinds", "recipe", "versions", "notes"]): case.rng.choice([None, 7, "x", ["a"]])}
    ),
    "parents of no list": lambda case, document: document.update(
        parents=case.rng.choice([None, 7, "abc", {"a": 1}, [None], [["x"]]])
    ),
    "round of no number": lambda case, document: document.update(round=case.rng.choice(["2", 1.5, [], -1])),
    "numbers that JSON lacks": _set(recipe={"beta": float("nan")}),
    "half a pair": _set(recipe={"name": "\ud800"}, recipe_hash="\udcff"),
    "odd values": lambda case, document: document.update(
        {name: _plain(odd_value(case.rng)) for name in case.rng.sample(sorted(document), 2)}
    ),
}  # fmt: skip


def _plain(value: object) -> Any:
    return json.loads(json.dumps(value, default=lambda data: data.decode(errors="replace")))


def edited(case: Case) -> None:
    """Values of the manifest are others."""
    path = case.shards / MANIFEST_NAME
    document = json.loads(path.read_bytes())
    name = case.pick(EDITS)
    case.note(name)
    EDITS[name](case, document)
    path.write_text(json.dumps(document))


FILES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": lambda data, rng: data[: rng.randrange(len(data))],
    "flipped": lambda data, rng: _flip(data, rng),
    "empty": lambda data, rng: b"",
    "a list": lambda data, rng: b"[" + data + b"]",
    "a text": lambda data, rng: b'"' + b"x" * 10**6 + b'"',
    "null": lambda data, rng: b"null",
    "noise": lambda data, rng: rng.randbytes(200),
    "deep": lambda data, rng: b"[" * 10**5,
    "deep inside": lambda data, rng: data.rstrip()[:-1] + b', "notes": ' + b"[" * 980 + b"]" * 980 + b"}",
    "a number of too many digits": lambda data, rng: b'{"schema_version": ' + b"1" * 5000 + b"}",
    "a version of many digits": lambda data, rng: b'{"schema_version": ' + b"1" * 4000 + b"}",
    "UTF-16": lambda data, rng: data.decode().encode("utf-16"),
    "not UTF-8": lambda data, rng: data.replace(b"sha256", b"sha\xff56"),
    "a field twice": lambda data, rng: data.rstrip()[:-1] + b', "shards": []}',
}


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def written(case: Case) -> None:
    """The manifest is another file, or is missing, or no file at all."""
    path = case.shards / MANIFEST_NAME
    name = case.pick([*FILES, "missing", "directory", "half written", "pipe"])
    case.note(name)
    data = path.read_bytes()
    path.unlink()
    if name in FILES:
        path.write_bytes(FILES[name](data, case.rng))
    if name == "directory":
        path.mkdir()
    if name == "half written":
        (case.shards / "manifest.json.part").write_bytes(data)
    if name == "pipe":
        os.mkfifo(path)


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


KINDS = {"manifest edited": edited, "manifest written": written}
SIDECARS = {"sizes": surveyed, "log-ps": compared}
