"""Load a vision-language model, and choose which of its parameters train."""

import fnmatch
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from rlaifv_pl.models.errors import PolicyError
from rlaifv_pl.models.pretrained import load_processor, read_model
from rlaifv_pl.models.spec import LoRA, PolicySpec

__all__ = ["LoRA", "PolicyError", "PolicySpec", "VisionLanguageModel", "load_model", "load_processor"]


class VisionLanguageModel(PreTrainedModel):
    """Common interface of all families, for annotations: transformers has no class for it."""

    model: Any
    """Tower, projector and language model, without the head."""
    get_image_features: Callable[..., Any]
    generate: Callable[..., Any]


def load_model(spec: PolicySpec, *, empty: bool = False) -> nn.Module:
    """Load the model, frozen and adapted as `spec` says; a PEFT model when it has adapters.

    Args:
        spec: what to load.
        empty: skip the weights; the model is on the `meta` device then.

    Raises:
        PolicyError: the model cannot be loaded or trained as `spec` says.
    """
    if spec.lora and (spec.freeze or not spec.freeze_vision):
        raise PolicyError(
            "policy.lora trains adapters of the language model and nothing else. Leave out policy.freeze and "
            "policy.freeze_vision, or policy.lora."
        )
    model = read_model(spec, empty=empty)
    _check_head(model)
    if spec.lora:
        with torch.device("meta") if empty else nullcontext():
            adapted = _with_adapters(model, spec.lora)
    else:
        adapted = model
        _freeze(model, spec)
    if spec.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        # Enabled for reentrant checkpointing, it would give a frozen tower a backward pass.
        model.disable_input_require_grads()
    return adapted


def _check_head(model: PreTrainedModel) -> None:
    head = model.get_output_embeddings()
    capped = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if head is None or getattr(head, "bias", None) is not None or capped:
        raise PolicyError(
            f"{type(model).__name__} does not end in a plain linear head (found {head}, soft capping {capped}), "
            "so its log-ps cannot be computed in vocabulary slices. This family is not supported."
        )


def vision_tower(model: nn.Module) -> nn.Module:
    """Return the module that turns pixels into features, before any projection of LLaVA-like families."""
    return unwrap_model(model).get_encoder("image")


def unwrap_model(model: nn.Module) -> VisionLanguageModel:
    """Return the transformers model inside a PEFT wrapper, or the model itself."""
    wrapped: Any = model
    return wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped


def _vision_parameters(model: PreTrainedModel) -> tuple[set[int], set[int]]:
    """Return ids of the tower's parameters, and of those outside tower, language model and head."""
    tower = {id(p) for p in vision_tower(model).parameters()}
    language = {id(p) for p in model.get_decoder().parameters()} | {
        id(p) for p in model.get_output_embeddings().parameters()
    }
    others = {id(p) for p in model.parameters()} - tower - language
    return tower, others


def trains_vision(model: nn.Module) -> bool:
    """Return whether a part trains that only images pass through: the tower, or the projector."""
    base = unwrap_model(model)
    vision = set.union(*_vision_parameters(base))
    return any(parameter.requires_grad for parameter in base.parameters() if id(parameter) in vision)


def frozen_parts(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost modules outside of the language model whose parameters are all frozen."""
    decoder = unwrap_model(model).get_decoder()

    def search(module: nn.Module) -> Iterator[nn.Module]:
        parameters, holds_decoder = list(module.parameters()), any(m is decoder for m in module.modules())
        if parameters and not holds_decoder and not any(p.requires_grad for p in parameters):
            yield module
        elif module is not decoder:
            for child in module.children():
                yield from search(child)

    yield from search(unwrap_model(model))


def _freeze(model: PreTrainedModel, spec: PolicySpec) -> None:
    tower, projector = _vision_parameters(model)
    frozen = (tower if spec.freeze_vision else set()) | (projector if spec.freeze_projector else set())
    unused = set(spec.freeze)
    for name, parameter in model.named_parameters():
        hits = {pattern for pattern in spec.freeze if fnmatch.fnmatchcase(name, pattern)}
        unused -= hits
        parameter.requires_grad_(not hits and id(parameter) not in frozen)
    if unused:
        raise PolicyError(
            f"policy.freeze: no parameter has a name like {sorted(unused)}. Correct or remove it."
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise PolicyError("policy: everything is frozen, nothing is left to train. Free a part of the model.")


def _with_adapters(model: PreTrainedModel, lora: LoRA) -> nn.Module:
    # Imported here, since it takes seconds and few commands need it.
    from peft import LoraConfig, get_peft_model

    inside = {id(module) for module in model.get_decoder().modules()}
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) in inside
    ]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT says int, and only ever divides it.
        lora_dropout=lora.dropout,
        target_modules=names,
    )
    return get_peft_model(model, config, autocast_adapter_dtype=True)


def parameter_table(model: nn.Module) -> list[tuple[str, int, int]]:
    """Return (part, parameters, trainable parameters) of the tower, the projector and the language model."""
    base = unwrap_model(model)
    tower, projector = _vision_parameters(base)
    counts = {"vision tower": [0, 0], "projector": [0, 0], "language model": [0, 0]}
    for parameter in model.parameters():
        part = "vision tower" if id(parameter) in tower else "language model"
        part = "projector" if id(parameter) in projector else part
        counts[part][0] += parameter.numel()
        counts[part][1] += parameter.numel() * parameter.requires_grad
    return [(part, total, trainable) for part, (total, trainable) in counts.items()]
