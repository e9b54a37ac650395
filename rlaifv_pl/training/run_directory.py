"""The directory of a run: what lies there that is worth keeping, and whether another run may begin in it."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaifv_pl.data.atomic import unwritable
from rlaifv_pl.objectives.checks import RunError
from rlaifv_pl.training.checkpoint import CHECKPOINTS, LAST, is_whole, saved_checkpoints, step_of
from rlaifv_pl.training.held_out_figures import FOLDER
from rlaifv_pl.training.shown_command import again

CONFIG, EXPORT, ROUNDS = "config.yaml", "export", "rounds"
LOGS = ("metrics.csv", "tensorboard", "summary.json", "rounds.png", "report.html", "config.start*.yaml")
"""What tells of a run, and means nothing without its checkpoints."""


@dataclass(kw_only=True)
class Start:
    """How a run is asked to begin.

    Args:
        directory: of the run.
        ckpt_path: what it goes on from, as the option says.
        overwrite: whether a run that is there may be removed.
        makes_rounds: whether it makes its own shards.
    """

    directory: Path
    ckpt_path: str | None = None
    overwrite: bool = False
    makes_rounds: bool = False

    def __post_init__(self) -> None:
        # Loggers open files of this start before it is known whether it succeeds.
        found = _matching(self.directory, LOGS)
        self._logs = [file for path in found for file in (path.rglob("*") if path.is_dir() else [path])]

    @property
    def goes_on(self) -> bool:
        """Whether the run goes on from a checkpoint of its own."""
        checkpoints = self.directory / CHECKPOINTS
        if self.ckpt_path == LAST:
            return bool(saved_checkpoints(checkpoints))
        return self.ckpt_path is not None and Path(self.ckpt_path).absolute().parent == checkpoints.absolute()

    def check(self, config: Mapping[str, Any], arguments: Sequence[str]) -> None:
        """Look before anything is loaded or written.

        Args:
            config: of the run.
            arguments: of its command line, for the commands that a message gives.

        Raises:
            RunError: the directory holds another run, cannot be written, or what the run needs would be removed.
        """
        if self.overwrite and (self.ckpt_path == LAST or self.goes_on):
            raise RunError(
                f"--overwrite removes the run in {self.directory}, and --ckpt_path {self.ckpt_path} goes on from "
                "it: leave one of them out."
            )
        if self.overwrite:
            self._check_needed(config)
        elif not self.goes_on and (kept := self.kept()):
            raise RunError(_is_used(self.directory, kept, arguments))
        if (obstacle := unwritable(self.directory)) is not None:
            raise RunError(
                f"trainer.default_root_dir: the run cannot be written to {self.directory}, since {obstacle}. Name "
                "another place: --trainer.default_root_dir DIR."
            )

    def make_room(self) -> None:
        """Remove what an earlier start left, so that nothing of two runs lies side by side.

        Of a start that came to no checkpoint that is its logs: a round that it made is taken up. With `overwrite` it
        is everything.
        """
        if self.goes_on:
            return
        for path in self._logs:
            if not path.is_dir():
                path.unlink(missing_ok=True)
        for path in _matching(self.directory, _RUN) if self.overwrite else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def kept(self) -> list[str]:
        """What of an earlier run would be lost or mixed with this one, in words."""
        found = []
        if checkpoints := saved_checkpoints(self.directory / CHECKPOINTS):
            found.append(f"checkpoints up to step {step_of(checkpoints[-1])}")
        if (self.directory / EXPORT).exists():
            found.append("an exported model")
        if not self.makes_rounds and (self.directory / ROUNDS).is_dir():
            found.append("rounds, which this run makes none of")
        return found

    def _check_needed(self, config: Mapping[str, Any]) -> None:
        for name, value in _texts(config):
            place = Path(value).absolute()
            for path in _matching(self.directory, _RUN):
                if place.is_relative_to(path.absolute()):
                    raise RunError(
                        f"{name} is {value}, which --overwrite would remove with the run in {self.directory}. "
                        "Name another directory for the run: --trainer.default_root_dir DIR."
                    )


_RUN = (CONFIG, CHECKPOINTS, EXPORT, ROUNDS, FOLDER)


def _matching(directory: Path, patterns: Sequence[str]) -> list[Path]:
    return [path for pattern in patterns for path in directory.glob(pattern)]


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Texts of a config by the names of their options."""
    match value:
        case str():
            yield name, value
        case list() | tuple():
            for each in value:
                yield from _texts(each, name)
        case Mapping():
            for key, each in value.items():
                inner = name if key in ("init_args", "class_path") else f"{name}.{key}".lstrip(".")
                yield from _texts(each, inner)


def _is_used(directory: Path, kept: Sequence[str], arguments: Sequence[str]) -> str:
    commands = {
        "look at it": f"rlaifv report {directory}",
        "go on with it": again(arguments, ckpt_path=LAST),
        "keep it, and start elsewhere": again(
            arguments, **{"trainer.default_root_dir": str(_free_name(directory))}
        ),
        "remove it, and start over": again(arguments, overwrite="true"),
    }
    lines = [f"  {what}:\n    {command}" for what, command in commands.items()]
    return "\n".join(
        [f"{directory} holds a run already ({', '.join(kept)}). Nothing was changed. Choose:", *lines]
    )


def _free_name(directory: Path) -> Path:
    number = 2
    while (free := directory.with_name(f"{directory.name}-{number}")).exists():
        number += 1
    return free


def check_checkpoint(path: str, directory: Path) -> None:
    """Look at the checkpoint that a command names, before a model is loaded.

    Args:
        path: as it is named; `last` is a run's own.
        directory: of the run.

    Raises:
        RunError: there is none, or it was cut.
    """
    names = [str(found) for found in saved_checkpoints(directory / CHECKPOINTS)]
    there = f"in {directory} there are {', '.join(names)}" if names else f"there are none in {directory}"
    if not Path(path).exists():
        raise RunError(f"--ckpt_path: {path} does not exist; {there}. Name a file, or `last` for the newest.")
    if not is_whole(Path(path)):
        kind = (
            "a directory without the slices of a checkpoint"
            if Path(path).is_dir()
            else "no checkpoint, or was cut"
        )
        raise RunError(f"--ckpt_path: {path} is {kind}; {there}. `last` takes the newest that is whole.")
