"""Load a vision-language model with its processor, and decide what of it trains."""

import fnmatch
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    PreTrainedModel,
)

from rlaifv_pl.explained import Explained

SHARING = ("auto", "split", "dense", "flex", "flash", "rows")
"""Values of `PolicySpec.attention` under which attention itself is transformers' SDPA."""


class VisionLanguageModel(PreTrainedModel):
    """What the classes of all families share, for annotations: transformers has no class of its own for it."""

    model: Any
    """Tower, projector and language model, without the head."""
    get_image_features: Callable[..., Any]
    generate: Callable[..., Any]


class PolicyError(Explained, ValueError):
    """A policy that cannot be loaded or trained as configured; the message says what to change."""


@dataclass(kw_only=True)
class LoRA:
    """Low-rank adapters on the linear layers of the language model; nothing else trains then.

    Args:
        rank: of the adapters.
        alpha: scale; the adapters' output is multiplied by alpha / rank.
        dropout: on the adapters' input.
    """

    rank: int = 64
    alpha: float = 16.0
    dropout: float = 0.05


@dataclass(kw_only=True)
class PolicySpec:
    """Which model is trained, and which parts of it.

    Args:
        path: local directory or hub name of any model that AutoModelForImageTextToText loads.
        revision: of a hub model.
        dtype: of the weights. With LoRA the frozen weights may be bfloat16; full fine-tuning keeps
            float32 masters and computes in `trainer.precision`.
        attention: `auto`, which is `split`, computes what the answers of a sample share once; so do `dense` (a
            mask), `flex` (a GPU) and `flash` (a GPU with flash-attn). `rows` computes each answer with a prefix
            of its own; so does any attention implementation of transformers.
        freeze_vision: keep the vision tower as it is.
        freeze_projector: keep what lies between tower and language model as it is.
        freeze: further parameters to keep, as glob patterns of their names.
        lora: train adapters instead of the weights.
        gradient_checkpointing: compute activations again in the backward pass to save memory.
        chat_template: path to a Jinja file, for a checkpoint that has none.
        trust_remote_code: run code that comes with the checkpoint.
    """

    path: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: str = "auto"
    freeze_vision: bool = True
    freeze_projector: bool = False
    freeze: list[str] = field(default_factory=list)
    lora: LoRA | None = None
    gradient_checkpointing: bool = False
    chat_template: str | None = None
    trust_remote_code: bool = False


def load_processor(spec: PolicySpec) -> Any:
    """The model's processor, with `spec.chat_template` in place of its own if given."""
    processor = _from_pretrained(AutoProcessor.from_pretrained, spec)
    if spec.chat_template:
        try:
            processor.chat_template = Path(spec.chat_template).read_text()
        except OSError as error:
            raise PolicyError(f"policy.chat_template: expected a Jinja file, but {error}.") from error
    return processor


def load_model(spec: PolicySpec, *, empty: bool = False) -> nn.Module:
    """The model, frozen and adapted as `spec` says; a PEFT model when it has adapters.

    Args:
        spec: what to load.
        empty: leave the weights away; the model is on the `meta` device then.
    """
    if spec.lora and (spec.freeze or not spec.freeze_vision):
        raise PolicyError(
            "policy.lora trains adapters of the language model and nothing else. Leave out policy.freeze and "
            "policy.freeze_vision, or policy.lora."
        )
    model = _from_pretrained(
        _skeleton if empty else AutoModelForImageTextToText.from_pretrained,
        spec,
        dtype=getattr(torch, spec.dtype),
        attn_implementation="sdpa" if spec.attention in SHARING else spec.attention,
    )
    _check_head(model)
    if spec.lora:
        with torch.device("meta") if empty else nullcontext():
            adapted = _with_adapters(model, spec.lora)
    else:
        adapted = model
        _freeze(model, spec)
    if spec.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        # Comes along for the sake of reentrant checkpointing, and would give a frozen tower a backward pass.
        model.disable_input_require_grads()
    return adapted


def _from_pretrained(load: Callable[..., Any], spec: PolicySpec, **options: Any) -> Any:
    try:
        return load(
            spec.path, revision=spec.revision or "main", trust_remote_code=spec.trust_remote_code, **options
        )
    except UnpicklingError as error:
        raise PolicyError(
            f"policy.path: cannot load {spec.path!r}: its weights are a pickle with more than tensors in it, of which "
            "nothing was run. Take a copy with safetensors."
        ) from error
    except (OSError, ValueError) as error:
        raise PolicyError(
            f"policy.path: cannot load {spec.path!r}. Expected a directory with the files that save_pretrained writes "
            "for a model and its processor, or a hub name that can be reached from here. "
            f"transformers says: {str(error).strip().splitlines()[0]}"
        ) from error


def _skeleton(path: str, revision: str, trust_remote_code: bool, **options: Any) -> PreTrainedModel:
    """As from_pretrained, without weights."""
    where = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(path, **where)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(
            config, trust_remote_code=trust_remote_code, **options
        )
    with suppress(OSError):  # A model without the file has what its config says.
        model.generation_config = GenerationConfig.from_pretrained(path, revision=revision)
    return model.eval()


def _check_head(model: PreTrainedModel) -> None:
    head = model.get_output_embeddings()
    capped = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if head is None or getattr(head, "bias", None) is not None or capped:
        raise PolicyError(
            f"{type(model).__name__} does not end in a plain linear head (found {head}, soft capping {capped}), "
            "so its log-ps cannot be computed in vocabulary slices. This family is not supported."
        )


def vision_tower(model: nn.Module) -> nn.Module:
    """The module that turns pixels into features, before any projection of LLaVA-like families."""
    return plain_model(model).get_encoder("image")


def plain_model(model: nn.Module) -> VisionLanguageModel:
    """The transformers model inside a PEFT wrapper, or the model itself."""
    wrapped: Any = model
    return wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped


def _parts(model: PreTrainedModel) -> tuple[set[int], set[int]]:
    """Ids of the tower's parameters, and of those outside tower, language model and head."""
    tower = {id(p) for p in vision_tower(model).parameters()}
    language = {id(p) for p in model.get_decoder().parameters()} | {
        id(p) for p in model.get_output_embeddings().parameters()
    }
    others = {id(p) for p in model.parameters()} - tower - language
    return tower, others


def trains_vision(model: nn.Module) -> bool:
    """Whether something trains that only images pass through: the tower, or what lies behind it."""
    base = plain_model(model)
    seen = set.union(*_parts(base))
    return any(parameter.requires_grad for parameter in base.parameters() if id(parameter) in seen)


def _freeze(model: PreTrainedModel, spec: PolicySpec) -> None:
    tower, projector = _parts(model)
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
    # Here, since it takes seconds to import and few commands need it.
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
    """(part, parameters, of them trainable) for the tower, the projector and the language model."""
    base = plain_model(model)
    tower, projector = _parts(base)
    counts = {"vision tower": [0, 0], "projector": [0, 0], "language model": [0, 0]}
    for parameter in model.parameters():
        part = "vision tower" if id(parameter) in tower else "language model"
        part = "projector" if id(parameter) in projector else part
        counts[part][0] += parameter.numel()
        counts[part][1] += parameter.numel() * parameter.requires_grad
    return [(part, total, trainable) for part, (total, trainable) in counts.items()]
