"""Files of a run, read as they are: finished or not, with rounds or without."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from rlaifv_pl.data.manifest import MANIFEST_NAME
from rlaifv_pl.errors import UserError
from rlaifv_pl.rounds.ledger import LEDGER_NAME
from rlaifv_pl.training.held_out_figures import FIGURES_NAME, FOLDER

CONFIG, METRICS, SUMMARY, ROUNDS = "config.yaml", "metrics.csv", "summary.json", "rounds"

WHAT_A_RUN_IS = ("model.class_path", "model.init_args.policy.path", "data.train", "rounds.prompts")
"""Options that a run keeps from its first start to its last."""


class ReportError(UserError, ValueError):
    """There is no run where one was named, or a file of it cannot be read."""


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """Files of a run, parsed; what is not there is empty."""

    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    config_text: str = ""
    metrics: list[dict[str, str]] = field(default_factory=list)
    """Rows of `metrics.csv`, in order; an empty cell was not logged at that step."""
    ledger: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Entries by round; 0 is the policy as the run was given it."""
    summary: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def held_out(self) -> Mapping[str, Mapping[str, Any]]:
        """Held-out benchmarks that were measured, with their figures by step; read when they are first asked for.

        Raises:
            ReportError: their file is damaged.
        """
        return _held_out(self.path / FOLDER / FIGURES_NAME)

    @cached_property
    def mixed(self) -> list[str]:
        """Signs that files of two runs lie here, in words; read when they are first asked for.

        Raises:
            ReportError: the config of a start is damaged.
        """
        found = []
        for path in sorted(self.path.glob("config.start*.yaml")):
            start = _parsed(path, _text(path))
            pairs = {name: (_at(start, name), _at(self.config, name)) for name in WHAT_A_RUN_IS}
            if changed := [f"{name}: {old}, not {new}" for name, (old, new) in pairs.items() if old != new]:
                found.append(
                    f"{path.name} has {'; '.join(changed)} as {CONFIG}: files here may be of two runs"
                )
        if self.config and self.ledger and not self.rounds:
            found.append(
                f"{ROUNDS}/{LEDGER_NAME} tells of rounds, and {CONFIG} names none: they are of another run"
            )
        return found

    @property
    def rounds(self) -> Mapping[str, Any]:
        """Settings of the rounds, in their own group or among the trainer's callbacks; empty in a run without."""
        callbacks = (self.config.get("trainer") or {}).get("callbacks") or ()
        listed = [one for one in callbacks if isinstance(one, dict)]
        named = [
            one.get("init_args") or {} for one in listed if str(one.get("class_path")).endswith(".Rounds")
        ]
        return next((one for one in (self.config.get("rounds") or {}, *named) if one.get("prompts")), {})

    @property
    def epochs_per_round(self) -> int | None:
        """None in a run without rounds."""
        return int(self.rounds.get("epochs", 1)) if self.rounds else None

    @property
    def measured(self) -> list[int]:
        """Rounds after which the evaluator has measured; 0 is before the first."""
        return [number for number, entry in self.ledger.items() if "figures" in entry]

    def prompts(self) -> list[str]:
        """Return the paths of the rounds' prompts at the run's start."""
        prompts = self.rounds.get("prompts", [])
        return [prompts] if isinstance(prompts, str) else [str(path) for path in prompts]

    def shards(self, number: int) -> Path | None:
        """Directory of a round's pairs, if they are finished."""
        directory = self.path / ROUNDS / str(number)
        return directory if (directory / MANIFEST_NAME).is_file() else None

    def corrections(self, number: int) -> Path | None:
        """Directory of a round's corrections, where it has some."""
        directory = self.path / ROUNDS / str(number) / "corrections"
        return directory if (directory / MANIFEST_NAME).is_file() else None

    def train_shards(self) -> list[str]:
        """Return the paths that a run without rounds trains on, by its config."""
        train = (self.config.get("data") or {}).get("train") or []
        return [train] if isinstance(train, str) else [str(path) for path in train]


