"""Writing shards: deterministic tars under temporary names, and the manifest after all of them."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from webdataset import TarWriter

from rlaifv_pl.data.atomic import TEMPORARY_SUFFIX, atomic_file
from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.manifest import (
    MANIFEST_NAME,
    Manifest,
    ManifestError,
    ShardInfo,
    hash_file,
    hash_json,
    package_versions,
    read_manifest,
    write_manifest,
)
from rlaifv_pl.data.schema import check_sample, encode_sample, kinds
from rlaifv_pl.records import Sample

log = logging.getLogger(__name__)

UNFINISHED_NAME = "UNFINISHED"
_UNFINISHED_TEXT = """Shards are being written here, or their writing was interrupted.
Run the same command again: it starts over.
"""


class ShardWriter:
    """Write samples to a directory of shards; the same samples in the same order give the same bytes.

    A context manager: leaving it normally writes the manifest, leaving it by an exception does not.

    Args:
        out_dir: made if it is missing. A directory with finished shards of another recipe, or with
            tars that no `ShardWriter` wrote, is refused.
        recipe: the settings that determine the samples, as plain JSON.
        samples_per_shard: size of every shard but the last.
        round: round of the loop that the samples belong to.
        parents: hashes of the manifests that the samples were made from.
        overwrite: replace whatever shards are there.

    Raises:
        FileExistsError: the directory holds other shards.
    """

    def __init__(
        self,
        out_dir: str | Path,
        *,
        recipe: Mapping[str, Any],
        samples_per_shard: int = 1000,
        round: int | None = None,
        parents: Sequence[str] = (),
        overwrite: bool = False,
    ) -> None:
        if samples_per_shard < 1:
            raise ValueError(f"samples_per_shard must be at least 1, got {samples_per_shard}")
        self.directory = Path(out_dir)
        self.recipe = dict(recipe)
        self.recipe_hash = hash_json(self.recipe)
        self.samples_per_shard = samples_per_shard
        self.round = round
        self.parents = tuple(parents)
        self.overwrite = overwrite
        self.manifest: Manifest | None = None
        """Set once the shards are finished."""
        self._shards: list[ShardInfo] = []
        self._kinds: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._keys: set[str] = set()
        self._tar: TarWriter | None = None
        self._open_shard = ExitStack()
        self._samples_in_shard = 0

    def __enter__(self) -> Self:
        if not self.overwrite:
            self._refuse_foreign_shards()
        self._claim()
        return self

    def write(self, sample: Sample) -> None:
        """Append a sample. One that is refused leaves no trace, so the caller may `drop` it and go on.

        Raises:
            BadSample: as `encode_sample` and `check_sample`; `duplicate_key`.
        """
        where = f"sample {sample.key!r}"
        members = encode_sample(sample)
        check_sample(sample, where)
        if sample.key in self._keys:
            raise BadSample(
                Reason.DUPLICATE_KEY, where, f"{self.directory} already holds a sample of this key"
            )
        if self._tar is None:
            self._begin_shard()
        self._tar.write({"__key__": sample.key, **members})
        self._keys.add(sample.key)
        self._kinds.update(map(str, kinds(sample)))
        self._samples_in_shard += 1
        if self._samples_in_shard == self.samples_per_shard:
            self._end_shard()

    def drop(self, reason: str, count: int = 1) -> None:
        """Count samples that were left out, for the manifest. Any name will do, `Reason`s are names."""
        self._drops[str(reason)] += count

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self._open_shard.__exit__(exc_type, exc, traceback)
            return
        if self._tar is not None:
            self._end_shard()
        self.manifest = Manifest(
            shards=tuple(self._shards),
            kinds=dict(sorted(self._kinds.items())),
            drops=dict(sorted(self._drops.items())),
            recipe=self.recipe,
            recipe_hash=self.recipe_hash,
            round=self.round,
            parents=self.parents,
            versions=package_versions(),
        )
        write_manifest(self.directory, self.manifest)
        (self.directory / UNFINISHED_NAME).unlink()

    def _refuse_foreign_shards(self) -> None:
        remedy = "Write to another directory, delete this one, or pass overwrite=True."
        if (self.directory / MANIFEST_NAME).exists():
            if _finished_recipe(self.directory) != self.recipe_hash:
                raise FileExistsError(f"{self.directory} holds finished shards of another recipe. {remedy}")
            log.warning("%s holds finished shards of the same recipe; writing them again.", self.directory)
        elif not (self.directory / UNFINISHED_NAME).exists() and any(self.directory.glob("*.tar")):
            raise FileExistsError(f"{self.directory} holds tars without a manifest. {remedy}")

    def _claim(self) -> None:
        """Mark the directory unfinished, then clear what an earlier attempt left."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / UNFINISHED_NAME).write_text(_UNFINISHED_TEXT)
        (self.directory / MANIFEST_NAME).unlink(missing_ok=True)
        for suffix in ("", TEMPORARY_SUFFIX):
            for path in self.directory.glob(_shard_name("[0-9]" * 6) + suffix):
                path.unlink()

    def _begin_shard(self) -> None:
        path = self.directory / _shard_name(f"{len(self._shards):06d}")
        file = self._open_shard.enter_context(atomic_file(path))
        # No clock and no account in the headers: the same samples must give the same bytes.
        self._tar = self._open_shard.enter_context(
            TarWriter(file, encoder=False, compress=False, mtime=0, user="rlaifv", group="rlaifv", mode=0o644)
        )
        self._samples_in_shard = 0

    def _end_shard(self) -> None:
        self._open_shard.close()
        self._tar = None
        path = self.directory / _shard_name(f"{len(self._shards):06d}")
        self._shards.append(
            ShardInfo(
                name=path.name,
                bytes=path.stat().st_size,
                sha256=hash_file(path),
                samples=self._samples_in_shard,
            )
        )


def _shard_name(number: str) -> str:
    return f"shard-{number}.tar"


def _finished_recipe(directory: Path) -> str | None:
    """Hash of the recipe of the shards in a directory; None if they are damaged."""
    try:
        return read_manifest(directory).recipe_hash
    except ManifestError:
        return None
