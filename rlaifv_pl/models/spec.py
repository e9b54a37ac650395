"""Settings of the policy: which model is loaded, and which of its parts train."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(kw_only=True)
class LoRA:
    """Low-rank adapters on the linear layers of the language model; nothing else trains then.

    Args:
        rank: rank of the adapters.
        alpha: scale; the adapters' output is multiplied by alpha / rank.
        dropout: dropout on the adapters' input.
    """

    rank: int = 64
    alpha: float = 16.0
    dropout: float = 0.05


@dataclass(kw_only=True)
class PolicySpec:
    """The model to train, and its trainable parts.

    Args:
        path: local directory or hub name of any model that AutoModelForImageTextToText loads.
        revision: branch, tag or commit of a hub model.
        dtype: type of the weights. With LoRA the frozen weights may be bfloat16; full fine-tuning keeps
            float32 masters and computes in `trainer.precision`.
        attention: `auto`, which is `split`, computes shared prefixes of a sample's answers once; so do `dense` (a
            mask), `flex` (needs a GPU) and `flash` (needs a GPU and flash-attn). `rows` computes each answer with its
            own prefix; so does any attention implementation of transformers, in the language model alone.
        freeze_vision: keep the vision tower as it is.
        freeze_projector: keep the part between tower and language model as it is.
        freeze: further parameters to keep, as glob patterns of their names.
        lora: train adapters instead of the weights.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        chat_template: path of a Jinja file, for a checkpoint without a template.
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
