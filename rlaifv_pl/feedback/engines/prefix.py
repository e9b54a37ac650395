"""One prefix, many continuations: what a model has read of an image and a prompt serves all that follows.

RLAIF-V reads the image again for each of 10 candidates and for each of some 100 claims. Here the cache of the
prefix is handed on, by `generate`'s own means. Not every family takes that faithfully, so that the first
answers of a model are compared with those of the plain way, and decide.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor
from transformers import BatchFeature, PreTrainedModel

from rlaifv_pl.models.chat import Chat

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.02}
"""By how much a probability may differ from the plain way's, by type of the weights."""


class Asked(NamedTuple):
    """Rendered texts about the same images that begin alike."""

    images: Sequence[Image.Image]
    texts: Sequence[str]


class Forked(NamedTuple):
    """A text that is read once, and the tokens of what follows in each of several rows."""

    prefix: str
    suffixes: list[list[int]]


def fork(chat: Chat, asked: Asked) -> Forked | None:
    """Where texts part: behind their images, and before the last token of the shortest.

    None where they part before their images, or where the texts do not tell.
    """
    out = chat.tokenizer(list(asked.texts), add_special_tokens=False, return_offsets_mapping=True)
    rows, text = out["input_ids"], asked.texts[0]
    common = 0
    while common < min(map(len, rows)) - 1 and len({row[common] for row in rows}) == 1:
        common += 1
    if common == 0:
        return None
    prefix = text[: out["offset_mapping"][0][common - 1][1]]
    if any(mark in text[len(prefix) :] for mark in chat.markers) or not _begin(asked.texts, prefix):
        return None
    return Forked(prefix, [row[common:] for row in rows])


def _begin(texts: Sequence[str], prefix: str) -> bool:
    return all(text.startswith(prefix) for text in texts)


def without_last(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """Inputs of a batch of prompts up to their last tokens, and those."""
    shape = inputs["input_ids"].shape
    head = {name: value[:, :-1] if value.shape == shape else value for name, value in inputs.items()}
    return head, inputs["input_ids"][:, -1:]


def hand_on(
    model: PreTrainedModel, prefixes: Mapping[str, Any], rows: Tensor, suffixes: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Read prefixes, and say what `generate` takes to go on from them.

    Args:
        prefixes: inputs of P prompts, padded left.
        rows: (R,) which prefix each row continues.
        suffixes: tokens that each row goes on with, one at least.
    """
    shape = prefixes["input_ids"].shape
    read = model.generate(**prefixes, max_new_tokens=1, do_sample=False, return_dict_in_generate=True)
    cache = read.past_key_values
    cache.batch_select_indices(rows)
    # The Qwen families keep how far an image has moved each row's positions.
    if (moved := getattr(model.model, "rope_deltas", None)) is not None:
        model.model.rope_deltas = moved.index_select(0, rows)
    width = max(map(len, suffixes))
    ids = torch.tensor([[0] * (width - len(suffix)) + list(suffix) for suffix in suffixes])
    is_there = torch.tensor([[0] * (width - len(suffix)) + [1] * len(suffix) for suffix in suffixes])
    tails = {"input_ids": ids, "attention_mask": is_there}
    inputs = {
        name: torch.cat([value[rows], tails.get(name, torch.zeros_like(ids)).to(value)], dim=1)
        for name, value in prefixes.items()
        if value.shape == shape
    }
    return {**inputs, "past_key_values": cache}


def next_logits(model: PreTrainedModel, inputs: Mapping[str, Any]) -> Tensor:
    """(R, V) logits of the first token that each row would be continued with."""
    out = model.generate(
        **inputs, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    return out.logits[0].float()


class Faith:
    """Whether a model continues a shared prefix as it continues the whole text, by kind of use.

    Args:
        known: what is known, or decided, beforehand.
    """

    def __init__(self, **known: bool) -> None:
        self._known = known

    def __contains__(self, kind: str) -> bool:
        return kind in self._known

    def holds(self, kind: str) -> bool:
        """What a comparison showed; true before any."""
        return self._known.get(kind, True)

    def compare(self, kind: str, shared: Tensor, plain: Tensor, dtype: torch.dtype) -> None:
        """Note whether (R, V) logits of both ways give the same probabilities, and say so if not."""
        off = (shared.softmax(-1) - plain.float().softmax(-1)).abs().max().item()
        self._known[kind] = off <= TOLERANCE[dtype]
        if not self._known[kind]:
            Console(stderr=True).print(
                f"This model cannot share what it has read of an image ({kind}: a probability would be off by "
                f"{off:.2g}), so that it reads the image again for each answer."
            )


def plain_inputs(chat: Chat, asked: Sequence[Asked]) -> BatchFeature:
    """Every text with its images, as if none had anything in common."""
    texts = [text for one in asked for text in one.texts]
    return chat.prompt_tensors(texts, [one.images for one in asked for _ in one.texts])
