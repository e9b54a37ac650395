"""Writing shards: deterministic tars under temporary names, and the manifest after all of them."""

import hashlib
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, InitVar, dataclass, replace
from pathlib import Path
from tarfile import LNKTYPE, TarInfo
from types import TracebackType
from typing import Any, Self

from webdataset import TarWriter

from rlaifv_pl.data.atomic import TEMPORARY_SUFFIX, atomic_file, sync, writing
from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.manifest import (
    LINKED_VERSION,
    MANIFEST_NAME,
    SCHEMA_VERSION,
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

# No clock and no account in the headers: the same samples must give the same bytes.
_HEADER: dict[str, Any] = {"mtime": 0, "user": "rlaifv", "group": "rlaifv", "mode": 0o644}
UNFINISHED_NAME = "UNFINISHED"
_UNFINISHED_TEXT = """Shards are being written here, or their writing was interrupted.
Run the same command again: it starts over. A manifest beside this file names the shards from before, which are whole.
"""
_STAGED = ".new"
"""Ends the stem of a shard that replaces another one, until no manifest names the other one."""
_OWN_NAME = re.compile(rf"shard-\d{{6}}({re.escape(_STAGED)})?\.tar({re.escape(TEMPORARY_SUFFIX)})?")


@dataclass(eq=False)
class ShardWriter:
    """Write samples to a directory of shards; the same samples in the same order give the same bytes.

    A context manager: leaving it normally writes the manifest, leaving it by an exception does not.

    Args:
        out_dir: made if it is missing. A directory with finished shards of another recipe, or with
            tars that no `ShardWriter` wrote, is refused.
        recipe: the settings that determine the samples, as plain JSON.
        samples_per_shard: size of every shard but the last.
        link_duplicate_images: whether an image that a shard holds already becomes a link to it (a hard link of the
            tar). That saves its bytes; but `webdataset` skips links, and yields such a sample without its image.
        round: round of the loop that the samples belong to.
        parents: hashes of the manifests that the samples were made from.
        overwrite: replace whatever shards are there. Finished ones stay whole until the new ones are: there must be
            room for both.

    Raises:
        FileExistsError: the directory holds other shards.
        WriteError: there is no room, or no permission.
    """

    out_dir: InitVar[str | Path]
    _: KW_ONLY
    recipe: Mapping[str, Any]
    samples_per_shard: int = 1000
    link_duplicate_images: bool = False
    round: int | None = None
    parents: Sequence[str] = ()
    overwrite: bool = False

    def __post_init__(self, out_dir: str | Path) -> None:
        if self.samples_per_shard < 1:
            raise ValueError(f"samples_per_shard must be at least 1, got {self.samples_per_shard}")
        self.directory = Path(out_dir)
        self.recipe = dict(self.recipe)
        self.recipe_hash = hash_json(self.recipe)
        self.manifest: Manifest | None = None
        """Set once the shards are finished."""
        self._shards: list[ShardInfo] = []
        self._shared: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._notes: dict[str, Any] = {}
        self._keys: set[str] = set()
        self._growing: _GrowingShard | None = None

    def __enter__(self) -> Self:
        if self.directory.exists() and not self.directory.is_dir():
            raise FileExistsError(
                f"{self.directory} is a file, not a directory to write shards to. Name one."
            )
        if not self.overwrite:
            self._refuse_foreign_shards()
        replaced = _readable_manifest(self.directory)
        self._suffix = _STAGED if replaced else ""
        self._claim(replaced)
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
            detail = f"{self.directory} already holds a sample of this key"
            raise BadSample(Reason.DUPLICATE_KEY, where, detail)
        if self._growing is None:
            path = self.directory / f"shard-{len(self._shards):06d}{self._suffix}.tar"
            self._growing = _GrowingShard(path, self.link_duplicate_images)
        self._growing.write(sample.key, members)
        self._keys.add(sample.key)
        self._kinds.update(map(str, kinds(sample)))
        if self._growing.samples == self.samples_per_shard:
            self._finish_shard()

    @property
    def shared(self) -> dict[str, int]:
        """Images that became links so far, and the bytes that they would have taken; empty where there are none."""
        return dict(self._shared + (self._growing.shared if self._growing else Counter()))

    @property
    def drops(self) -> dict[str, int]:
        """Samples that were left out so far, by reason."""
        return dict(sorted(self._drops.items()))

    def drop(self, reason: str, count: int = 1) -> None:
        """Count samples that were left out, for the manifest. Any name will do, `Reason`s are names."""
        self._drops[str(reason)] += count

    def note(self, name: str, value: Any) -> None:
        """Put plain JSON under a name of the manifest's `notes`, in place of what was there."""
        self._notes[name] = value

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            if self._growing is not None:
                self._growing.discard(exc_type, exc, traceback)
            return
        self._finish_shard()
        manifest = Manifest(
            shards=tuple(self._shards),
            kinds=dict(sorted(self._kinds.items())),
            drops=self.drops,
            recipe=self.recipe,
            recipe_hash=self.recipe_hash,
            round=self.round,
            parents=tuple(self.parents),
            versions=package_versions(),
            notes=self._notes,
            schema_version=LINKED_VERSION if self._shared else SCHEMA_VERSION,
        )
        write_manifest(self.directory, manifest)
        self.manifest = _unstage(self.directory, manifest)
        _remove_shards(self.directory, self.manifest)
        (self.directory / UNFINISHED_NAME).unlink()

    def _refuse_foreign_shards(self) -> None:
        remedy = "Write to another directory, delete this one, or give `--overwrite true` where the command has it."
        if (self.directory / MANIFEST_NAME).exists():
            finished = _readable_manifest(self.directory)
            if finished is None or finished.recipe_hash != self.recipe_hash:
                raise FileExistsError(f"{self.directory} holds finished shards of another recipe. {remedy}")
            log.warning("%s holds finished shards of the same recipe; writing them again.", self.directory)
        elif not (self.directory / UNFINISHED_NAME).exists() and any(self.directory.glob("*.tar")):
            raise FileExistsError(f"{self.directory} holds tars without a manifest. {remedy}")

    def _claim(self, replaced: Manifest | None) -> None:
        """Mark the directory unfinished, then clear what an earlier attempt left, but for finished shards."""
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / UNFINISHED_NAME).write_text(_UNFINISHED_TEXT)
        if replaced is None:
            (self.directory / MANIFEST_NAME).unlink(missing_ok=True)
        else:
            replaced = _unstage(self.directory, replaced)
        _remove_shards(self.directory, replaced)

    def _finish_shard(self) -> None:
        if self._growing is not None:
            self._shards.append(self._growing.finish())
            self._shared += self._growing.shared
            self._growing = None


