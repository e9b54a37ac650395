"""What was computed of the samples of a shard once, in a file beside it, or in a cache directory.

    <shards>/reference-3f2a9c01b7d4/shard-000000.safetensors
    <data.cache_dir>/<name of shards>-<hash of their path>/reference-3f2a9c01b7d4/shard-000000.safetensors

The directory is named after a hash of all that decides the results, so that several kinds, and results of
several models, lie side by side. Each file repeats it in its header, together with the hash of the shard: a
file that was copied, or whose shard was written anew, is refused, and never taken for another's.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rlaifv_pl.data.atomic import WriteError, atomic_file, unwritable, writing
from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.data.shards import MAX_OPEN_SHARDS, Shard, ShardSet
from rlaifv_pl.data.strict_json import parse_json
from rlaifv_pl.errors import UserError

CachedTensors = Mapping[str, Tensor]
"""Precomputed tensors of one sample, by name."""
VERSION = 1
"""Raised when a reader of the old version would misread the new files."""
OPTION_ALIASES = "Name another place: --data.cache_dir DIR."
NAMES = {
    "reference": "Log-ps of a cached reference (model.reference: cached)",
    "tower": "Features of the vision tower (data.cache_vision)",
    "sizes": "Sizes of samples (data.max_tokens, group_by, length_bucket)",
}
"""Name of each kind of results in messages."""
ENDS = ".ends"
HEADER = "sidecar"


class SidecarError(UserError, ValueError):
    """A sidecar is not what it should be; the message says in what, and what to do."""


class Sidecars:
    """One kind of precomputed results for all samples of a shard set. Holds no open file.

    Args:
        samples: samples that the results belong to.
        kind: kind of results, which begins the name of their directories.
        identity: everything that decides them beside the samples, as plain JSON.
    """

    def __init__(self, samples: ShardSet, kind: str, identity: Mapping[str, Any]) -> None:
        self.samples, self.kind = samples, kind
        self.identity = {"kind": kind, "version": VERSION, **identity}
        self.name = f"{kind}-{hash_json(self.identity)[:12]}"

    def missing(self) -> list[int]:
        """Return the numbers of the shards whose results are yet to be computed.

        Raises:
            SidecarError: a file is there, but not that of its shard; or nothing can be written where one is missing.
        """
        missing = [
            number for number, size in enumerate(self.samples.lengths) if size and not self._is_there(number)
        ]
        for place in {self.samples.cache_of(number) for number in missing}:
            _check_place(place, self.kind)
        return missing

    def write(self, number: int, values: Sequence[Mapping[str, Tensor]]) -> None:
        """Write the results of a shard: tensors by name for each sample, concatenated along their first dimension.

        Raises:
            SidecarError: there is no room, or no permission.
        """
        path = self.path(number)
        tensors = {}
        for name in values[0]:
            parts = [value[name] for value in values]
            tensors[name] = torch.cat(parts).contiguous()
            tensors[name + ENDS] = torch.tensor([0, *map(len, parts)]).cumsum(0)
        data = save(tensors, {HEADER: json.dumps(self._header(number))})
        try:
            with writing(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path, len(data)) as file:
                file.write(data)
        except WriteError as error:
            raise SidecarError(f"{error} {OPTION_ALIASES}") from error

    def read(self, index: int) -> dict[str, Tensor]:
        """Return the results of a sample.

        Raises:
            SidecarError: the file is gone or damaged.
        """
        number, place = self.samples.locate(index)
        path = self.path(number)
        with _named(path):
            status = path.stat()
            file, ends = _open(path, status.st_ino, status.st_mtime_ns, len(self._shard(number)))
            return {name: file.get_slice(name)[end[place] : end[place + 1]] for name, end in ends.items()}

    def whole(self, number: int) -> dict[str, Tensor]:
        """Return the results of all samples of a shard, concatenated.

        Raises:
            SidecarError: the file is gone or damaged.
        """
        path = self.path(number)
        with _named(path), safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in _ends(file, len(self._shard(number)))}

    def path(self, number: int) -> Path:
        """Return the path of a shard's results."""
        return (
            self.samples.cache_of(number) / self.name / f"{Path(self._shard(number).path).stem}.safetensors"
        )

    def _shard(self, number: int) -> Shard:
        return self.samples.shards[number]

    def _header(self, number: int) -> dict[str, Any]:
        # Through JSON, as it will come back.
        shard = {"shard": self.samples.hashes[number], "samples": len(self._shard(number))}
        return json.loads(json.dumps({**self.identity, **shard}))

    def _is_there(self, number: int) -> bool:
        path = self.path(number)
        if not path.is_file():
            return False
        found, wanted = _read_header(path, len(self._shard(number))), self._header(number)
        if wrong := sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)):
            raise SidecarError(
                f"{path} does not belong to {self._shard(number).path}: it was made with another "
                f"{', '.join(wrong)} ({_short(found, wrong)} instead of {_short(wanted, wrong)}). Delete it, and "
                "it is made again."
            )
        return True


def check_places(places: Sequence[Path], kinds: Sequence[str]) -> None:
    """Check that results can be written where there are none of a kind at all, before it is known which are missing.

    Args:
        places: directories for precomputed results.
        kinds: kinds of results.

    Raises:
        SidecarError: they cannot.
    """
    for place in places:
        for kind in kinds:
            if not any(place.glob(f"{kind}-*")):
                _check_place(place, kind)


def _check_place(place: Path, kind: str) -> None:
    if (obstacle := unwritable(place)) is not None:
        raise SidecarError(
            f"{NAMES.get(kind, kind)} would be kept in {place}, but {obstacle}. {OPTION_ALIASES}"
        )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in errors of the body."""
    try:
        yield
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise SidecarError(
            f"{path} is no sidecar of a shard, or was cut ({error!r:.300}). Delete it, and it is made again."
        ) from error


def _read_header(path: Path, count: int) -> dict[str, Any]:
    with _named(path), safe_open(path, "pt") as file:
        header = parse_json((file.metadata() or {})[HEADER].encode())
        if isinstance(header, dict) and header.get("samples") == count:
            _ends(file, count)
    return header if isinstance(header, dict) else {}


def _short(values: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(str(values.get(name))[:12] for name in names)


@lru_cache(maxsize=MAX_OPEN_SHARDS)
def _open(path: Path, _inode: int, _mtime_ns: int, count: int) -> tuple[Any, dict[str, list[int]]]:
    """Open a file as it is now; return it and where in its tensors each sample's part ends."""
    file = safe_open(path, "pt")
    return file, _ends(file, count)


def _ends(file: Any, count: int) -> dict[str, list[int]]:
    """Return where in the tensors of a file the parts of `count` samples end.

    Raises:
        ValueError: a tensor cannot be cut into so many parts.
    """
    names = [name for name in file.keys() if not name.endswith(ENDS)]  # noqa: SIM118
    ends = {name: file.get_tensor(name + ENDS).tolist() for name in names}
    for name, found in ends.items():
        shape = file.get_slice(name).get_shape()
        is_numbers = isinstance(found, list) and all(type(end) is int for end in found) and len(shape) > 0
        if not (is_numbers and len(found) == count + 1 and [0, *sorted(found)[1:-1], shape[0]] == found):
            raise ValueError(
                f"the parts of {name}, of shape {shape}, end at {found!r:.80} for {count} samples"
            )
    return ends
