"""Messages to token ids: where each answer begins and ends, and which tokens a loss may see.

Everything goes through the model's own chat template and processor. Answers always end with the
token that stops generation, whether or not the template writes it (LLaVA-1.5's does not).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError
from PIL import Image
from torch import Tensor
from transformers import BatchFeature

from rlaifv_pl.models.text_checks import ChatError, TextCheck, check_rendered
from rlaifv_pl.models.tokenization import (
    Piece,
    Processor,
    TokenizedRow,
    expand_images,
    run_processor,
    tokenize_consecutive,
)
from rlaifv_pl.records import Message, Sample

_SENTINEL = "qzanswerzq"


Block = dict[str, str]
BlockMessage = dict[str, Any]
"""A `Message` whose content is a list of blocks."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Messages of which some assistant turns are scored.

    `parts` has the scored part of each assistant turn, or None for mere context. With `rejected_images` it is about
    those, if the sample has any. `truncated` are indices into `parts` of answers that a token limit cut off, whose
    end is no target.
    """

    messages: Sequence[Message]
    parts: tuple[int | None, ...]
    rejected_images: bool = False
    truncated: tuple[int, ...] = ()


def prompt_messages(sample: Sample) -> list[BlockMessage]:
    """Return the prompt as messages of blocks; images without a place of their own open the first user turn."""
    asked: list[Message] = [{"role": "user", "content": sample.prompt}]
    turns = asked if isinstance(sample.prompt, str) else sample.prompt
    messages: list[BlockMessage] = [
        {"role": turn["role"], "content": _blocks(turn["content"])} for turn in turns
    ]
    placed = sum(block["type"] == "image" for message in messages for block in message["content"])
    if placed == 0 and sample.images:
        first = next(message for message in messages if message["role"] == "user")
        first["content"] = [{"type": "image"}] * len(sample.images) + first["content"]
    return messages


def prompt_question(sample: Sample) -> str:
    """Return the text of the last turn, without its images."""
    last = prompt_messages(sample)[-1]["content"]
    return " ".join(block["text"] for block in last if block["type"] == "text")


def text_message(role: str, text: str) -> BlockMessage:
    """Return one message of plain text."""
    return {"role": role, "content": _blocks(text)}


def message_with_images(text: str, count: int) -> BlockMessage:
    """Return a user's turn that shows `count` images, followed by a text."""
    return {"role": "user", "content": [{"type": "image"}] * count + _blocks(text)}


def _blocks(content: str | Sequence[Block]) -> list[Block]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


