"""A policy and its reference out of a model's directory, whole or in slices."""

from typing import Any

from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.model_checks import check_image_tokens, max_positions
from rlaifv_pl.models.policy import PolicySpec, load_model, trains_vision, unwrap_model
from rlaifv_pl.models.pretrained import load_config
from rlaifv_pl.models.reference import Reference, ReferenceMode
from rlaifv_pl.models.sharding import Sharding
from rlaifv_pl.models.validate_checkpoint import validate_checkpoint
from rlaifv_pl.models.vlm import VLM


def load_policy(
    spec: PolicySpec, processor: Any, mode: ReferenceMode = "none", slicing: Sharding | None = None
) -> tuple[VLM, Reference | None]:
    """The policy as it is on disk, and a reference of it that a mode holds in memory.

    Args:
        spec: what to load and what of it trains.
        processor: that goes with it.
        mode: `live` and `adapter_off` give a reference; others give None.
        slicing: how many processes share the models; without it, each has its own.

    Raises:
        PolicyError: it cannot be loaded, or not be cut into slices.
    """
    is_loaded_elsewhere = slicing is not None and not slicing.is_first
    is_compared = is_loaded_elsewhere or validate_checkpoint(spec, processor, trains=True)
    policy = VLM(load_model(spec, empty=is_loaded_elsewhere), spec.attention).train()
    if not is_compared:
        check_image_tokens(spec.path, unwrap_model(policy.model), processor)
    reference = Reference(policy, mode) if mode in ("live", "adapter_off") else None
    models = [policy, *([reference.copy] if reference and reference.copy else [])]
    if slicing is not None:
        slicing.hand_out(models)
    if slicing is not None or trains_vision(policy.model):
        for model in models:
            model.blank = Chat(processor).blank_image()
    return policy, reference


def positions_of(spec: PolicySpec, policy: VLM | None) -> int | None:
    """Return how many tokens a row may have, by the policy's config, which is read where it is not loaded yet."""
    return max_positions(unwrap_model(policy.model).config if policy else load_config(spec))
