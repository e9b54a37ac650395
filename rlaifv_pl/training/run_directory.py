"""The directory of a run: what it holds that is worth keeping, and whether another run may begin in it."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaifv_pl.data.atomic import unwritable
from rlaifv_pl.objectives.checks import RunError
from rlaifv_pl.training.checkpoint import CHECKPOINTS, LAST, is_whole, saved_checkpoints, step_of
from rlaifv_pl.training.held_out_figures import FOLDER
from rlaifv_pl.training.shown_command import rerun_command

CONFIG, EXPORT, ROUNDS = "config.yaml", "export", "rounds"
LOGS = ("metrics.csv", "tensorboard", "summary.json", "rounds.png", "report.html", "config.start*.yaml")
"""Logs of a run, which mean nothing without its checkpoints."""


@dataclass(kw_only=True)
class Start:
    """Start of a run.

    Args:
        directory: directory of the run.
        ckpt_path: value of the option --ckpt_path.
        overwrite: whether an existing run may be removed.
        makes_rounds: whether the run makes its own shards.
    """

    directory: Path
    ckpt_path: str | None = None
    overwrite: bool = False
    makes_rounds: bool = False

    def __post_init__(self) -> None:
        # Loggers open files of this start before it is known whether it succeeds.
        logs = _matching(self.directory, LOGS)
        self._old_logs = [file for path in logs for file in (path.rglob("*") if path.is_dir() else [path])]

    @property
    def is_resumed(self) -> bool:
        """Whether the run is resumed from a checkpoint of its own."""
        checkpoints = self.directory / CHECKPOINTS
        if self.ckpt_path == LAST:
            return bool(saved_checkpoints(checkpoints))
        return self.ckpt_path is not None and Path(self.ckpt_path).absolute().parent == checkpoints.absolute()

    def check(self, config: Mapping[str, Any], arguments: Sequence[str]) -> None:
        """Check the directory, before anything is loaded or written.

        Args:
            config: config of the run.
            arguments: arguments of its command line, for the commands that a message shows.

        Raises:
            RunError: the directory holds another run, cannot be written, or what the run needs would be removed.
        """
        if self.overwrite and (self.ckpt_path == LAST or self.is_resumed):
            raise RunError(
                f"--overwrite removes the run in {self.directory}, and --ckpt_path {self.ckpt_path} resumes "
                "it: leave one of them out."
            )
        if self.overwrite:
            self._check_needed(config)
        elif not self.is_resumed and (contents := self.contents_to_keep()):
            raise RunError(_explain_existing_run(self.directory, contents, arguments))
        if (obstacle := unwritable(self.directory)) is not None:
            raise RunError(
                f"trainer.default_root_dir: the run cannot be written to {self.directory}, since {obstacle}. Name "
                "another place: --trainer.default_root_dir DIR."
            )

    def clear_directory(self) -> None:
        """Remove the files of an earlier start, so that those of two runs never mix.

        Without `overwrite` that start has saved no checkpoint, and only its logs go: a round that it made is reused.
        """
        if self.is_resumed:
            return
        for path in self._old_logs:
            if not path.is_dir():
                path.unlink(missing_ok=True)
        for path in _matching(self.directory, _RUN) if self.overwrite else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def contents_to_keep(self) -> list[str]:
        """Descriptions of the parts of an earlier run that would be lost, or mixed with this one."""
        contents = []
        if checkpoints := saved_checkpoints(self.directory / CHECKPOINTS):
            contents.append(f"checkpoints up to step {step_of(checkpoints[-1])}")
        if (self.directory / EXPORT).exists():
            contents.append("an exported model")
        if not self.makes_rounds and (self.directory / ROUNDS).is_dir():
            contents.append("rounds, and this run has none")
        return contents

    def _check_needed(self, config: Mapping[str, Any]) -> None:
        for name, value in _strings(config):
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


def _strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Strings of a config, with the names of their options."""
    match value:
        case str():
            yield name, value
        case list() | tuple():
            for each in value:
                yield from _strings(each, name)
        case Mapping():
            for key, each in value.items():
                inner = name if key in ("init_args", "class_path") else f"{name}.{key}".lstrip(".")
                yield from _strings(each, inner)


def _explain_existing_run(directory: Path, contents: Sequence[str], arguments: Sequence[str]) -> str:
    commands = {
        "look at it": f"rlaifv report {directory}",
        "resume it": rerun_command(arguments, ckpt_path=LAST),
        "keep it, and start elsewhere": rerun_command(
            arguments, **{"trainer.default_root_dir": str(_free_name(directory))}
        ),
        "remove it, and start over": rerun_command(arguments, overwrite="true"),
    }
    lines = [f"  {what}:\n    {command}" for what, command in commands.items()]
    return "\n".join(
        [f"{directory} holds a run already ({', '.join(contents)}). Nothing was changed. Choose:", *lines]
    )


def _free_name(directory: Path) -> Path:
    number = 2
    while (free := directory.with_name(f"{directory.name}-{number}")).exists():
        number += 1
    return free


def check_checkpoint(path: str, directory: Path) -> None:
    """Check the checkpoint that a command names, before a model is loaded.

    Args:
        path: value of --ckpt_path.
        directory: directory of the run, whose checkpoints a message lists.

    Raises:
        RunError: the checkpoint is missing or incomplete.
    """
    names = [str(saved) for saved in saved_checkpoints(directory / CHECKPOINTS)]
    there = f"in {directory} there are {', '.join(names)}" if names else f"there are none in {directory}"
    if not Path(path).exists():
        raise RunError(f"--ckpt_path: {path} does not exist; {there}. Name a file, or `last` for the newest.")
    if not is_whole(Path(path)):
        kind = (
            "a directory without the slices of a checkpoint"
            if Path(path).is_dir()
            else "not a checkpoint, or is truncated"
        )
        raise RunError(f"--ckpt_path: {path} is {kind}; {there}. `last` takes the newest complete one.")