def read_run(path: str | Path) -> RunFiles:
    """Read the files of a run.

    Raises:
        ReportError: the directory is missing or holds no run, or one of the files is damaged.
    """
    path = Path(path)
    if not path.is_dir():
        raise ReportError(f"{path} is no directory: expected that of a run (its trainer.default_root_dir).")
    if not any((path / name).exists() for name in (CONFIG, METRICS, ROUNDS)):
        raise ReportError(
            f"{path} holds no run: expected {CONFIG}, {METRICS} or {ROUNDS} in it. For shards, use "
            "`rlaifv shards show DIR --html FILE`."
        )
    text = _text(path / CONFIG)
    return RunFiles(
        path=path,
        config=_parsed(path / CONFIG, text),
        config_text=text,
        metrics=list(_rows(path / METRICS)),
        ledger=_ledger(path / ROUNDS / LEDGER_NAME),
        summary=_parsed(path / SUMMARY, _text(path / SUMMARY)),
    )


def _at(config: Mapping[str, Any], name: str) -> Any:
    """An option by its name; None where it is not set."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text() if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise ReportError(f"{path} is damaged: {error}. Restore it, or move it out of the run.") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        value = _from_json(text or "{}") if path.suffix == ".json" else yaml.safe_load(text or "{}")
    except (ValueError, yaml.YAMLError) as error:
        detail = " ".join(str(error).split())
        raise ReportError(
            f"{path} cannot be read: {detail}. Restore it, or move it out of the run."
        ) from error
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in _sections(path, value)):
        raise ReportError(f"{path} holds something else than expected: {text[:60]!r}.")
    return value


def _from_json(text: str) -> Any:
    """NaN and its like, which are not JSON, become None: a figure that is not known."""
    return json.loads(text, parse_constant=lambda _: None)


def _sections(path: Path, value: Mapping[str, Any]) -> list[Any]:
    """The parts of a file that are looked into, which must be mappings."""
    if path.name == LEDGER_NAME:
        parts = ("seconds", "drops", "notes", "figures")
        return [*value.values(), *(each.get(part, {}) for each in value.values() for part in parts)]
    groups = ("trainer", "data", "model", "rounds") if path.name == CONFIG else ()
    return [value.get(part) or {} for part in groups]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """A line without its end is still being written."""
    lines = (line for line in _text(path).splitlines(keepends=True) if line.endswith("\n"))
    reader = csv.DictReader(lines)
    for row in _readable(reader, path):
        if "step" not in row or not str(row["step"]).isdigit():
            raise ReportError(
                f"{path}, line {reader.line_num}: expected a whole number of steps in the column `step`, got "
                f"{row.get('step')!r}. Restore the file, or move it out of the run."
            )
        yield {name: cell for name, cell in row.items() if name and cell}


def _readable(reader: csv.DictReader, path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from reader
    except csv.Error as error:
        raise ReportError(f"{path} is no table: {error}. Restore it, or move it out of the run.") from error


def _held_out(path: Path) -> dict[str, dict[str, Any]]:
    """Benchmarks that have been measured."""
    entries = _parsed(path, _text(path))
    for name, entry in entries.items():
        steps = entry.get("steps") if isinstance(entry, dict) else None
        is_known = isinstance(steps, list) and all(
            isinstance(one, dict)
            and isinstance(one.get("step"), int)
            and isinstance(one.get("figures"), dict)
            for one in steps
        )
        if not is_known or not isinstance(entry.get("metric"), str):
            raise ReportError(
                f"{path}, {name!r}: expected a metric and figures by step. Restore it, or move it out."
            )
    return {name: entry for name, entry in entries.items() if entry["steps"]}


def _ledger(path: Path) -> dict[int, dict[str, Any]]:
    entries = _parsed(path, _text(path))
    if not all(number.isdigit() for number in entries):
        raise ReportError(f"{path} is no ledger: expected rounds by number, got {sorted(entries)[:3]}.")
    return {number: entries[str(number)] for number in sorted(map(int, entries))}
