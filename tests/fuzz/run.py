"""A case from its seed and number: made, run in a process of its own with limits, and compared with what was there."""

import gc
import hashlib
import json
import os
import pickle
import random
import resource
import select
import shutil
import signal
import stat
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from rlaifv_pl.data.manifest import MANIFEST_NAME
from tests.fuzz import files, manifests, pictures, sidecars, sources, tars, texts
from tests.fuzz.base import Case, layout_forest, seal, write_base
from tests.fuzz.readers import (
    Reading,
    attempt,
    of_shards,
    of_sidecars,
    of_sources,
    strict_output,
    trained,
    verified,
)
from tests.fuzz.truth import Breach

CONTENT = tars.KINDS | pictures.KINDS | texts.KINDS
GROUPS: tuple[tuple[dict[str, Callable[[Case], None]], Callable[[Case, Reading], str]], ...] = (
    (CONTENT, of_shards),
    (manifests.KINDS, of_shards),
    (sidecars.KINDS, of_sidecars),
    (sources.KINDS | files.KINDS, of_sources),
)
KINDS = [(name, group) for group, (kinds, _) in enumerate(GROUPS) for name in kinds]
SECOND, SEALED = 0.2, 0.7
"""How many cases are damaged twice, and how many tars come with a manifest that fits them."""

LIMITS = {
    "rlaifv_pl.data.images.MAX_PIXELS": 2**22,
    "rlaifv_pl.data.images.MAX_SAMPLE_PIXELS": 2**24,
    "rlaifv_pl.data.shards.MAX_SAMPLE_BYTES": 2**24,
    "rlaifv_pl.data.importers.images.MAX_SAMPLE_BYTES": 2**24,
}
"""In place of those of the package, for what is checked is that they hold: large ones would take long."""
RESIDENT, VIRTUAL = 400 * 2**20, 2**30
"""Bytes that a case may take more than the process before it: of memory in use, and of addresses."""
CPU_SECONDS, SECONDS = 20, 90
LARGEST_HASHED = 2**24


class Outcome(NamedTuple):
    """What came of a case."""

    kind: str
    said: str
    """`whole`, `skipped ...`, `refused ...`, or what was breached."""
    is_breach: bool
    did: list[str]


