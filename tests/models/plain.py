"""The obvious twin of the package: one dialogue at a time with images of its own, all logits, log_softmax.

Nothing of `rlaifv_pl` is used. What a family writes around an answer stands in a table, and an answer's
tokens are those that the processor adds when the answer is appended to the text.
"""

import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlaifv_pl.records import Sample

STOP = {
    "llava": "</s>",
    "llava_next": "</s>",
    "qwen2_5_vl": "<|im_end|>",
    "qwen3_vl": "<|im_end|>",
    "gemma3": "<end_of_turn>",
    "idefics3": "<end_of_utterance>",
    "smolvlm": "<end_of_utterance>",
    "internvl": "<|im_end|>",
}
"""The token behind an answer. LLaVA-1.5's template leaves it out, and generation stops at it all the same."""

SPACED = ("llava", "llava_next", "idefics3", "smolvlm")
"""Families whose template writes a space before an answer but not at the end of a generation prompt."""


def photo(seed: int, width: int = 56, height: int = 28) -> bytes:
    """A PNG of noise."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def opened(images: Sequence[bytes]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(data)).convert("RGB") for data in images]


PAIRS = (
    Sample(
        key="a",
        prompt="What is in the image?",
        images=(photo(0, 56, 56),),
        chosen="A red circle.",
        rejected="There are two cats and a chair on the street.",
    ),
    Sample(
        key="b",
        prompt="Is there a dog to the left of the cup?",
        images=(photo(1),),
        chosen="No, there is no dog in this image.",
        rejected="Yes.",
    ),
)
"""Two pairs with images of two sizes, hence for most families with two numbers of image tokens."""

TEXT_ONLY = Sample(key="t", prompt="How many cups are two cups?", chosen="Two.", rejected="Three cups.")


def user(text: str, images: int = 0) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def encode(processor: Any, text: str, images: Sequence[bytes]) -> dict[str, Tensor]:
    """One row as the model takes it, with one beginning token if the family has one."""
    bos = processor.tokenizer.bos_token
    row = processor(
        text=[text],
        images=[opened(images)] if images else None,
        add_special_tokens=bos is None or not text.startswith(bos),
        return_tensors="pt",
    )
    return dict(row)


def answer_logps(
    model: torch.nn.Module, processor: Any, texts: Sequence[str], images: Sequence[bytes]
) -> list[Tensor]:
    """The token log-ps of each answer in a text given as context, answer, context, answer ..."""
    row = encode(processor, "".join(texts), images)
    ids = row["input_ids"][0]
    row = {name: value.to(model.dtype) if value.is_floating_point() else value for name, value in row.items()}
    logps = model(**row).logits[0, :-1].log_softmax(-1)[torch.arange(len(ids) - 1), ids[1:]]
    lengths = [
        encode(processor, "".join(texts[:n]), images)["input_ids"].shape[1] for n in range(1, len(texts) + 1)
    ]
    return [logps[start - 1 : end - 1] for start, end in zip(lengths[::2], lengths[1::2], strict=True)]


def keep_wide(model: torch.nn.Module) -> torch.nn.Module:
    """The model with norms that compute in the type of what they get; stock RMSNorms round through float32."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_rms_norm, module)
    return model


def _rms_norm(norm: torch.nn.Module, x: Tensor) -> Tensor:
    eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    gain = 1 + norm.weight if type(norm).__name__.startswith("Gemma3") else norm.weight
    return gain * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def asked(processor: Any, messages: Sequence[dict[str, Any]]) -> str:
    """The text up to where the assistant is to speak."""
    return processor.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)


def completion_logps(
    model: torch.nn.Module, processor: Any, family: str, sample: Sample, answer: str, images: Sequence[bytes]
) -> Tensor:
    """The token log-ps of an answer to the sample's prompt, its stop token included."""
    context = asked(processor, [user(sample.prompt, len(images))])
    space = " " if family in SPACED else ""
    (logps,) = answer_logps(model, processor, [context, space + answer + STOP[family]], images)
    return logps
