"""Facts about an exported model, gathered from the run that made it."""

import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache

from rlaifv_pl.data.manifest import MANIFEST_NAME, ManifestError, hash_file, hash_json, parse_manifest
from rlaifv_pl.export.adapter import base_name
from rlaifv_pl.export.policy import Reload
from rlaifv_pl.export.redact import cleaned
from rlaifv_pl.models.checkpoint_files import ADAPTER_WEIGHTS, weight_files
from rlaifv_pl.report.run_files import RunFiles
from rlaifv_pl.rounds.summary import summary_rows

PACKAGES = ("rlaifv-pl", "torch", "lightning", "transformers", "peft", "tokenizers", "safetensors", "pillow")
"""Whose versions a card names."""
Ends = dict[str, Mapping[str, Any]]
"""Metric, and first and last figures with their steps, by name of a held-out benchmark."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """The model that a run started from."""

    name: str
    """On the hub, or of its directory."""
    revision: str | None
    weights: str
    """`fingerprint` of it."""
    is_hub: bool
    license: str | None
    """License in its own card."""


@dataclass(frozen=True, kw_only=True)
class Shards:
    """A directory of samples that had a part in the run."""

    role: str
    """train, val, source, prompts, or the round that made them."""
    name: str
    samples: int | None = None
    """None where its manifest is not on this machine."""
    kinds: Mapping[str, int] = field(default_factory=dict)
    drops: Mapping[str, int] = field(default_factory=dict)
    hash: str | None = None
    """Hash of the manifest."""
    recipe_hash: str | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a card says."""

    base: Base
    objective: Mapping[str, Any]
    """Class, and what the config says about it."""
    lora: Mapping[str, Any] | None
    is_adapter: bool
    """True if only the adapter was written."""
    architecture: str
    step: int | None
    shards: list[Shards]
    rounds: list[Mapping[str, Any]]
    """Rows of `summary_rows`."""
    held_out: Ends
    environment: Mapping[str, Any]
    hashes: Mapping[str, str]
    """SHA-256 of files of the export, and of the run's config."""
    reload: Reload
    warnings: list[str]
    """Problems found."""

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON."""
        return asdict(self)


def base_of(path: str, revision: str | None, weights: str) -> Base:
    """Return the model that a run started from.

    Args:
        path: directory or hub name.
        revision: of a hub model.
        weights: `fingerprint` of it.
    """
    is_hub = not Path(path).exists()
    return Base(
        name=base_name(path),
        revision=revision,
        weights=weights,
        is_hub=is_hub,
        license=_license(path, revision),
    )


def _license(path: str, revision: str | None) -> str | None:
    """Return the license in the front matter of the model's own card; the network is not asked."""
    card: Any = Path(path) / "README.md"
    if not Path(path).exists():
        with suppress(ValueError):  # What is no name of the hub has no card there.
            card = try_to_load_from_cache(path, "README.md", revision=revision)
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return None
    _, *parts = Path(card).read_text(errors="replace").split("---\n", 2)
    with suppress(yaml.YAMLError):
        front = yaml.safe_load(parts[0]) if len(parts) == 2 else None
        named = front.get("license") if isinstance(front, dict) else None
        return named if isinstance(named, str) else None
    return None


def shards_of(run: RunFiles) -> list[Shards]:
    """Return the shards that the run learned from, was measured on, and made."""
    return [_shards(role, place) for role, place in _places(run)]


def _places(run: RunFiles) -> Iterator[tuple[str, str]]:
    data = run.config.get("data") or {}
    for role in ("train", "val"):
        named = data.get(role) or []
        yield from ((role, str(place)) for place in ([named] if isinstance(named, str) else named))
    for source in data.get("sources") or []:
        if out := (source.get("init_args") or {}).get("out"):
            yield "source", out
    for number in run.ledger:
        for found in (run.shards(number), run.corrections(number)):
            if found is not None:
                yield f"round {number}", str(found)


def _shards(role: str, place: str) -> Shards:
    path = Path(place) / MANIFEST_NAME
    name = str(cleaned(place)) or place
    try:
        manifest = parse_manifest(path.read_bytes(), path)
    except (OSError, ManifestError):
        return Shards(role=role, name=name)
    return Shards(
        role=role,
        name=name,
        samples=manifest.samples,
        kinds=dict(manifest.kinds),
        drops=dict(manifest.drops),
        hash=manifest.hash,
        recipe_hash=manifest.recipe_hash,
    )


def rounds_of(run: RunFiles) -> list[Mapping[str, Any]]:
    """Return a row for each round that was trained on; none in a run without rounds."""
    return [dict(row) for row in summary_rows(run.ledger)] if len(run.ledger) > 1 else []


def held_out_of(run: RunFiles, step: int | None) -> Ends:
    """Return first and last figures of each held-out benchmark.

    Args:
        run: whose they are.
        step: of the exported weights; what came later is left out.

    Raises:
        ReportError: the file is damaged.
    """
    found = Ends()
    for name, entry in run.held_out.items():
        if steps := [one for one in entry["steps"] if step is None or one["step"] <= step]:
            found[name] = {"metric": entry["metric"], "ends": [steps[0], steps[-1]]}
    return found


def objective_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the objective's class and settings, the policy's left out."""
    model = config.get("model") or {}
    settings = {name: value for name, value in (model.get("init_args") or {}).items() if name != "policy"}
    return {"class": str(model.get("class_path", "unknown")).rpartition(".")[2], **cleaned(settings)}


def environment_of(config: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return versions and settings of the machine's side.

    Args:
        config: of the run.
        known: what the run itself says, which counts more than its config.
    """
    trainer, data = config.get("trainer") or {}, config.get("data") or {}
    asked = {name: trainer.get(name) for name in ("devices", "num_nodes", "precision", "strategy")}
    settings = {
        "batch size": data.get("batch_size"),
        "accumulated batches": trainer.get("accumulate_grad_batches"),
        "seed": config.get("seed_everything"),
    }
    versions = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    given = {name: value for name, value in {**asked, **settings, **known}.items() if value is not None}
    return {**cleaned(given), "python": platform.python_version(), **versions, **_commit()}


def _commit() -> dict[str, str]:
    source = Path(__file__).parents[2]
    if not (source / ".git").exists():
        return {}
    asked = ["git", "-C", str(source), "rev-parse", "HEAD"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10)
        return {"git commit": done.stdout.strip()}
    return {}


def hashes_of(directory: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of the weights, of the config as it is published, and of the model's config."""
    files = [*weight_files(directory), *(directory / name for name in ("config.json", "adapter_config.json"))]
    found = {path.name: hash_file(path) for path in files if path.is_file()}
    return {**found, "settings of the run": hash_json(cleaned(config))}


def is_adapter(directory: Path) -> bool:
    """Return whether a directory holds an adapter alone."""
    return (directory / ADAPTER_WEIGHTS).is_file()