class _GrowingShard:
    """One tar while it is written; it has a temporary name until it is finished."""

    def __init__(self, path: Path, link_duplicate_images: bool) -> None:
        self.path, self.link_duplicate_images, self.samples = path, link_duplicate_images, 0
        self.shared: Counter[str] = Counter()
        """Images that became links, and the bytes that they would have taken."""
        self._stored: dict[bytes, str] = {}
        """Names of the images so far, by their hashes."""
        self._open = ExitStack()
        file = self._open.enter_context(atomic_file(path))
        self._tar = self._open.enter_context(TarWriter(file, encoder=False, compress=False, **_HEADER))

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        for extension, data in sorted(members.items()):
            name = f"{key}.{extension}"
            earlier = self._earlier(name, data) if extension != "json" else name
            if earlier == name:
                self._tar.write({"__key__": key, extension: data})
            else:
                self._tar.tarstream.addfile(_link(name, earlier))
                self.shared += Counter(images=1, bytes=len(data))
        self.samples += 1

    def _earlier(self, name: str, data: bytes) -> str:
        """Name of the first member with this image, which may be this one."""
        if not self.link_duplicate_images:
            return name
        return self._stored.setdefault(hashlib.sha256(data).digest(), name)

    def finish(self) -> ShardInfo:
        self._open.close()
        size, sha256 = self.path.stat().st_size, hash_file(self.path)
        return ShardInfo(name=self.path.name, bytes=size, sha256=sha256, samples=self.samples)

    def discard(self, *exc_info: Any) -> None:
        """Leave no trace; takes what `__exit__` takes."""
        self._open.__exit__(*exc_info)


def _link(name: str, earlier: str) -> TarInfo:
    """Header of a member that has the content of an earlier one."""
    info = TarInfo(name)
    info.type, info.linkname = LNKTYPE, earlier
    info.mtime, info.mode = _HEADER["mtime"], _HEADER["mode"]
    info.uname, info.gname = _HEADER["user"], _HEADER["group"]
    return info


def finished_manifest(directory: Path) -> Manifest | None:
    """Read the manifest of finished shards; None if there are none, or others are just being written in their place."""
    return None if (directory / UNFINISHED_NAME).exists() else _readable_manifest(directory)


def _readable_manifest(directory: Path) -> Manifest | None:
    """Read the manifest of a directory; None if there is none, or its shards are damaged."""
    try:
        return read_manifest(directory)
    except ManifestError:
        return None


def _unstage(directory: Path, manifest: Manifest) -> Manifest:
    """Give the shards of a manifest their final names.

    At any moment the manifest on disk names shards that are there: they get a second name before it tells it.
    """
    shards = [replace(info, name=info.name.replace(f"{_STAGED}.tar", ".tar")) for info in manifest.shards]
    named = replace(manifest, shards=tuple(shards))
    if named == manifest:
        return manifest
    for staged, final in zip(manifest.shards, shards, strict=True):
        source, target = directory / staged.name, directory / final.name
        if source != target:
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError:  # A file system without hard links.
                shutil.copyfile(source, target)
                sync(target)
    sync(directory)
    write_manifest(directory, named)
    return named


def _remove_shards(directory: Path, kept: Manifest | None) -> None:
    """Remove the shards that a manifest does not name, as far as a `ShardWriter` named them."""
    names: Collection[str] = {info.name for info in kept.shards} if kept else ()
    for path in directory.iterdir():
        if _OWN_NAME.fullmatch(path.name) and path.name not in names:
            path.unlink()
