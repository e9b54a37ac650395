"""The policy of a run's checkpoint: the base with what the run has trained of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from rlaifv_pl.export.policy import ExportError
from rlaifv_pl.models.fingerprint import fingerprint
from rlaifv_pl.models.policy import LoRA, PolicySpec, load_model
from rlaifv_pl.models.pretrained import validate_checkpoint
from rlaifv_pl.objectives.checks import RunError
from rlaifv_pl.training.checkpoint_io import AtomicCheckpointIO


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A policy as a checkpoint has it."""

    model: nn.Module
    spec: PolicySpec
    path: Path
    """File or directory of the checkpoint."""
    base_weights: str
    """`fingerprint` of the model that the run started from."""
    step: int | None
    """Updates made; None where the checkpoint does not say."""


def load_trained(run: str | Path, checkpoint: str = "last") -> Trained:
    """Load the policy of a checkpoint, whole, in this process.

    Args:
        run: directory of the run.
        checkpoint: name of one in the run's `checkpoints`, without `.ckpt`.

    Raises:
        ExportError: the base is no longer the one that the run started from, or the checkpoint lacks what trains.
        RunError: there is no such run or checkpoint, or it is damaged.
    """
    spec, path = policy_of(run), checkpoint_path(run, checkpoint)
    stored = AtomicCheckpointIO().load_checkpoint(path)
    spec = _from_where_it_ran(spec, stored["base"].get("directory"))
    validate_checkpoint(spec)
    model = load_model(spec)
    if stored["base"]["weights"] != fingerprint(model):
        raise ExportError(
            f"{path} is of a run that started from {stored['base']['path']}, and {spec.path} holds other weights "
            "now. Put the run's own model back: what was frozen in the run is read from there."
        )
    return Trained(
        model=trained(model, stored["state_dict"]),
        spec=spec,
        path=path,
        base_weights=stored["base"]["weights"],
        step=stored.get("global_step"),
    )


def policy_of(run: str | Path) -> PolicySpec:
    """Return the policy that a run trains, by its config.

    Raises:
        RunError: it has none.
    """
    settings: dict[str, Any] = yaml.safe_load(_config(run).read_text())["model"]["init_args"]["policy"]
    lora = settings.pop("lora", None)
    return PolicySpec(**settings, lora=LoRA(**lora) if lora else None)


def _from_where_it_ran(spec: PolicySpec, directory: str | None) -> PolicySpec:
    """A policy whose relative paths are taken from the directory that the run was started in, where they exist there
    and not in this one."""
    places = {name: getattr(spec, name) for name in ("path", "chat_template")}
    moved: dict[str, Any] = {
        name: str(Path(directory) / place)
        for name, place in places.items()
        if directory and place and not Path(place).exists() and (Path(directory) / place).exists()
    }
    return replace(spec, **moved)


def checkpoint_path(run: str | Path, checkpoint: str) -> Path:
    """Return the file or directory of a checkpoint, links followed: `last` may be another one soon.

    Raises:
        RunError: there is no such run, or none of that name in it.
    """
    directory = _config(run).parent / "checkpoints"
    path = directory / f"{checkpoint}.ckpt"
    if not path.exists():
        names = sorted(found.stem for found in directory.glob("*.ckpt"))
        raise RunError(f"{path} is missing: expected the name of a checkpoint without .ckpt, one of {names}.")
    return path.resolve()


def _config(run: str | Path) -> Path:
    path = Path(run) / "config.yaml"
    if not path.is_file():
        raise RunError(f"{path} is missing: expected the directory of a run (its trainer.default_root_dir).")
    return path


def trained(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Load what a run has trained into a model.

    Args:
        model: that the run started from.
        state: of the run's module, whole.

    Raises:
        ExportError: something that trains has no weight in the state.
    """
    prefix = "policy.model."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    expected = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if missing := sorted(expected - set(weights)):
        raise ExportError(f"the checkpoint lacks {missing[:8]}, which the run's config trains.")
    model.load_state_dict(weights, strict=False)
    return model
