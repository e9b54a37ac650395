"""Files that exist whole or not at all, and what is said of those that cannot be written."""

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

_ROOM = "Make room there."
_PERMISSION = "Let this user write there, or name another place."
REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "Raise the limit on the size of a file (ulimit -f), or take another file system.",
    errno.EROFS: _PERMISSION,
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EIO: "See to the disk.",
}
"""What to do, by what a system says that does not take a file."""
_RUST = re.compile(rf"\(os error ({'|'.join(map(str, REMEDIES))})\)")
"""How safetensors and tokenizers pass on what the system says."""
KEPT = "What was finished before is kept, and the same command (a run's with --ckpt_path last) goes on from there."


class WriteError(OSError):
    """A file cannot be written; the message says why, how much room there is, and what to do.

    Args:
        path: of the file, or of its directory.
        cause: what the system says.
        size: bytes that the file needs, if known.
    """

    def __init__(self, path: str | Path, cause: OSError, size: int | None = None) -> None:
        super().__init__(cause.errno, cause.strerror, str(path))
        self.size = size

    def __str__(self) -> str:
        return (
            f"{self.filename} cannot be written: {self.strerror}{self._room()}. {REMEDIES[self.errno]} {KEPT}"
        )

    def _room(self) -> str:
        if REMEDIES[self.errno] != _ROOM:
            return ""
        directory = next(path for path in Path(self.filename).absolute().parents if path.is_dir())
        needed = f"at least {decimal(self.size)} needed, " if self.size else ""
        return f" ({needed}{decimal(shutil.disk_usage(directory).free)} free)"


def explain_disk_error(error: BaseException) -> OSError | None:
    """What a system said that did not take a file, where that is what an error comes from."""
    found = None
    while error is not None:
        own = _fault_of(error)
        # The first that was met lies deepest; what is tried on the way out fails of the same.
        if own and (isinstance(own, WriteError) or not isinstance(found, WriteError)):
            found = own
        error = error.__cause__ or error.__context__
    return found


@contextmanager
def writing(path: str | Path, size: int | None = None) -> Iterator[None]:
    """Say which file it is that cannot be written.

    Args:
        path: of the file, or of its directory.
        size: bytes that it needs, if known.

    Raises:
        WriteError: it cannot.
    """
    try:
        yield
    except Exception as error:
        fault = explain_disk_error(error)
        # One that names a file is about that one: what is written may be read elsewhere at the same time.
        if fault is None or isinstance(fault, WriteError) or not _is_about(fault, Path(path)):
            raise
        raise WriteError(path, fault, size) from error


@contextmanager
def atomic_file(path: Path, size: int | None = None) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only once it is complete and on disk.

    A crash leaves at most `<path>.part`, an exception in the body not even that; neither leaves half a
    file under the real name.

    Args:
        path: of the file.
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
            _remove(temporary)
            raise
        sync(path.parent)


def unwritable(directory: Path) -> str | None:
    """Why nothing can be written into a directory that is there or is yet to be made, in words; None if it can."""
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if not there.is_dir():
        return f"{there} is a file"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} is read-only, or not this user's"


def sync(path: Path) -> None:
    """Wait until a file is on disk; or, of a directory, the names in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    with suppress(OSError):  # Where nothing may be written nothing was, as the error under way says.
        path.unlink(missing_ok=True)


def _fault_of(error: BaseException) -> OSError | None:
    if isinstance(error, OSError):
        return error if error.errno in REMEDIES else None
    number = _RUST.search(str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def _is_about(fault: OSError, path: Path) -> bool:
    if fault.filename is None:
        return True
    named = Path(os.fsdecode(fault.filename))
    return named.parent == path.parent or named.is_relative_to(path)
