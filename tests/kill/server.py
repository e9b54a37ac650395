"""A process that has imported everything and becomes any command, in forked copies of itself.

Takes requests from stdin and answers on stdout, a line of JSON each; one start at a time. It is run by its path, and
imports nothing of `tests`: that package changes how images are prepared, and a start must be what `train.py` is.
"""

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import peft  # noqa: F401 (what others import when they need it)
import torch.utils.tensorboard  # noqa: F401

import rlaifv_pl.cli.feedback
import rlaifv_pl.cli.fit  # noqa: F401
from rlaifv_pl.cli import commands
from rlaifv_pl.feedback.engines.response_cache import ResponseCache
from rlaifv_pl.objectives.base import AlignmentModule

PROGRAMS = {"train": commands.main, "rlaifv": commands.main}
CHANGES = {
    "os.rename": 1, "os.remove": 0, "os.link": 1, "os.symlink": 1, "os.mkdir": 0, "os.rmdir": 0, "os.truncate": 0
}  # fmt: skip
"""What changes a directory: the audit event, and which of its arguments is the path."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def serve() -> Callable[[], None] | None:
    """Answer requests until there are no more; in a copy, what it is to do."""
    _say(ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            return _become(request)
        _, status = os.waitpid(pid, 0)
        _say(code=os.waitstatus_to_exitcode(status))
    return None


def _become(request: dict) -> Callable[[], None]:
    os.setsid()
    _say(pid=os.getpid())
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    rank = _fork_ranks(request["processes"])
    sys.argv = [request["program"], *request["arguments"]]
    note = _noting(Path(f"{request['record']}-{rank}.jsonl"))
    _note_batches(note)
    if rank == 0:  # The others write little, and die with it.
        kind, _, where = request["moment"].partition(":")
        _watch(request["directory"], note, int(where) if kind == "change" else 0)
        if kind in DEATHS:
            DEATHS[kind](where)
    return PROGRAMS[request["program"]]


def _say(**answer: int) -> None:
    os.write(1, (json.dumps(answer) + "\n").encode())


def _fork_ranks(processes: int) -> int:
    """As torchrun would start them, in one group; which of them this one is."""
    if processes == 1:
        return 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ["MASTER_PORT"] = str(free.getsockname()[1])
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(processes), "NODE_RANK": "0"}
    rank = next((rank for rank in range(1, processes) if not os.fork()), 0)
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
    return rank


def _noting(path: Path) -> Callable[..., None]:
    """Writes a line at once, by a call that is itself no event."""
    file, began = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), time.monotonic()

    def note(**values: object) -> None:
        line = {"seconds": round(time.monotonic() - began, 3), **values}
        os.write(file, (json.dumps(line) + "\n").encode())

    return note


def _note_batches(note: Callable[..., None]) -> None:
    train = AlignmentModule.training_step

    def watched(self, batch, index):
        note(epoch=self.current_epoch, batch=index, keys=list(batch.keys))
        return train(self, batch, index)

    AlignmentModule.training_step = watched


def _watch(directory: str, note: Callable[..., None], at: int) -> None:
    """Note each change of a directory before it happens, and die instead of the one of that number, from 1."""
    own, count = os.getpid(), 0

    def change(what: str, path: str | None) -> None:
        nonlocal count
        if path is not None and os.getpid() == own and _counts(what, path, directory):
            count += 1
            note(change=what, path=os.path.relpath(path, directory))
            if count == at:
                die()

    sys.addaudithook(lambda event, arguments: change(event, _changed(event, arguments)))
    put = ResponseCache.put

    def heard(self, answers):
        change("put", str(self.path))  # SQLite tells of nothing.
        put(self, answers)

    ResponseCache.put = heard


def _counts(what: str, path: str, directory: str) -> bool:
    """Whether a kill before it may be another one than before the next. (What is synced to the disk is there already
    for whoever comes after a kill, and event files are written by a thread of their own.)"""
    is_made_already = what == "os.mkdir" and os.path.isdir(path)
    return path.startswith(directory) and not is_made_already and "/tensorboard" not in path


def _changed(event: str, arguments: tuple) -> str | None:
    """The path that an event is about to change."""
    if event == "open":
        path, _, flags = arguments
        return os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) and flags & WRITING else None
    if event not in CHANGES:
        return None
    path = os.fsdecode(arguments[CHANGES[event]])
    if (
        event in ("os.remove", "os.rmdir") and arguments[-1] >= 0
    ):  # Below an open directory: a tree is removed.
        path = os.path.join(os.readlink(f"/proc/self/fd/{arguments[-1]}"), path)
    return path


def die(*_args: object) -> None:
    """As `kill -9` of all processes from outside: nothing is flushed, nothing cleaned up."""
    os.killpg(0, signal.SIGKILL)


def _die_before(pattern: str) -> None:
    """Die just before a file whose path matches takes its name."""
    replace = os.replace

    def watched(source, target):
        if re.search(pattern, str(target)):
            die()
        replace(source, target)

    os.replace = watched


def _die_after(pattern: str) -> None:
    """Die just after it has."""
    replace = os.replace

    def watched(source, target):
        replace(source, target)
        if re.search(pattern, str(target)):
            die()

    os.replace = watched


def _die_at_step(step: str) -> None:
    """Die in a training step, counted over all of the run."""
    train = AlignmentModule.training_step

    def watched(self, batch, index):
        return die() if self.global_step == int(step) else train(self, batch, index)

    AlignmentModule.training_step = watched


DEATHS = {"before": _die_before, "after": _die_after, "step": _die_at_step}
"""By kind of moment: what makes a start die then."""

if __name__ == "__main__" and (command := serve()):
    command()