@dataclass
class Fuzzer:
    """What all cases of a run share.

    Args:
        seed: of all.
        home: an empty directory.
    """

    seed: int
    home: Path
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        self.home = self.home.resolve()
        write_base(self.home / "pristine")
        with strict_output():
            self._prepare()
        gc.freeze()  # What is never looked through is not copied for each case.

    def _prepare(self) -> None:
        """Write the sidecars that cases start from."""
        case = Case(random.Random(), self.home)
        (self.home / "shards").symlink_to("pristine")
        trained(case, self.reading, "raise", True)
        (self.home / "shards").unlink()

    def run(self, number: int) -> Outcome:
        """One case, derived from the seed and its number alone."""
        kind, group = KINDS[number % len(KINDS)]
        case = Case(random.Random(f"{self.seed}/{number}"), self.home / "case")
        case.turn = number // len(KINDS) + 45 * self.seed
        shutil.rmtree(case.here, ignore_errors=True)
        case.here.mkdir()
        layout_forest(self.home / "pristine", case.here)
        self._damage(case, kind, group)
        before = listing(self.home)
        said, is_breach = _apart(lambda: self._check(case, GROUPS[group][1]))
        if not is_breach and (changed := _changed(before, listing(self.home), GROUPS[group][1])):
            said, is_breach = f"changed {changed}", True
        return Outcome(kind, said, is_breach, case.did)

    def _damage(self, case: Case, kind: str, group: int) -> None:
        kinds, way = GROUPS[group]
        kinds[kind](case)
        if way is of_sources:
            return
        if case.rng.random() < SECOND:
            other = case.rng.choice(sorted(CONTENT if kinds is manifests.KINDS else kinds))
            case.note(f"and {other}:")
            _again(kinds.get(other) or CONTENT[other], case)
        if kinds is CONTENT and case.rng.random() < SEALED:
            seal(case)

    def _check(self, case: Case, way: Callable[[Case, Reading], str]) -> str:
        changed = way is of_shards and not case.sealed and self._is_changed(case)
        said = way(case, self.reading)
        if changed and attempt(verified, case) == "whole":
            raise Breach("a shard was changed, and verify did not see it")
        return said

    def _is_changed(self, case: Case) -> bool:
        """Whether a shard that the manifest lists is not as it was written."""
        manifest = case.shards / MANIFEST_NAME
        try:
            document = json.loads(manifest.read_bytes() if manifest.is_file() else b"")
            listed = {info["name"] for info in document["shards"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False  # Nothing is listed, and nothing read.

        def tar(path: Path) -> bytes | None:
            return path.read_bytes() if path.is_file() and path.stat().st_size < LARGEST_HASHED else None

        pristine = [path for path in sorted((self.home / "pristine").glob("*.tar")) if path.name in listed]
        return any(path.read_bytes() != tar(case.shards / path.name) for path in pristine)


def _again(damage: Callable[[Case], None], case: Case) -> None:
    """A second damage, if the first left anything to damage."""
    try:
        damage(case)
    except (OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        case.note(f"not possible any more: {type(error).__name__}")
    except Exception as error:
        if type(error).__module__ != "tarfile":
            raise
        case.note("no tar any more")


def listing(directory: Path) -> dict[str, tuple]:
    """What lies in a directory: kind, size, times and contents, and where links lead to."""
    found = {}
    for folder, folders, names in os.walk(directory):
        for name in [*folders, *names]:
            path = Path(folder) / name
            status = path.lstat()
            what = os.readlink(path) if path.is_symlink() else ""
            if stat.S_ISREG(status.st_mode) and status.st_size < LARGEST_HASHED:
                what = hashlib.sha256(path.read_bytes()).hexdigest()
            times = 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
            size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
            found[str(path.relative_to(directory))] = status.st_mode, size, times, what
    return found


def _changed(before: dict[str, tuple], after: dict[str, tuple], way: Callable) -> list[str]:
    """Names of what is other than before, but for what the ways are to write."""
    names = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    allowed = ("case/out",) + (("case/shards/sizes-", "case/shards/reference-") if way is of_sidecars else ())
    return sorted(name for name in names if not name.startswith(allowed))


def _memory(name: str) -> int:
    """A value of this process's, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _apart(work: Callable[[], str]) -> tuple[str, bool]:
    """Do work in a process of its own: what it came to, and whether that is a breach."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        try:
            with os.fdopen(theirs, "wb") as file:
                file.write(pickle.dumps(_limited(work)))
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        is_ready = bool(select.select([file], [], [], SECONDS)[0])
        if not is_ready:
            os.kill(child, signal.SIGKILL)
        answer = file.read()
    _, status = os.waitpid(child, 0)
    if not is_ready:
        return f"was not done after {SECONDS} seconds", True
    if not answer:
        return f"ended by {_ended(status)}", True
    return pickle.loads(answer)


def _ended(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"exit code {os.WEXITSTATUS(status)}"
    name = signal.Signals(os.WTERMSIG(status)).name
    return f"{name}, after {CPU_SECONDS} seconds of work" if name == "SIGXCPU" else name


def _limited(work: Callable[[], str]) -> tuple[str, bool]:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    # Far beyond what is allowed, and there to guard the machine.
    resource.setrlimit(resource.RLIMIT_DATA, (_memory("VmData") + 6 * VIRTUAL,) * 2)
    resident, virtual = _memory("VmRSS"), _memory("VmSize")
    try:
        with ExitStack() as stack:
            for name, value in LIMITS.items():
                stack.enter_context(mock.patch(name, value))
            stack.enter_context(strict_output())
            said = work()
    except Breach as breach:
        return f"{breach}{_trace(breach.__cause__)}", True
    except BaseException as error:
        return f"the fuzzer itself: {error!r}{_trace(error)}", True
    for name, start, most in (("VmHWM", resident, RESIDENT), ("VmPeak", virtual, VIRTUAL)):
        if (took := _memory(name) - start) > most:
            return f"took {took >> 20} MiB of {name}, after {said}", True
    return said, False


def _trace(error: BaseException | None) -> str:
    return "\n" + "".join(traceback.format_exception(error)[-12:]) if error else ""
