"""Files beside exported weights: a card, the same as JSON, and the settings of the run."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.export import facts as of
from rlaifv_pl.export.card import card_of
from rlaifv_pl.export.model_directory import unserved
from rlaifv_pl.export.policy import Finish, Reload
from rlaifv_pl.export.redact import cleaned
from rlaifv_pl.models.policy import PolicySpec
from rlaifv_pl.report.run_files import ReportError, RunFiles, read_run

CARD, FACTS, SETTINGS = "README.md", "rlaifv.json", "training_config.yaml"
Read = TypeVar("Read")
UNTRAINED = "the adapters are as they were drawn: nothing was trained, and the model is its base"


@dataclass(frozen=True, kw_only=True)
class ExportOrigin:
    """Origin of an exported policy."""

    run: Path
    """Directory of the run."""
    spec: PolicySpec
    architecture: str
    base_weights: str
    """`fingerprint` of what the run started from."""
    step: int | None
    known: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the machine's side that the run itself knows, by name."""


def write_metadata(origin: ExportOrigin) -> Finish:
    """Return a function that writes card, facts and settings of a run beside its weights."""

    def write(out: Path, reload: Reload) -> None:
        facts, config = _facts(origin, out, reload)
        _put(out / CARD, card_of(facts))
        _put(out / FACTS, json.dumps(facts.to_json(), indent=2) + "\n")
        _put(out / SETTINGS, yaml.safe_dump(cleaned(config), sort_keys=False))

    return write


def _facts(origin: ExportOrigin, out: Path, reload: Reload) -> tuple[of.Facts, Mapping[str, Any]]:
    run, read_warnings = _tried(lambda: read_run(origin.run), RunFiles(path=origin.run), origin.run)
    held_out, more = _tried(lambda: of.held_out_of(run, origin.step), of.Ends(), origin.run)
    warnings = [*read_warnings, *more]
    is_adapter = of.is_adapter(out)
    if not reload.is_trained:
        warnings.append(UNTRAINED)
    if not is_adapter:
        warnings += unserved(out)
    facts = of.Facts(
        base=of.base_of(origin.spec.path, origin.spec.revision, origin.base_weights),
        objective=of.objective_of(run.config),
        lora=asdict(origin.spec.lora) if origin.spec.lora else None,
        is_adapter=is_adapter,
        architecture=origin.architecture,
        step=origin.step,
        shards=of.shards_of(run),
        rounds=of.rounds_of(run),
        held_out=held_out,
        environment=of.environment_of(run.config, origin.known),
        hashes=of.hashes_of(out, run.config),
        reload=reload,
        warnings=warnings,
    )
    return facts, run.config


def _tried(read: Callable[[], Read], otherwise: Read, run: Path) -> tuple[Read, list[str]]:
    """Read a file of a run, and return it with warnings: a damaged file is no reason to keep the run's weights back."""
    try:
        return read(), []
    except ReportError as error:
        said = cleaned(str(error).replace(str(run), run.name))
        return otherwise, [f"the run's files could not all be read: {said}".rstrip(".")]


def _put(path: Path, text: str) -> None:
    with atomic_file(path) as file:
        file.write(text.encode())
