"""A disk that is full, or may not be written: a real one where this machine lets us mount it."""

import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BALLAST = "ballast"


class Disk:
    """A file system of its own.

    Args:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def leave(self, free: int) -> None:
        """Fill it but for so many bytes, which it gives in pages."""
        self.empty()
        (self.path / BALLAST).write_bytes(bytes(shutil.disk_usage(self.path).free - free))

    def empty(self) -> None:
        """Take away what fills it."""
        (self.path / BALLAST).unlink(missing_ok=True)

    def protect(self, on: bool = True) -> None:
        """Let nobody write there, root included."""
        subprocess.run(["mount", "-o", f"remount,{'ro' if on else 'rw'}", str(self.path)], check=True)


@contextmanager
def mounted(path: Path, size: str) -> Iterator[Disk]:
    """A disk of some size, in memory; skips the test where none can be mounted."""
    path.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("there is no program `mount` to make a small disk with")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    """Nothing writes a file beyond so many bytes; Python has the signal of it ignored."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
