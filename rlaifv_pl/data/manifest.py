"""The manifest of a shard directory: which shards, how many samples, and how they came about.

It is written last. A directory without one is unfinished, whatever tars lie in it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.data.strict_json import parse_json
from rlaifv_pl.errors import UserError

MANIFEST_NAME = "manifest.json"
MAX_NAME_BYTES = 255
"""Longest file name on most file systems."""
SCHEMA_VERSION = 1
"""Raised when a reader of the old version would misread the new shards."""
LINKED_VERSION = 2
"""Of shards in which an image may be a link to an earlier one: who knows version 1 alone refuses them at once."""


class ManifestError(UserError, ValueError):
    """A shard directory is unfinished, damaged, or of another schema version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """One tar of the directory."""

    name: str
    """File name, without directory."""
    bytes: int
    """Size of the file."""
    sha256: str
    """SHA-256 of the whole file, in hex."""
    samples: int

    def __post_init__(self) -> None:
        # A manifest may come from anywhere; its names must not lead out of its directory.
        if not _is_plain_name(self.name):
            raise ValueError(f"a shard's name must be a plain file name, got {self.name!r:.80}")
        for what, count in (("bytes", self.bytes), ("samples", self.samples)):
            if type(count) is not int or count < 0:
                raise ValueError(f"{what} of {self.name} must be a whole number, got {count!r:.80}")
        if not isinstance(self.sha256, str):
            raise ValueError(f"sha256 of {self.name} must be a text, got {self.sha256!r:.80}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Content and origin of a directory of shards."""

    shards: tuple[ShardInfo, ...]
    """In the order in which they were written, which is the order of the samples."""
    kinds: Mapping[str, int]
    """Samples by what can be learned from them; one sample may count under two kinds."""
    drops: Mapping[str, int]
    """Samples that were left out, by reason."""
    recipe: Mapping[str, Any]
    """The resolved settings that made the shards."""
    recipe_hash: str
    """`hash_json(recipe)`: equal recipes are meant to make equal shards."""
    round: int | None = None
    """Round of the loop that made them; None for imported ones."""
    parents: tuple[str, ...] = ()
    """`hash` of the manifests that these shards were made from."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Packages that took part in the writing."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Other counts of its maker, for information only."""
    schema_version: int = SCHEMA_VERSION

    @property
    def samples(self) -> int:
        """Number of samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def hash(self) -> str:
        """Identity of the directory: of its contents, its recipe and its ancestry, not of its notes."""
        return hash_json({name: value for name, value in asdict(self).items() if name != "notes"})


def _is_plain_name(name: Any) -> bool:
    is_text = isinstance(name, str) and name not in ("", ".", "..") and "\0" not in name
    return is_text and Path(name).name == name and len(name.encode()) <= MAX_NAME_BYTES


def hash_json(value: Any) -> str:
    """Return the SHA-256, in hex, of a JSON value; the order of an object's keys does not count.

    >>> hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that could change the bytes of a shard."""
    return {name: metadata.version(name) for name in ("webdataset", "pillow", "datasets")}


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Declare the shards in `directory` finished: all or nothing, and after them."""
    with atomic_file(directory / MANIFEST_NAME) as file:
        file.write((json.dumps(asdict(manifest), indent=2) + "\n").encode())


def read_manifest(directory: str | Path) -> Manifest:
    """Read the manifest and check that its shards lie beside it at their full size.

    Contents are not read: `rlaifv shards verify` checks the hashes.

    Raises:
        ManifestError: there is no manifest, it is not one of a known schema version, or a shard is
            missing or has another size.
    """
    directory = Path(directory)
    path = directory / MANIFEST_NAME
    if not path.is_file():
        raise ManifestError(
            f"{path} is missing, so the shards in {directory} are unfinished or were moved without it. "
            "Run the command that writes them again, to its end, or copy the manifest beside its shards."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _none_of_ours(path, error) from error
    manifest = parse_manifest(data, path)
    for shard in manifest.shards:
        _check_size(directory / shard.name, shard.bytes)
    return manifest


def parse_manifest(data: bytes, path: str | Path) -> Manifest:
    """Parse a manifest; `path` is for messages.

    Raises:
        ManifestError: it is none of a known schema version.
    """
    try:
        document = parse_json(data)
        version = document["schema_version"]
        if type(version) is int and version in (SCHEMA_VERSION, LINKED_VERSION):
            _check_types(document)
            shards = tuple(ShardInfo(**shard) for shard in document.pop("shards"))
            _check_names(shards)
            return Manifest(shards=shards, parents=tuple(document.pop("parents")), **document)
    except (ValueError, TypeError, KeyError) as error:
        raise _none_of_ours(path, error) from error
    raise ManifestError(
        f"{path} has schema version {version!r:.80}, this program reads versions {SCHEMA_VERSION} and "
        f"{LINKED_VERSION}. "
        "Write the shards again, or use the program's version that wrote them."
    )


def _none_of_ours(path: str | Path, error: Exception) -> ManifestError:
    return ManifestError(
        f"{path} is no manifest of shards ({error!r:.300}); expected a JSON object with "
        f"{[name.name for name in fields(Manifest)]}. Write the shards again."
    )


_TYPES = {
    "shards": list,
    "kinds": dict,
    "drops": dict,
    "recipe": dict,
    "recipe_hash": str,
    "round": int | None,
    "parents": list,
    "versions": dict,
    "notes": dict,
}


def _check_types(document: Mapping[str, Any]) -> None:
    for name, types in _TYPES.items():
        if name in document and not isinstance(document[name], types):
            raise TypeError(f"{name} is {document[name]!r:.80}")
    for name in ("kinds", "drops"):
        if not all(type(count) is int for count in document[name].values()):
            raise TypeError(f"{name} must be counts, got {document[name]!r:.80}")
    if not all(isinstance(parent, str) for parent in document["parents"]):
        raise TypeError(f"parents must be hashes, got {document['parents']!r:.80}")


def _check_names(shards: Sequence[ShardInfo]) -> None:
    names = [shard.name for shard in shards]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{twice[0]} is listed twice")


def _check_size(path: Path, expected: int) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size is None:
        raise ManifestError(
            f"{path} is missing, but its manifest lists it. Copy it from where it was written."
        )
    if size != expected:
        raise ManifestError(
            f"{path} has {size} bytes, its manifest says {expected}: it was cut or replaced. Copy it again, "
            "or write the shards again."
        )
