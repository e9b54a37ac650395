"""Shards behind URLs: copied once to a cache on this machine's disk, then read like any others.

    <cache>/my_pairs-3f2a9c.../shard-000000.tar, ..., manifest.json

The manifest comes first and names size and hash of each shard; the directory is named after it, so that shards
that change have another directory. The manifest is written last, here too: a copy without one is unfinished.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event

from filelock import FileLock, Timeout
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from rlaifv_pl.console import stderr
from rlaifv_pl.data.atomic import TEMPORARY_SUFFIX, atomic_file
from rlaifv_pl.data.download import download_shard, retry_until_done
from rlaifv_pl.data.manifest import (
    MANIFEST_NAME,
    Manifest,
    ManifestError,
    ShardInfo,
    parse_manifest,
    read_manifest,
)
from rlaifv_pl.data.remote_directory import (
    WRONG,
    RemoteDirectory,
    RemoteError,
    RemoteFault,
    RetryPolicy,
    is_url,
)

CACHE_VARIABLE = "RLAIFV_PL_CACHE"
STREAMS = 4
"""Shards that are downloaded at a time."""
LARGEST_MANIFEST = 2**26
"""Bytes; some 400,000 shards."""
_PLAIN_NAME = re.compile(r"\w[\w.-]{0,200}\.tar", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def local_copy(
    path: str | Path, cache_dir: str | Path | None = None, patience: RetryPolicy | None = None
) -> Path:
    """Return the local directory of the shards, copied now where they lie behind a URL.

    Of several processes that ask at the same time, one fetches and the others wait for it. The manifest is asked
    for each time, the shards only where they are not there yet.

    Args:
        path: of a directory, which is left where it is, or a URL of one.
        cache_dir: for copies; unless given, that of the environment variable RLAIFV_PL_CACHE, or `rlaifv_pl` in
            the user's own cache.
        patience: with the server.

    Raises:
        RemoteError: the shards cannot be had, or are not what their manifest says.
        ManifestError: what lies there is no manifest, or one that no copy can be made of.
    """
    if not is_url(path):
        return Path(path)
    directory = RemoteDirectory(str(path), patience or RetryPolicy())
    if directory.local is not None:
        return directory.local
    data, manifest = retry_until_done(
        partial(_read_manifest, directory), directory.show(MANIFEST_NAME), directory.patience
    )
    _check(manifest, directory)
    root = Path(cache_dir) if cache_dir else default_cache()
    copy = root / f"{directory.name}-{hashlib.sha256(data).hexdigest()[:32]}"
    try:
        if not _is_whole(copy, data):
            _fill(copy, directory, data, manifest)
    except OSError as error:
        raise RemoteError(
            f"{directory.shown} cannot be copied to {copy} ({error.strerror or error}). Make room there, or name "
            f"another cache: data.cache_dir in training, {CACHE_VARIABLE} in the environment everywhere."
        ) from error
    return copy


def default_cache() -> Path:
    """Return the directory of copies unless one is given."""
    if place := os.environ.get(CACHE_VARIABLE):
        return Path(place)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlaifv_pl"


def _read_manifest(directory: RemoteDirectory) -> tuple[bytes, Manifest]:
    data = bytearray()
    with directory.open(MANIFEST_NAME, 0) as opened:
        for chunk in opened.chunks:
            data += chunk
            if len(data) > LARGEST_MANIFEST:
                raise RemoteFault(
                    WRONG, f"expected a manifest of at most {LARGEST_MANIFEST} bytes, more came"
                )
    try:
        return bytes(data), parse_manifest(bytes(data), directory.show(MANIFEST_NAME))
    except ManifestError:
        # Cut short, as it may be where a server does not say how long it is.
        if data.rstrip().endswith(b"}"):
            raise
        raise RemoteFault(
            WRONG, f"expected a JSON object, got {len(data)} bytes that do not end like one"
        ) from None


def _check(manifest: Manifest, directory: RemoteDirectory) -> None:
    """Refuse names that would overwrite other files of the cache, and hashes that cannot be checked."""
    for shard in manifest.shards:
        if not _PLAIN_NAME.fullmatch(shard.name):
            raise ManifestError(
                f"{directory.show(MANIFEST_NAME)} lists a shard {shard.name!r}; expected names like "
                "shard-000000.tar. Write the shards again."
            )
        if not _SHA256.fullmatch(shard.sha256):
            raise ManifestError(
                f"{directory.show(MANIFEST_NAME)} says of {shard.name} SHA-256 {shard.sha256!r:.80}; expected "
                "64 hex digits. Write the shards again."
            )


def _is_whole(copy: Path, data: bytes) -> bool:
    path = copy / MANIFEST_NAME
    try:
        return path.is_file() and path.read_bytes() == data and bool(read_manifest(copy))
    except ManifestError:
        return False


def _fill(copy: Path, directory: RemoteDirectory, data: bytes, manifest: Manifest) -> None:
    copy.mkdir(parents=True, exist_ok=True)
    with _alone(copy):
        if _is_whole(copy, data):
            return
        missing = [shard for shard in manifest.shards if _size(copy / shard.name) != shard.bytes]
        if missing:
            _check_room(copy, directory, missing)
            _fetch_all(copy, directory, missing)
        with atomic_file(copy / MANIFEST_NAME) as file:
            file.write(data)


@contextmanager
def _alone(copy: Path) -> Iterator[None]:
    """Let one process at a time run the body. The lock is the system's, and ends with the process that holds it."""
    lock = FileLock(copy.with_name(copy.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        said = f"another process is fetching {copy}: waiting for it"
        stderr.print(said, markup=False, highlight=False, soft_wrap=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_room(copy: Path, directory: RemoteDirectory, missing: Sequence[ShardInfo]) -> None:
    parts = [copy / (shard.name + TEMPORARY_SUFFIX) for shard in missing]
    needed = sum(shard.bytes for shard in missing) - sum(_size(part) or 0 for part in parts)
    if needed > (free := shutil.disk_usage(copy).free):
        raise RemoteError(
            f"{directory.shown} needs {decimal(needed)} more, and {decimal(free)} are free at {copy}. Delete copies "
            f"there that are no longer needed, or name another cache: data.cache_dir in training, {CACHE_VARIABLE} "
            "in the environment everywhere."
        )


def _fetch_all(copy: Path, directory: RemoteDirectory, missing: Sequence[ShardInfo]) -> None:
    console, size = stderr, sum(shard.bytes for shard in missing)
    said = f"fetching {len(missing)} shards ({decimal(size)}) of {directory.shown} to {copy}"
    console.print(said, markup=False, highlight=False, soft_wrap=True)
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(STREAMS) as pool:
        shared_progress = _CancellableProgress(partial(progress.advance, progress.add_task("", total=size)))
        work = [pool.submit(_fetch, copy, directory, shard, shared_progress) for shard in missing]
        try:
            done = wait(work, return_when=FIRST_EXCEPTION).done
        finally:
            # Also when this process is interrupted, since the pool waits for those under way.
            shared_progress.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        for one in done:
            one.result()


class _CancellableProgress:
    """Byte counter shared by download threads, which stops them all."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self.count, self.stop = count, Event()

    def advance(self, count: int) -> None:
        if self.stop.is_set():
            raise RemoteError("Stopped, since another shard cannot be had.")
        self.count(count)

    def wait(self, seconds: float) -> None:
        self.stop.wait(seconds)
        self.advance(0)


def _fetch(
    copy: Path, directory: RemoteDirectory, shard: ShardInfo, shared_progress: _CancellableProgress
) -> None:
    attempt = partial(download_shard, directory, shard, copy / shard.name, shared_progress.advance)
    retry_until_done(attempt, directory.show(shard.name), directory.patience, shared_progress.wait)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
