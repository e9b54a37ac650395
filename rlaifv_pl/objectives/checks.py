"""Checks at the start or at the first batch, of faults that would otherwise be silent."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from rlaifv_pl.errors import UserError
from rlaifv_pl.models.self_check import tree_error
from rlaifv_pl.models.sharding import Sharding
from rlaifv_pl.models.spec import PolicySpec
from rlaifv_pl.models.vlm import VLM, Batch
from rlaifv_pl.objectives.terms import Term

SLICED = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)
"""Strategies that shard the model."""


class Origin(Protocol):
    """The part of an objective that checkpoints record."""

    policy_spec: PolicySpec
    base_weights: str


class RunError(UserError, RuntimeError):
    """A run that cannot continue as configured; the message says what to change."""


def sharding_of(trainer: Trainer | None) -> Sharding | None:
    """Return how the strategy shards models; None if each process has a whole one.

    Raises:
        RunError: the strategy shards in a way that is not supported.
    """
    if trainer is None:
        return None
    slicing = getattr(trainer.strategy, "slicing", None)
    if slicing is None and isinstance(trainer.strategy, SLICED):
        raise RunError(
            f"trainer.strategy is {type(trainer.strategy).__name__}, which is not supported. Set "
            "rlaifv_pl.training.fsdp.FSDP2Strategy instead (--config machine/fsdp)."
        )
    return slicing


def check_tree(policy: VLM, batch: Batch) -> bool:
    """Compare log-ps over shared prefixes with those of plain rows.

    Returns:
        whether they could be compared: a non-finite batch shows nothing.

    Raises:
        RunError: they differ by more than rounding.
    """
    error, allowed = tree_error(policy, batch)
    if math.isnan(error):
        return False
    if not error <= allowed:
        raise RunError(
            f"Log-ps of the first batch differ by {error:.2g} nats a token between {policy.attention} "
            f"attention over shared prefixes and rows computed one by one; {allowed:.2g} is what rounding "
            "explains. Training would be wrong. Set policy.attention: rows."
        )
    return True


def check_gradients(policy: VLM) -> bool:
    """Check after a backward pass that every trained parameter has a gradient.

    Raises:
        RunError: some have none.
    """
    without = [name for name, p in policy.named_parameters() if p.requires_grad and p.grad is None]
    if without:
        raise RunError(
            f"{len(without)} parameters are set to train but got no gradient from the first batch: "
            f"{', '.join(without[:8])}{' ...' if len(without) > 8 else ''}. Their optimiser state could not be saved "
            "and distributed training would hang. Freeze them: policy.freeze takes patterns of these names "
            "(without the leading 'model.')."
        )
    return True


def origin_of(module: Origin) -> dict[str, str]:
    """Return the origin of a run for its checkpoints: policy path, hash of its weights, objective, and the directory
    that a relative path starts from."""
    return {
        "path": module.policy_spec.path,
        "weights": module.base_weights,
        "objective": type(module).__name__,
        "directory": os.getcwd(),
    }


def check_resumed(checkpoint: Mapping[str, Any], trained: Sequence[str], origin: Mapping[str, str]) -> None:
    """Compare a checkpoint with the run that resumes from it.

    Args:
        checkpoint: saved checkpoint.
        trained: names of the trained parameters.
        origin: `origin_of` the run.

    Raises:
        RunError: the objective or the trained parameters differ, or the run started from other weights, so that
            frozen weights and the reference would differ.
    """
    base = checkpoint.get("base", {"path": "no model of this program", "weights": ""})
    if (objective := base.get("objective", origin["objective"])) != origin["objective"]:
        raise RunError(
            f"The checkpoint is of a run of {objective}, and this one is of {origin['objective']}. To go on from its "
            "weights, write them with `rlaifv export RUN DIR` and set model.policy.path to DIR."
        )
    saved, expected = set(checkpoint["state_dict"]), set(trained)
    if saved != expected:
        raise RunError(
            "The checkpoint does not fit the configured policy: "
            f"missing {sorted(expected - saved)[:8]}, unexpected {sorted(saved - expected)[:8]}. "
            "Resume with the config that the run was started with (config.yaml in its directory)."
        )
    if base["weights"] != origin["weights"]:
        raise RunError(
            f"The checkpoint is of a run that started from {base['path']}, and policy.path, "
            f"{origin['path']}, holds other weights (or policy.dtype rounds them otherwise). Resume "
            "with the model that the run was started from; the directory may have moved."
        )


def check_terms(terms: Sequence[Term], has_reference: bool) -> None:
    """Refuse a list of terms that makes no sense, before a model is loaded for it.

    Raises:
        ValueError: the list is empty, trains nothing, names a class twice, lacks the reference that a
            term needs, or has one that no term uses.
    """
    if not terms:
        raise ValueError("`losses` is empty: give at least one term, for instance `class_path: Sigmoid`.")
    if all(term.weight == 0 for term in terms):
        raise ValueError(
            f"Every term of `losses` has weight 0 ({_names(terms)}), so nothing would be trained. "
            "Give one of them a positive weight."
        )
    classes = Counter(type(term).__name__ for term in terms)
    if repeated := [name for name, count in classes.items() if count > 1]:
        raise ValueError(
            f"`losses` names {', '.join(repeated)} more than once, and both parts would be logged under "
            "one name. Merge them into one term that has the sum of the weights."
        )
    comparing = [term for term in terms if term.needs_reference]
    if comparing and not has_reference:
        raise ValueError(
            f"{_names(comparing)} in `losses` compares with a reference, but `reference` is none. "
            "Configure a reference, or take a term without one: SimPO, CPO, ORPO."
        )
    if has_reference and not comparing:
        raise ValueError(
            f"No term of `losses` ({_names(terms)}) looks at the reference, which would be computed for "
            "nothing. Set `reference: none`, or add a term that needs it, such as Sigmoid."
        )


def _names(terms: Iterable[Term]) -> str:
    return ", ".join(type(term).__name__ for term in terms)
