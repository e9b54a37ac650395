"""Download of one shard: whole and with its manifest's hash under its name, or not under its name at all."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import SystemRandom
from typing import BinaryIO, TypeVar

from rlaifv_pl.data.atomic import TEMPORARY_SUFFIX, sync
from rlaifv_pl.data.manifest import ShardInfo
from rlaifv_pl.data.remote_directory import (
    BROKEN,
    WRONG,
    RemoteDirectory,
    RemoteError,
    RemoteFault,
    RetryPolicy,
)

MAX_PAUSE = 60.0
"""Seconds between two attempts, whatever a server asks for."""
MIN_RATE = 1024
"""Bytes a second; a transfer that is slower for as long as a stall may last counts as stalled."""
MIN_PROGRESS = 2**16
"""Bytes of progress after which a failed attempt does not count."""
READ_BYTES = 2**20

T = TypeVar("T")


def retry_until_done(
    attempt: Callable[[], T], what: str, patience: RetryPolicy, wait: Callable[[float], object] = time.sleep
) -> T:
    """Repeat an attempt until it succeeds, and return its result.

    Args:
        attempt: may raise `RemoteFault`.
        what: the URL, for messages.
        patience: limits of the repetition.
        wait: sleeps so many seconds.

    Raises:
        RemoteError: all attempts failed, or one so that no other can help.
    """
    causes, tries, reached = [], 0, 0
    while True:
        try:
            return attempt()
        except RemoteFault as fault:
            causes.append(fault.cause)
            if fault.reached >= reached + MIN_PROGRESS:
                reached, tries = fault.reached, 0
            tries += 1
            if tries >= patience.attempts or causes.count(fault.cause) >= fault.cause.attempts:
                many = f" ({len(causes)} attempts)" if len(causes) > 1 else ""
                raise RemoteError(f"{what}: {fault.detail}{many}. {fault.cause.remedy}") from None
            # Not equally long for all who ask, and not by the random numbers of a run.
            backoff = patience.pause * 2 ** (tries - 1) * SystemRandom().uniform(0.5, 1.5)
            wait(min(max(backoff, fault.pause), MAX_PAUSE))


def download_shard(
    directory: RemoteDirectory, shard: ShardInfo, target: Path, on_bytes: Callable[[int], None]
) -> None:
    """Make one attempt to bring a shard to `target`; the next one goes on where it ended.

    Args:
        directory: that holds the shard.
        shard: what its manifest promises of it.
        target: path of the file; what is not whole lies beside it.
        on_bytes: called with the number of bytes that came; negative where they are void.

    Raises:
        Fault: it did not come whole, or is not what was promised.
        OSError: it cannot be written.
    """
    part = target.with_name(target.name + TEMPORARY_SUFFIX)
    with open(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        partial_file = _PartialFile(file, shard, on_bytes)
        try:
            partial_file.fill(directory)
        except RemoteFault as fault:
            fault.reached = partial_file.size
            on_bytes(-partial_file.size)  # The next attempt counts what it finds.
            raise
    sync(part)
    os.replace(part, target)
    sync(target)


class _PartialFile:
    """Part of a shard on disk, with the hash of its bytes so far."""

    def __init__(self, file: BinaryIO, shard: ShardInfo, on_bytes: Callable[[int], None]) -> None:
        self.file, self.shard, self.on_bytes = file, shard, on_bytes
        self.digest, self.size = hashlib.sha256(), 0
        while chunk := file.read(READ_BYTES):
            self._append(chunk)

    def fill(self, directory: RemoteDirectory) -> None:
        """Download the missing bytes, from where the file ends."""
        if self.size < self.shard.bytes:
            try:
                with directory.open(self.shard.name, self.size, self.shard.bytes) as opened:
                    if opened.start != self.size:
                        self._restart()
                    self._take(opened.chunks, directory.patience.stall)
            except RemoteFault as fault:
                if fault.cause is WRONG:
                    self._restart()
                elif fault.cause is BROKEN:
                    fault.detail += f", after {self.size} of {self.shard.bytes} bytes"
                raise
        self._check()

    def _take(self, chunks: Iterator[bytes], stall: float) -> None:
        since, before = time.monotonic(), self.size
        for chunk in chunks:
            if self.size + len(chunk) > self.shard.bytes:
                raise RemoteFault(WRONG, f"expected {self.shard.bytes} bytes, more came")
            self.file.write(chunk)
            self.file.flush()  # For the next process, should this one be killed.
            self._append(chunk)
            if (passed := time.monotonic() - since) > stall:
                if self.size - before < MIN_RATE * passed:
                    raise RemoteFault(BROKEN, f"{self.size - before} bytes came in {passed:.0f} seconds")
                since, before = time.monotonic(), self.size

    def _check(self) -> None:
        if self.size < self.shard.bytes:
            raise RemoteFault(
                BROKEN, f"expected {self.shard.bytes} bytes, the transfer ended after {self.size}"
            )
        if (found := self.digest.hexdigest()) != self.shard.sha256 or self.size > self.shard.bytes:
            size = self.size
            self._restart()
            raise RemoteFault(WRONG, f"expected SHA-256 {self.shard.sha256}, got {found} of {size} bytes")

    def _append(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self.size += len(chunk)
        self.on_bytes(len(chunk))

    def _restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.on_bytes(-self.size)
        self.digest, self.size = hashlib.sha256(), 0
