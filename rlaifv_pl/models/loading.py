"""Load a policy and its reference from a model's directory, whole or sharded."""

from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.model_checks import check_image_tokens, max_positions
from rlaifv_pl.models.policy import PolicySpec, load_model, trains_vision, unwrap_model
from rlaifv_pl.models.pretrained import load_config, validate_checkpoint
from rlaifv_pl.models.reference import Reference, ReferenceMode
from rlaifv_pl.models.sharding import Sharding
from rlaifv_pl.models.tokenization import Processor
from rlaifv_pl.models.vlm import VLM


def load_policy(
    spec: PolicySpec, processor: Processor, mode: ReferenceMode = "none", slicing: Sharding | None = None
) -> tuple[VLM, Reference | None]:
    """Load the policy, and the reference where `mode` holds one in memory.

    Args:
        spec: model and trainable parts.
        processor: processor of the model.
        mode: `live` and `adapter_off` give a reference; others give None.
        slicing: how processes share the models; without it, each has its own.

    Raises:
        PolicyError: the model cannot be loaded, or not be sharded.
    """
    is_empty = slicing is not None and not slicing.is_first
    image_tokens_checked = is_empty or validate_checkpoint(spec, processor, trains=True)
    policy = VLM(load_model(spec, empty=is_empty), spec.attention).train()
    if not image_tokens_checked:
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
    """Return the maximal row length in tokens by the policy's config, which is read if the policy is not loaded yet."""
    return max_positions(unwrap_model(policy.model).config if policy else load_config(spec))
