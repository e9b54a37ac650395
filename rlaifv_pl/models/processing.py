"""Texts and their images made into tensors and token ids by a model's own processor."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from PIL import Image
from transformers import BatchFeature

from rlaifv_pl.models.text_checks import ChatError


class ImagesRefused(ChatError):
    """Images that the processor raises at, for instance since they are too small or too long for it."""


def process(
    processor: Any,
    texts: Sequence[str],
    images: Sequence[Sequence[Image.Image]],
    *,
    add_special_tokens: bool,
) -> BatchFeature:
    """Everything the model takes for these texts with their images, padded left as generation needs it.

    Raises:
        ImagesRefused: the processor raises at the images of one of them.
    """
    try:
        return processor(
            text=list(texts),
            images=[list(group) for group in images] if any(images) else None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            add_special_tokens=add_special_tokens,
        )
    except (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError, AssertionError) as error:
        if not any(images):
            raise
        sizes = ", ".join(f"{image.width} x {image.height}" for group in images for image in group)
        raise ImagesRefused(
            f"The model's processor refuses images of {sizes} pixels with {type(error).__name__}: {error}"
        ) from error


def cut(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each of several consecutive texts, cut from one tokenisation of them all.

    Tokenising an answer on its own would give other tokens than generation does, for instance
    a second word-start mark in SentencePiece vocabularies.
    """
    out = tokenizer("".join(texts), add_special_tokens=False, return_offsets_mapping=True)
    ends = list(accumulate(map(len, texts)))
    found: list[list[int]] = [[] for _ in texts]
    at = 0
    for token, (start, stop) in zip(out["input_ids"], out["offset_mapping"], strict=True):
        while start >= ends[at]:
            at += 1
        if stop > ends[at]:
            # A token spans the end of a text. Generation starts a new one there, so do we.
            return cut(tokenizer, texts[: at + 1]) + cut(tokenizer, texts[at + 1 :])
        found[at].append(token)
    return found
