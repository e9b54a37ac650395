"""Damage to the manifest of a directory of shards."""

import json
import os
import random
from collections.abc import Callable
from typing import Any

from rlaifv_pl.data.manifest import MANIFEST_NAME
from tests.data.rows import odd_value
from tests.fuzz.base import Case

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
    "count": _shard(lambda case: {"samples": case.rng.choice([0, 3, 4, -3, 10**30, "3", None, 3.0, True, [3]])}),
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


KINDS = {"manifest edited": edited, "manifest written": written}
