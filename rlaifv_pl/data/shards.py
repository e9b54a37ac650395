"""Shards read at random: the samples of one or more directories as one torch dataset.

A shard is an ordinary WebDataset tar; `webdataset.WebDataset` streams it too. Here each sample has a
number, so that an epoch's order can be fixed in advance and resumed anywhere.
"""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, chain
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import Dataset

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.manifest import ManifestError, read_manifest
from rlaifv_pl.data.sample_json import shorten
from rlaifv_pl.data.schema import MAX_SAMPLE_BYTES, decode_sample
from rlaifv_pl.data.shard_cache import local_copy
from rlaifv_pl.data.shard_writer import ShardWriter
from rlaifv_pl.data.tar_index import Extent, Shared, index_tar
from rlaifv_pl.records import Sample

__all__ = ["Shard", "ShardSet", "ShardWriter", "load_shards"]

MAX_OPEN_SHARDS = 64
"""Well above a shuffling window's shards, well below the usual limit of 1024 descriptors."""


class Shard:
    """One tar, indexed when made. Holds no open file, so that it can be sent to other processes.

    Args:
        path: the tar.

    Raises:
        BadSample: as `index_tar`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._stamp = _Stamp.of(os.stat(path))
        self._entries = index_tar(path)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def shared(self) -> Shared:
        """Number and bytes of the images that are links to an earlier one."""
        return self._entries.shared

    def keys(self) -> Iterator[str]:
        """Yield the samples' keys in file order."""
        return (entry.key for entry in self._entries)

    def text_sizes(self) -> Iterator[int]:
        """Yield the bytes of each sample's texts (its JSON), in file order, without reading any."""
        return (entry.members["json"].size if "json" in entry.members else 0 for entry in self._entries)

    def where(self, index: int) -> str:
        """Shard and key of a sample, for messages."""
        return f"{self.path}, sample {shorten(self._entries[index].key, length=100)}"

    def read(self, index: int) -> Sample:
        """Read and decode the sample at `index`.

        Raises:
            BadSample: as `decode_sample`; `huge_sample`.
            ManifestError: the file was replaced since it was indexed. No sample is to blame, and none
                could be read any more, so this is not for skipping.
        """
        key, extents = self._entries[index]
        if (size := sum(extent.size for extent in extents.values())) > MAX_SAMPLE_BYTES:
            detail = f"its members have {size} bytes, more than {MAX_SAMPLE_BYTES}"
            raise BadSample(Reason.HUGE_SAMPLE, self.where(index), detail)
        file = _open(self.path, self._stamp)
        members = {extension: file.read(extent) for extension, extent in extents.items()}
        return decode_sample(key, members, self.where(index))


class ShardSet(Dataset[Sample]):
    """All samples of one or more shard directories, by number: directories as given, then shards as
    the manifest lists them, then file order.

    All shards are indexed at the start, so that a damaged one stops a run before it costs anything.

    Args:
        paths: shard directories, each with its manifest.
        cache_dir: directory for precomputed values; beside the shards unless given.

    Raises:
        ManifestError: a directory is unfinished or damaged.
        BadSample: a shard cannot be indexed, or holds another number of samples than its manifest says.
    """

    def __init__(self, paths: Sequence[str | Path], cache_dir: str | Path | None = None) -> None:
        if not paths:
            raise ValueError("expected at least one shard directory, got none")
        self.cache_dir = cache_dir
        self.manifests = tuple(read_manifest(path) for path in paths)
        self.shards: list[Shard] = []
        self.hashes: list[str] = []
        """SHA-256 of each shard's file, as its manifest says."""
        for path, manifest in zip(paths, self.manifests, strict=True):
            for info in manifest.shards:
                shard = Shard(Path(path) / info.name)
                check_length(shard, info.samples)
                self.shards.append(shard)
                self.hashes.append(info.sha256)
        self._ends = list(accumulate(self.lengths))

    @property
    def lengths(self) -> list[int]:
        """Number of samples of each shard."""
        return [len(shard) for shard in self.shards]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Sample:
        number, offset = self.locate(index)
        return self.shards[number].read(offset)

    def keys(self) -> Iterator[str]:
        """Yield the keys in the order of the samples, without reading any. Two directories may share a key."""
        return chain.from_iterable(shard.keys() for shard in self.shards)

    def where(self, index: int) -> str:
        """Shard and key of a sample, for messages."""
        number, offset = self.locate(index)
        return self.shards[number].where(offset)

    def cache_of(self, shard: int) -> Path:
        """Return the directory for values precomputed for a shard."""
        return cache_place(Path(self.shards[shard].path).parent, self.cache_dir)

    def numbers(self, shard: int) -> range:
        """Return the indices of a shard's samples."""
        return range(self._ends[shard] - len(self.shards[shard]), self._ends[shard])

    def locate(self, index: int) -> tuple[int, int]:
        """Return the number of a sample's shard, and its place in the shard."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        index %= len(self)
        number = bisect_right(self._ends, index)
        return number, index - self._ends[number] + len(self.shards[number])


def load_shards(paths: str | Path | Sequence[str | Path], cache_dir: str | Path | None = None) -> ShardSet:
    """Open one shard directory or several, as `ShardSet` describes; URLs through the cache, as `local_copy` does.

    Args:
        paths: directories, or URLs of some.
        cache_dir: directory for copies of shards behind URLs, and for precomputed values.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    return ShardSet([local_copy(path, cache_dir) for path in paths], cache_dir)


def cache_place(shards: Path, cache_dir: str | Path | None) -> Path:
    """Return the directory for values precomputed for a shard directory: itself, or one in the cache."""
    if cache_dir is None or shards.absolute().is_relative_to(Path(cache_dir).absolute()):
        return shards
    name = hashlib.sha256(os.fsencode(shards.absolute())).hexdigest()[:12]
    return Path(cache_dir) / f"{shards.absolute().name}-{name}"


def check_length(shard: Shard, expected: int) -> None:
    """Refuse a shard that holds another number of samples than its manifest says.

    Raises:
        BadSample: `changed_shard`.
    """
    if len(shard) != expected:
        detail = f"the manifest says {expected} samples, the tar holds {len(shard)}"
        raise BadSample(Reason.CHANGED_SHARD, shard.path, detail)


class _Stamp(NamedTuple):
    """Identity of an indexed file; another one under its path differs."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "_Stamp":
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


class _OpenShard:
    """A descriptor that closes when its last user lets go of it, as eviction from the cache does.

    Reads name their offset, so that threads and forked workers may share it.
    """

    def __init__(self, path: str, stamp: _Stamp) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY)
        if _Stamp.of(os.fstat(self.descriptor)) != stamp:
            raise ManifestError(
                f"{path} was replaced while it was in use, so that its index is void. Open the shards again, "
                "and write new ones to a directory of their own."
            )

    def read(self, extent: Extent) -> bytes:
        data = os.pread(self.descriptor, extent.size, extent.offset)
        if len(data) < extent.size:
            detail = f"expected {extent.size} bytes at byte {extent.offset}, got {len(data)}"
            raise BadSample(Reason.TRUNCATED_SHARD, self.path, detail)
        return data

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):  # Missing where the file could not be opened.
            os.close(self.descriptor)


_open = lru_cache(maxsize=MAX_OPEN_SHARDS)(_OpenShard)
