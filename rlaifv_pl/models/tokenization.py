"""Rendered dialogues and their images as token ids and tensors, by a model's own processor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase

from rlaifv_pl.models.text_checks import ChatError


class Processor(Protocol):
    """The part of transformers' processors that is used of all families."""

    tokenizer: Any
    """A fast tokenizer."""
    image_processor: Any
    chat_template: str | None
    image_token: str
    image_token_ids: list[int]
    apply_chat_template: Callable[..., str]
    save_pretrained: Callable[..., object]

    def __call__(self, **inputs: Any) -> BatchFeature:
        """Return model inputs for texts and images."""


class ImagesRefused(ChatError):
    """Images that the processor raises at, for instance because they are too small or too long for it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of rendered text; `part` is set where its tokens are targets."""

    text: str
    part: int | None = None


@dataclass(slots=True)
class TokenizedRow:
    """One tokenised dialogue.

    `ids` are its token ids with image tokens expanded, `parts` the scored part of each token or None, `extras`
    other per-token outputs of the processor (such as `mm_token_type_ids`).
    """

    ids: list[int]
    parts: list[int | None]
    extras: dict[str, list[int]]

    def append_pieces(self, pieces: Sequence[Piece], ids: Sequence[list[int]]) -> None:
        """Append tokenised pieces; each token counts to the scored part of its piece."""
        for piece, own in zip(pieces, ids, strict=True):
            self.ids += own
            self.parts += [piece.part] * len(own)


def run_processor(
    processor: Processor,
    texts: Sequence[str],
    images: Sequence[Sequence[Image.Image]],
    *,
    add_special_tokens: bool,
) -> BatchFeature:
    """Return all model inputs for these texts with their images, padded left as generation needs it.

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


def tokenize_consecutive(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each of several consecutive texts, cut from one tokenisation of them all.

    Tokenising an answer on its own would give other tokens than generation does, for instance
    a second word-start mark in SentencePiece vocabularies.
    """
    out = tokenizer("".join(texts), add_special_tokens=False, return_offsets_mapping=True)
    ends = list(accumulate(map(len, texts)))
    ids: list[list[int]] = [[] for _ in texts]
    at = 0
    for token, (start, stop) in zip(out["input_ids"], out["offset_mapping"], strict=True):
        while start >= ends[at]:
            at += 1
        if stop > ends[at]:
            # A token spans the end of a text. Generation starts a new one there, so do we.
            return tokenize_consecutive(tokenizer, texts[: at + 1]) + tokenize_consecutive(
                tokenizer, texts[at + 1 :]
            )
        ids[at].append(token)
    return ids


def expand_images(
    processor: Processor, pieces: Sequence[Piece], images: Sequence[Image.Image]
) -> list[Piece]:
    """Replace the marker of each image in the pieces by all tokens that the processor writes for it."""
    out = processor(
        text=["".join(piece.text for piece in pieces)],
        images=[list(images)],
        return_text_replacement_offsets=True,
    )
    text = "".join(piece.text for piece in pieces)
    (replacements,) = out["text_replacement_offsets"]
    expanded, start = [], 0
    for piece in pieces:
        end, written, at = start + len(piece.text), "", start
        for image in replacements:
            first, past = image["span"]
            if start <= first < end:
                written += text[at:first] + image["replacement"]
                at = past
        expanded.append(Piece(written + text[at:end], piece.part))
        start = end
    return expanded
