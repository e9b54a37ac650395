"""Starting a command, in a copy of the server or as a real process, and killing it with all that it started."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple, Self

from tests.training.tiny import REPOSITORY, environment

KILLED = -signal.SIGKILL
WAIT_SECONDS = 300.0
"""A start that has not ended by then hangs."""
TAIL = 20_000
"""Characters of a failed start that are shown: of several processes the first to fail may have said it long before."""
VERB = "import sys; from rlaifv_pl.cli.commands import main; main(sys.argv[1:])"


class Command(NamedTuple):
    """A command line."""

    program: Literal["train", "rlaifv"]
    arguments: Sequence[str]
    processes: int = 1
    """That it is started as, all of them by whoever starts it."""


class Failed(RuntimeError):
    """A start ended neither well nor by a kill."""


class Time(NamedTuple):
    """When to kill."""

    seconds: float
    line: int = 0
    """Of what the start notes, from which the seconds count; from the start itself unless given."""


class Warm:
    """Starts copies of a server that has imported everything. A context manager.

    Args:
        notes: directory of what the starts note: a log, and a file a process.
    """

    def __init__(self, notes: Path) -> None:
        self.notes, self._number = notes, count()
        self.directory: Path | None = None
        """Whose changes are noted."""
        self.noted: Path | None = None
        """Where the last start noted them, without rank and suffix."""

    def __enter__(self) -> Self:
        server = Path(__file__).with_name("server.py")
        # Not the file itself: its directory would come first on the path, instead of this one.
        run = f"import runpy; runpy.run_path({str(server)!r}, run_name='__main__')"
        self._server = subprocess.Popen(
            [sys.executable, "-c", run], env=environment(), cwd=REPOSITORY,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        self._answer("ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stdin.close()
        self._server.wait()

    def start(self, command: Command, when: Time | None = None, moment: str = "never:") -> bool:
        """Whether the command ended before it was killed.

        Args:
            command: to start.
            when: it is killed.
            moment: at which it kills itself.

        Raises:
            Failed: it ended with an error.
        """
        self.noted = self.notes / f"{next(self._number):05d}"
        log = self.noted.with_suffix(".log")
        request = {"directory": str(self.directory), "record": str(self.noted), "log": str(log)}
        request |= {**command._asdict(), "moment": moment}
        self._server.stdin.write((json.dumps(request) + "\n").encode())
        group = self._answer("pid")
        hangs = not self._has_ended_by(when) and when is None
        _kill(group)  # Whether or not it has ended: what it started may not have.
        code = self._answer("code")
        if hangs:
            raise Failed(f"{command} hung:\n{_end_of(log)}")
        if code not in (0, KILLED):
            raise Failed(f"{command} ended with exit code {code}:\n{_end_of(log)}")
        return code == 0

    def _has_ended_by(self, when: Time | None) -> bool:
        """Wait for the end of the start or for a time, whichever comes first."""
        limit, reached = time.monotonic() + WAIT_SECONDS, None
        while time.monotonic() < limit:
            if select.select([self._server.stdout], [], [], 0.01)[0]:
                return True
            if when and reached is None and self._lines() >= when.line:
                reached = time.monotonic()
            if reached is not None and time.monotonic() >= reached + when.seconds:
                return False
        return False

    def _lines(self) -> int:
        noted = Path(f"{self.noted}-0.jsonl")
        return noted.read_bytes().count(b"\n") if noted.is_file() else 0

    def _answer(self, name: str) -> int:
        line = self._server.stdout.readline()
        if not line:
            raise Failed("the server of starts has ended")
        return json.loads(line)[name]


class Cold:
    """Starts real processes, as a shell would. They note nothing, and know no moments."""

    def __init__(self) -> None:
        self.directory, self.noted = None, Path("nowhere") / "none"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self, command: Command, when: Time | None = None) -> bool:
        """As `Warm.start`."""
        programs = {"train": ["train.py"], "rlaifv": ["-c", VERB]}
        process = subprocess.Popen(
            [sys.executable, *programs[command.program], *command.arguments], env=environment(), cwd=REPOSITORY,
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            _, said = process.communicate(timeout=when.seconds if when else WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            _kill(process.pid)
            _, said = process.communicate()
            if when is None:
                raise Failed(f"{command} hung:\n{said[-TAIL:]}") from None
            return False
        if process.returncode:
            raise Failed(f"{command} ended with exit code {process.returncode}:\n{said[-TAIL:]}")
        return True


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-TAIL:] if log.is_file() else ""
