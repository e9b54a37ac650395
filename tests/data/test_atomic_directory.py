"""A directory that is replaced is there, old or new, whenever the machine stops."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaifv_pl.data import atomic_directory
from rlaifv_pl.data.atomic_directory import OLD_SUFFIX, replace_directory, restore_directory

FILES = {"config.json": "c", "deep/weights": "w"}
EVENTS = ("os.rename", "os.remove", "os.rmdir", "open", "ctypes.dlsym", "shutil.rmtree")


def write(directory: Path, version: str) -> Path:
    for name, text in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text + version)
    return directory


def version(directory: Path) -> str:
    """Of a directory that is whole."""
    found = {(directory / name).read_text()[1:] for name in FILES}
    assert len(found) == 1, "a mixture"
    return found.pop()


def killed_before(event: int, work: Callable[[], None]) -> bool:
    """Do something in a child that dies before one of its changes; whether it did."""
    child = os.fork()
    if not child:
        left = event

        def watch(name: str, _arguments: tuple) -> None:
            nonlocal left
            if name in EVENTS:
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchanged", "renamed"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(atomic_directory, "_exchange", lambda *_: False)
    event, is_killed, seen = 0, True, []
    while is_killed:
        event += 1
        here = tmp_path / str(event)
        old, new = write(here / "model", "old"), write(here / "model.writing", "new")
        is_killed = killed_before(event, lambda new=new, old=old: replace_directory(new, old))
        if not exchanges:
            restore_directory(old)
        seen.append(version(old))
    assert seen == sorted(seen, reverse=True) and set(seen) == {"old", "new"} and len(seen) > 5
    assert os.listdir(tmp_path / str(event)) == ["model"], "what is done leaves nothing behind"


def test_nothing_is_brought_back_over_what_is_there(tmp_path):
    write(tmp_path / "model", "new")
    write(tmp_path / f"model{OLD_SUFFIX}", "old")
    restore_directory(tmp_path / "model")
    assert version(tmp_path / "model") == "new"
