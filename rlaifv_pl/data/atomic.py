"""Files that exist whole or not at all, and errors that name the file that cannot be written."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from rich.filesize import decimal

TEMPORARY_SUFFIX = ".part"

_MAKE_ROOM = "Make room there."
_PERMISSION = "Let this user write there, or name another place."
REMEDIES = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EFBIG: "Raise the limit on the size of a file (ulimit -f), or take another file system.",
    errno.EROFS: _PERMISSION,
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EIO: "Check the disk.",
}
"""Remedy for each error of the system about a file that cannot be written."""
_RUST_ERROR = re.compile(rf"\(os error ({'|'.join(map(str, REMEDIES))})\)")
"""Form in which safetensors and tokenizers pass the system's error on."""
KEPT = "What was finished before is kept, and the same command (a run's with --ckpt_path last) goes on from there."


class WriteError(OSError):
    """A file cannot be written; the message gives the reason, the free space and the remedy.

    Args:
        path: the file, or its directory.
        cause: error of the system.
        size: bytes that the file needs, if known.
    """

    def __init__(self, path: str | Path, cause: OSError, size: int | None = None) -> None:
        super().__init__(cause.errno, cause.strerror, str(path))
        self.size = size

    def __str__(self) -> str:
        remedy, space = REMEDIES[self.errno or errno.EIO], ""
        if remedy == _MAKE_ROOM:
            directory = next(path for path in Path(self.filename).absolute().parents if path.is_dir())
            needed = f"at least {decimal(self.size)} needed, " if self.size else ""
            space = f" ({needed}{decimal(shutil.disk_usage(directory).free)} free)"
        return f"{self.filename} cannot be written: {self.strerror}{space}. {remedy} {KEPT}"


def explain_disk_error(error: BaseException | None) -> OSError | None:
    """Return the system's error about writing a file that an error was caused by; None if there is none."""
    deepest = None
    while error is not None:
        own = _disk_error(error)
        # The first failure lies deepest in the chain; clean-up on the way out fails for the same reason.
        if own and (isinstance(own, WriteError) or not isinstance(deepest, WriteError)):
            deepest = own
        error = error.__cause__ or error.__context__
    return deepest


@contextmanager
def writing(path: str | Path, size: int | None = None) -> Iterator[None]:
    """Name the file in errors of the body that come from not being able to write it.

    Args:
        path: the file, or its directory.
        size: bytes that it needs, if known.

    Raises:
        WriteError: it cannot be written.
    """
    try:
        yield
    except Exception as error:
        cause = explain_disk_error(error)
        # An error with a file name is about that file: the body may read others at the same time.
        if cause is None or isinstance(cause, WriteError) or not _is_about(cause, Path(path)):
            raise
        raise WriteError(path, cause, size) from error


@contextmanager
def atomic_file(path: Path, size: int | None = None) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only once it is complete and on disk.

    A crash leaves at most `<path>.part`, an exception in the body not even that; neither leaves half a
    file under the real name.

    Args:
        path: the file.
        size: bytes that it needs, if known, for the message.

    Raises:
        WriteError: there is no room, or no permission.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    with writing(path, size):
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):  # Where nothing can be written, there is nothing to remove.
                temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def unwritable(directory: Path) -> str | None:
    """Return why nothing can be written into a directory, which may be yet to be made; None if it can."""
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if not existing.is_dir():
        return f"{existing} is a file"
    return None if os.access(existing, os.W_OK | os.X_OK) else f"{existing} is read-only, or not this user's"


def sync(path: Path) -> None:
    """Flush a file, or the names in a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_error(error: BaseException) -> OSError | None:
    if isinstance(error, OSError):
        return error if error.errno in REMEDIES else None
    number = _RUST_ERROR.search(str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def _is_about(error: OSError, path: Path) -> bool:
    if error.filename is None:
        return True
    named = Path(os.fsdecode(error.filename))
    return named.parent == path.parent or named.is_relative_to(path)
