"""What is damaged: nine samples whose every part says whose it is, as a directory of shards."""

import hashlib
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from rlaifv_pl.data.manifest import MANIFEST_NAME, hash_file
from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.records import Correction, Sample

COUNT = 9
SAMPLES_PER_SHARD = 3
FORMATS = ("PNG", "JPEG", "WEBP")
ALL = "*"
"""Among keys that were touched: any sample may have been."""


class Member(NamedTuple):
    """Of a tar: a name or a header of its own, and a content."""

    name: str | tarfile.TarInfo
    data: bytes

    @property
    def key(self) -> str:
        """Of its sample."""
        return str(getattr(self.name, "name", self.name)).partition(".")[0]


@dataclass
class Case:
    """A directory to be damaged, and what was done to it."""

    rng: random.Random
    here: Path
    """Everything lies below: `shards`, `sources`, `photos`, and a `canary` that nobody may read or change."""
    did: list[str] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    """Keys of samples whose own content was changed."""
    sealed: bool = False
    """Whether the manifest was written anew, as a malicious writer would."""
    loose: bool = False
    """Whether numbers were changed that nothing guards."""
    turn: int = 0
    """How many cases of this kind came before."""

    @property
    def shards(self) -> Path:
        """The directory of shards."""
        return self.here / "shards"

    def tar(self) -> Path:
        """One of the shards."""
        return self.rng.choice(sorted(self.shards.glob("*.tar")) or [self.shards / "shard-000000.tar"])

    def pick(self, names: Iterable[str]) -> str:
        """One of the ways of damaging: each has its turn."""
        names, turn = sorted(names), self.turn
        # A second damage of the same case draws.
        self.turn = self.rng.randrange(10**6)
        return names[turn % len(names)]

    def note(self, what: object) -> None:
        """Say what is being done."""
        text = str(what)
        self.did.append(text if len(text) < 200 else text[:200] + "...")


def word(number: int, part: str) -> str:
    """Nine letters that stand in no other part of any sample, and are no bit away from another's."""
    rest, letters = int.from_bytes(hashlib.sha256(f"{number}/{part}".encode()).digest()), ""
    for _ in range(9):
        rest, letter = divmod(rest, 26)
        letters += chr(ord("a") + letter)
    return letters


def photo(number: int, part: str, format: str) -> bytes:
    """An image of noise of its own."""
    rng = np.random.default_rng(list(f"{number}/{part}".encode()))
    buffer = io.BytesIO()
    pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(2, 0).repeat(2, 1)
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def sample(number: int) -> Sample:
    """The sample of a number: one image, two, none, or others on the rejected side."""
    sides = {4: (), 7: ("first", "second")}.get(number, ("first",))
    text = f"What is {word(number, 'prompt')}?"
    blocks = [{"type": "image"}] * len(sides) + [{"type": "text", "text": text}]
    extra = {"completion": f"It is {word(number, 'completion')}."} if number == 1 else {}
    if number == 2:
        extra["corrections"] = (Correction(question=f"Is it {word(number, 'chosen')}?", answer="Yes."),)
        extra["spans"] = ({"side": "chosen", "start": 0, "end": 2, "weight": 2.0},)
        extra["evidence"] = {"chosen": {"score": 0, "claims": []}, "rejected": {"score": 0, "claims": []}}
    if number == 5:
        extra["rejected_images"] = (photo(number, "rejected", "PNG"),)
    return Sample(
        key=f"s{number}",
        prompt=[{"role": "user", "content": blocks}] if number % 3 == 1 else text,
        images=tuple(photo(number, side, FORMATS[number % 3]) for side in sides),
        chosen=f"It is {word(number, 'chosen')}.",
        rejected=f"It is {word(number, 'rejected')}.",
        **extra,
    )


def write_base(directory: Path) -> None:
    """All samples, three a shard."""
    with ShardWriter(directory, recipe={"base": 1}, samples_per_shard=SAMPLES_PER_SHARD) as writer:
        for number in range(COUNT):
            writer.write(sample(number))


def layout_forest(pristine: Path, here: Path) -> None:
    """Copy what a case starts from."""
    shutil.copytree(pristine, here / "shards")
    (here / "canary").mkdir()
    (here / "canary" / "secret.png").write_bytes(photo(99, "canary", "PNG"))
    (here / "canary" / "secret.json").write_text(json.dumps({"prompt": word(99, "canary")}))


def members(path: Path) -> list[Member]:
    """Of a tar, as the standard library reads it."""
    with tarfile.open(path, "r:") as tar:
        return [Member(info.name, tar.extractfile(info).read()) for info in headers(tar) if info.isfile()]


def headers(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Of a tar that may have been damaged before.

    Raises:
        ValueError: a size is negative, which leads the standard library in circles.
    """
    for info in tar:
        if info.size < 0:
            raise ValueError("a negative size")
        yield info


def write_members(path: Path, made: Sequence[Member], format: int = tarfile.USTAR_FORMAT) -> None:
    """A tar of names, or of ready headers."""
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in made:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))


def rewrite(case: Case, change: Callable[[list[Member]], list[Member]], **options: int) -> None:
    """Change the members of one shard; one that cannot be read any more is left alone."""
    path = case.tar()
    try:
        found = members(path)
    except (tarfile.TarError, OSError, ValueError):
        case.note(f"{path.name} was no tar any more")
        return
    write_members(path, change(found), **options)


def owners(path: Path) -> Callable[[int], str]:
    """Tells whose content a byte of a sound tar is; empty for headers and padding."""
    with tarfile.open(path, "r:") as tar:
        spans = [(info.offset_data, info.offset_data + info.size, info.name) for info in headers(tar)]
    return lambda at: next((name.partition(".")[0] for start, end, name in spans if start <= at < end), "")


def _count(path: Path) -> int | None:
    """Samples of a tar, by the standard library."""
    try:
        with tarfile.open(path, "r:") as tar:
            return len({info.name.partition(".")[0] for info in headers(tar)})
    except Exception:
        return None


def seal(case: Case) -> None:
    """Write sizes, hashes and sometimes counts anew, so that only the damage itself can give it away."""
    path = case.shards / MANIFEST_NAME
    document = json.loads(path.read_bytes())
    for info in document["shards"]:
        tar = case.shards / info["name"]
        if tar.is_file() and tar.stat().st_size < 2**24:
            info |= {"bytes": tar.stat().st_size, "sha256": hash_file(tar)}
        elif tar.is_file():  # A hole of gigabytes: nobody would wait for its hash.
            info |= {"bytes": tar.stat().st_size}
        if case.rng.random() < 0.8 and (count := _count(tar)) is not None:
            info["samples"] = count
    path.write_text(json.dumps(document))
    case.sealed = True
    case.note("sealed")
