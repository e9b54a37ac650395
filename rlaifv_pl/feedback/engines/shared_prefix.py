"""One prompt, many candidates: what a model has read of an image and a prompt serves all that it answers.

RLAIF-V reads them again for each of 10 candidates. Here the cache of the prompt is handed on, by `generate`'s own
means. A family may not take that faithfully, so that the first prompts are also read the plain way, and decide.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlaifv_pl.models.policy import VisionLanguageModel

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.02}
"""By how much a probability may differ from the plain way's, by type of the weights."""

PLAIN: dict[str, Any] = {
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": None,
    "min_p": None,
    "typical_p": 1.0,
}
"""What a checkpoint's `generation_config` may ask for, and what would make an answer another than the model's own."""

ONE_TOKEN = {
    **PLAIN,
    "max_new_tokens": 1,
    "do_sample": False,
    "return_dict_in_generate": True,
    "synced_gpus": False,
}


def expand_cache(model: VisionLanguageModel, inputs: Mapping[str, Any], copies: int) -> dict[str, Any]:
    """Read prompts up to their last tokens, and say what `generate` takes to go on from there.

    Args:
        inputs: of the prompts, padded left.
        copies: rows that go on from each.
    """
    shape = inputs["input_ids"].shape
    head = {name: value[:, :-1] if value.shape == shape else value for name, value in inputs.items()}
    read = model.generate(**head, **ONE_TOKEN)
    # Named otherwise from release to release of transformers, in what `generate` gives and takes alike.
    name = "cache" if "cache" in read else "past_key_values"
    cache = read[name]
    cache.batch_repeat_interleave(copies)
    # The Qwen families keep how far an image has moved each row's positions.
    if (moved := getattr(model.model, "rope_deltas", None)) is not None:
        model.model.rope_deltas = moved.repeat_interleave(copies, 0)
    rows = {
        name: value.repeat_interleave(copies, 0) for name, value in inputs.items() if value.shape == shape
    }
    return {**rows, name: cache}


def expand_cache_error(model: VisionLanguageModel, inputs: Mapping[str, Any]) -> tuple[float, float]:
    """How far first probabilities after `expand_cache` are from the plain way's, and how far they may be."""
    shared, plain = (_next(model, given) for given in (expand_cache(model, inputs, 1), inputs))
    return (shared - plain).abs().max().item(), TOLERANCE[model.dtype]


def _next(model: VisionLanguageModel, inputs: Mapping[str, Any]) -> Tensor:
    """(R, V) probabilities of the first token that each row would be continued with."""
    out = model.generate(**inputs, **ONE_TOKEN, output_logits=True)
    return out.logits[0].float().softmax(-1)