class Chat:
    """Renders and tokenises dialogues with a model's own chat template and processor.

    Args:
        processor: of the model that will read them; its tokenizer must be a fast one.
    """

    def __init__(self, processor: Processor) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        if getattr(processor, "chat_template", None) is None:
            raise ChatError(
                "The processor has no chat template, so there is no telling how its model expects a dialogue. "
                "Give one with policy.chat_template (a path to a Jinja file)."
            )
        if not self.tokenizer.is_fast:
            raise ChatError(
                f"{type(self.tokenizer).__name__} is not a fast tokenizer: it gives no character offsets."
            )

    def render(self, messages: Sequence[Message], *, ask: bool) -> str:
        """Render the dialogue as text; with `ask`, up to where the assistant is to speak.

        Raises:
            ChatError: the template refuses it, or leaves words out.
        """
        try:
            how = {"add_generation_prompt": ask, "tokenize": False}
            text = self.processor.apply_chat_template(list(messages), **how)
        except TemplateSyntaxError as error:
            raise ChatError(
                f"The chat template has a syntax error in line {error.lineno}: {error.message}"
            ) from error
        except (TemplateError, TypeError) as error:
            roles = [message["role"] for message in messages]
            raise ChatError(f"The chat template refuses turns of {roles}: {error}") from error
        check_rendered(messages, text)
        return text

    def ask(self, messages: Sequence[Message], images: int) -> str:
        """Render the dialogue, with that many images, up to where the model is to answer.

        Raises:
            ChatError: a text holds markup of the template, or the rendered text has not one place for each image.
        """
        text = self.render(self.texts.checked(messages), ask=True)
        if (places := self._count_markers(text)) != images:
            raise ChatError(f"There are {images} images, and the text has places for {places}.")
        return text

    @cached_property
    def texts(self) -> TextCheck:
        """Check of the texts that this model is to read as words."""
        added = self.tokenizer.added_tokens_decoder.values()
        special = {str(token) for token in added if token.special} | self.markers
        before, _, after = self.render([text_message("user", _SENTINEL)], ask=True).partition(_SENTINEL)
        before = before.removeprefix(self.tokenizer.bos_token or "")
        ends = {self._ending[0].strip() or self.tokenizer.eos_token, self.tokenizer.eos_token}
        return TextCheck(special, ends, (before.strip(), after.strip()))

    @cached_property
    def _ending(self) -> tuple[str, str]:
        """The template's text after an answer: up to the stop token, and from there.

        The first is empty where the template writes no stop token.
        """
        _, answer, after = self.render(
            [text_message("user", "a"), text_message("assistant", _SENTINEL)], ask=False
        ).rpartition(_SENTINEL)
        if not answer:
            raise ChatError("The chat template does not write what the assistant says.")
        for token in sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True):
            if after.lstrip().startswith(token):
                end = after.index(token) + len(token)
                return after[:end], after[end:]
        return "", after

    def pieces(self, dialogue: Dialogue) -> list[Piece]:
        """Cut the dialogue where scored answers begin and end; the first piece is context.

        An answer begins where generation would begin it, so a space that the template writes in front
        of it is the answer's.

        Raises:
            ChatError: the template rewrites earlier turns, so the text before an answer in training
                would not be the text before it in generation; or image markers are not where the
                images are.
        """
        stop, after = self._ending
        missing_stop = "" if stop else self.tokenizer.eos_token
        messages = self.texts.checked(dialogue.messages)
        parts, pieces, rendered, between = enumerate(dialogue.parts), [], "", ""
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            turn, part = next(parts)
            if part is None:
                continue
            context = self.render(messages[:index], ask=True)
            if not context.startswith(rendered):
                raise ChatError("The chat template rewrites earlier turns once later ones follow.")
            pieces.append(Piece(between + context[len(rendered) :]))
            rendered, between = self.render(messages[: index + 1], ask=False), after
            if not (rendered.startswith(context) and rendered.endswith(stop + after)):
                raise ChatError(
                    "The chat template does not continue its own generation prompt with the answer."
                )
            answer = rendered[len(context) : len(rendered) - len(stop + after)]
            if turn in dialogue.truncated:
                pieces.append(Piece(answer, part))
                between = stop + missing_stop + after
            else:
                pieces.append(Piece(answer + stop + missing_stop, part))
        self._check_images(dialogue, pieces)
        return pieces

    @cached_property
    def markers(self) -> set[str]:
        """Image markers: in the template's text, and in the text that the model reads."""
        return {
            self.processor.image_token,
            self.tokenizer.convert_ids_to_tokens(self.processor.image_token_ids[0]),
        }

    def beginning(self, pieces: list[Piece]) -> list[Piece]:
        """Return the pieces up to the last one that shows an image; at least the first."""
        shown = [number for number, piece in enumerate(pieces) if self._count_markers(piece.text)]
        return pieces[: max(shown, default=0) + 1]

    def _count_markers(self, text: str) -> int:
        return sum(map(text.count, self.markers))

    def _check_images(self, dialogue: Dialogue, pieces: list[Piece]) -> None:
        images = sum(
            block["type"] == "image" for message in dialogue.messages for block in message["content"]
        )
        markers = [self._count_markers(piece.text) for piece in pieces]
        if sum(markers[::2]) != images or any(markers[1::2]):
            raise ChatError(
                f"The chat template writes the image marker {sum(markers[::2])} times before answers and "
                f"{sum(markers[1::2])} times within, and there are {images} image blocks."
            )

    def open(
        self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]]
    ) -> tuple[list[TokenizedRow], dict[str, Tensor]]:
        """Tokenise contexts with their images in place; no token of them is a target."""
        out = self.prompt_tensors(texts, images)
        real = out.pop("attention_mask").bool()
        per_token = {name: value for name, value in out.items() if value.shape == out["input_ids"].shape}
        tensors = {name: value for name, value in out.items() if name not in per_token}
        rows = []
        for index, mask in enumerate(real):
            extras = {name: value[index][mask].tolist() for name, value in per_token.items()}
            ids = extras.pop("input_ids")
            rows.append(TokenizedRow(ids, [None] * len(ids), extras))
        return rows, tensors

    def blank_image(self) -> dict[str, Tensor]:
        """Return the processor outputs of a small grey image."""
        grey = Image.new("RGB", (64, 64), (127, 127, 127))
        return self.open([self.render([message_with_images("a", 1)], ask=False)], [[grey]])[1]

    def prompt_tensors(self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> BatchFeature:
        """Return all model inputs for these texts with their images, padded left as generation needs it.

        Raises:
            ImagesRefused: the processor raises at the images of one of them.
        """
        return run_processor(self.processor, texts, images, add_special_tokens=not self.writes_bos(texts[0]))

    def prompt_ids(self, text: str) -> list[int]:
        """Return the token ids of a rendered text, in which each image is still the one token that stands for it."""
        return self.tokenizer(text, add_special_tokens=not self.writes_bos(text))["input_ids"]

    def writes_bos(self, text: str) -> bool:
        """Return whether the template has written the BOS token, so that the tokenizer must not."""
        bos = self.tokenizer.bos_token
        return bos is not None and text.startswith(bos)

    def open_dialogues(
        self, dialogues: Sequence[list[Piece]], images: Sequence[Sequence[Image.Image]]
    ) -> tuple[list[TokenizedRow], dict[str, Tensor]]:
        """Tokenise dialogues up to the last piece that shows an image; return rows and tensors of the images."""
        openings = [self.beginning(pieces) for pieces in dialogues]
        rows, tensors = self.open(["".join(piece.text for piece in pieces) for pieces in openings], images)
        return [
            self._with_targets(row, pieces, own) if len(pieces) > 1 else row
            for row, pieces, own in zip(rows, openings, images, strict=True)
        ], tensors

    def _with_targets(
        self, opened: TokenizedRow, pieces: list[Piece], images: Sequence[Image.Image]
    ) -> TokenizedRow:
        """Cut a row at its pieces, some of which are targets, although images stand behind them."""
        pieces = expand_images(self.processor, pieces, images)
        added = 0 if self.writes_bos(pieces[0].text) else self.tokenizer.num_special_tokens_to_add()
        row = TokenizedRow(opened.ids[:added], [None] * added, {})
        row.append_pieces(pieces, tokenize_consecutive(self.tokenizer, [piece.text for piece in pieces]))
        # Token types of the vision inputs: 0 is text and 1 an image in every family.
        is_image = [int(token in self.processor.image_token_ids) for token in row.ids]
        row.extras = {name: is_image[:] for name in opened.extras}
        return row

    def extend(self, opened: TokenizedRow, pieces: list[Piece]) -> TokenizedRow:
        """Return a new row: the opened beginning of a dialogue, followed by the rest of its pieces."""
        row = TokenizedRow(
            opened.ids[:], opened.parts[:], {name: values[:] for name, values in opened.extras.items()}
        )
        begun = len(self.beginning(pieces))
        ids = tokenize_consecutive(self.tokenizer, [piece.text for piece in pieces])
        row.append_pieces(pieces[begun:], ids[begun:])
        for values in row.extras.values():
            # Token types of the vision inputs: 0 is text in every family.
            values += [0] * (len(row.ids) - len(values))
        return row
