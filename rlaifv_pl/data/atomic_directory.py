"""Directories that are replaced whole: at any moment the old one or the new one stands under the name."""

import ctypes
import os
import shutil
from pathlib import Path

from rlaifv_pl.data.atomic import sync

OLD_SUFFIX = ".old"
"""Of the directory that is replaced, while it is, where a system cannot exchange two names at once."""
_HERE = -100
_EXCHANGE = 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux's renameat2."""


def replace_directory(new: Path, path: Path) -> None:
    """Let a directory that is complete take a name, and remove the one that had it.

    Linux exchanges the two at once. Other systems, and file systems that cannot (NFS), rename one after the other;
    where a crash falls between, `restore_directory` brings the old one back.

    Args:
        new: on the same file system.
        path: the name; nothing need be there.
    """
    for file in new.rglob("*"):
        sync(file)
    sync(new)
    if not path.exists():
        new.rename(path)
        sync(path.parent)
        return
    old = new
    if not _exchange(new, path):
        old = path.with_name(path.name + OLD_SUFFIX)
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
        new.rename(path)
    sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def restore_directory(path: Path) -> None:
    """Bring back what a crash left under another name while it was being replaced."""
    old = path.with_name(path.name + OLD_SUFFIX)
    if old.is_dir() and not path.exists():
        old.rename(path)
        sync(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Whether two names could be exchanged at once."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # No Linux, or a C library from before 2018.
        return False
    return rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0
