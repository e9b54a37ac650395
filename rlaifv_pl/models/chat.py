"""From messages to token ids: where each answer begins and ends, and which tokens a loss may see.

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

from rlaifv_pl.models.processing import cut, process
from rlaifv_pl.models.text_checks import ChatError, TextCheck, check_rendered
from rlaifv_pl.records import Message, Sample

SENTINEL = "qzanswerzq"


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Messages of which some assistant turns are to be scored.

    `parts` has one entry for each assistant turn, in order: the number of the scored part that the
    turn belongs to, or None where it is only context. With `rejected_images` it is about those, if
    the sample has any. `truncated` are the places in `parts` of answers that a limit of tokens cut off:
    what ends those is no target.
    """

    messages: Sequence[Message]
    parts: tuple[int | None, ...]
    rejected_images: bool = False
    truncated: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of rendered text; `part` is set where its tokens are targets."""

    text: str
    part: int | None = None


@dataclass(slots=True)
class TokenizedRow:
    """One tokenised dialogue.

    `ids` are its token ids with image tokens expanded, `parts` the scored part of each token or
    None, `extras` whatever else the processor gives for each token (such as `mm_token_type_ids`).
    """

    ids: list[int]
    parts: list[int | None]
    extras: dict[str, list[int]]


def prompt_messages(sample: Sample) -> list[dict[str, Any]]:
    """The prompt as messages of blocks; images without a place of their own open the first user turn."""
    asked: list[Message] = [{"role": "user", "content": sample.prompt}]
    turns = asked if isinstance(sample.prompt, str) else sample.prompt
    messages: list[dict[str, Any]] = [
        {"role": turn["role"], "content": _blocks(turn["content"])} for turn in turns
    ]
    placed = sum(block["type"] == "image" for message in messages for block in message["content"])
    if placed == 0 and sample.images:
        first = next(message for message in messages if message["role"] == "user")
        first["content"] = [{"type": "image"}] * len(sample.images) + first["content"]
    return messages


def prompt_question(sample: Sample) -> str:
    """What the user last said, as text alone."""
    *_, last = prompt_messages(sample)
    return " ".join(block["text"] for block in last["content"] if block["type"] == "text")


def text_message(role: str, text: str) -> dict[str, Any]:
    """One message of plain text."""
    return {"role": role, "content": _blocks(text)}


def message_with_images(text: str, count: int) -> dict[str, Any]:
    """A user's turn that shows `count` images and says something about them."""
    return {"role": "user", "content": [{"type": "image"}] * count + _blocks(text)}


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


class Chat:
    """A processor's way of writing dialogues.

    Args:
        processor: of the model that will read them; its tokenizer must be a fast one.
    """

    def __init__(self, processor: Any) -> None:
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
        """The dialogue as text; with `ask`, up to where the assistant is to speak.

        Raises:
            ChatError: the template refuses it, or leaves words out.
        """
        try:
            text = self.processor.apply_chat_template(
                list(messages), add_generation_prompt=ask, tokenize=False
            )
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
        """The dialogue, with that many images, as text up to where the model is to answer.

        Raises:
            ChatError: as `TextCheck.checked` and `render`; or the text has not one place for each image.
        """
        text = self.render(self.texts.checked(messages), ask=True)
        if (found := self._count_markers(text)) != images:
            raise ChatError(f"There are {images} images, and the text has places for {found}.")
        return text

    @cached_property
    def texts(self) -> TextCheck:
        """What texts must not hold if this model is to read them as words."""
        added = self.tokenizer.added_tokens_decoder.values()
        special = {str(token) for token in added if token.special} | self.markers
        before, _, behind = self.render([text_message("user", SENTINEL)], ask=True).partition(SENTINEL)
        before = before.removeprefix(self.tokenizer.bos_token or "")
        ends = {self._ending[0].strip() or self.tokenizer.eos_token, self.tokenizer.eos_token}
        return TextCheck(special, ends, (before.strip(), behind.strip()))

    @cached_property
    def _ending(self) -> tuple[str, str]:
        """What the template writes behind an answer: up to the stop token, and from there.

        The first is empty where it writes no stop token.
        """
        _, answer, behind = self.render(
            [text_message("user", "a"), text_message("assistant", SENTINEL)], ask=False
        ).rpartition(SENTINEL)
        if not answer:
            raise ChatError("The chat template does not write what the assistant says.")
        for token in sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True):
            if behind.lstrip().startswith(token):
                end = behind.index(token) + len(token)
                return behind[:end], behind[end:]
        return "", behind

    def pieces(self, dialogue: Dialogue) -> list[Piece]:
        """The dialogue cut where scored answers begin and end; the first piece is context.

        An answer begins where generation would begin it, so a space that the template writes in front
        of it is the answer's.

        Raises:
            ChatError: the template rewrites earlier turns, so the text before an answer in training
                would not be the text before it in generation; or image markers are not where the
                images are.
        """
        stop, after = self._ending
        missing = "" if stop else self.tokenizer.eos_token
        messages = self.texts.checked(dialogue.messages)
        parts, pieces, done, between = enumerate(dialogue.parts), [], "", ""
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            place, part = next(parts)
            if part is None:
                continue
            context = self.render(messages[:index], ask=True)
            if not context.startswith(done):
                raise ChatError("The chat template rewrites earlier turns once later ones follow.")
            pieces.append(Piece(between + context[len(done) :]))
            done, between = self.render(messages[: index + 1], ask=False), after
            if not (done.startswith(context) and done.endswith(stop + after)):
                raise ChatError(
                    "The chat template does not continue its own generation prompt with the answer."
                )
            answer = done[len(context) : len(done) - len(stop + after)]
            if place in dialogue.truncated:
                pieces.append(Piece(answer, part))
                between = stop + missing + after
            else:
                pieces.append(Piece(answer + stop + missing, part))
        self._check_images(dialogue, pieces)
        return pieces

    @cached_property
    def markers(self) -> set[str]:
        """What stands for an image in the template's text, and in the text that the model reads."""
        return {
            self.processor.image_token,
            self.tokenizer.convert_ids_to_tokens(self.processor.image_token_ids[0]),
        }

    def beginning(self, pieces: list[Piece]) -> list[Piece]:
        """The pieces up to the last one that shows an image; at least the first."""
        shown = [number for number, piece in enumerate(pieces) if self._count_markers(piece.text)]
        return pieces[: max(shown, default=0) + 1]

    def _count_markers(self, text: str) -> int:
        return sum(map(text.count, self.markers))

    def _check_images(self, dialogue: Dialogue, pieces: list[Piece]) -> None:
        placed = sum(
            block["type"] == "image" for message in dialogue.messages for block in message["content"]
        )
        found = [self._count_markers(piece.text) for piece in pieces]
        if sum(found[::2]) != placed or any(found[1::2]):
            raise ChatError(
                f"The chat template writes the image marker {sum(found[::2])} times before answers and "
                f"{sum(found[1::2])} times within, and there are {placed} image blocks."
            )

    def open(
        self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]]
    ) -> tuple[list[TokenizedRow], dict[str, Tensor]]:
        """Tokenise contexts with their images in place; no token of them is a target."""
        out = self.prompt_tensors(texts, images)
        kept = out.pop("attention_mask").bool()
        shape = out["input_ids"].shape
        per_token = {name: value for name, value in out.items() if value.shape == shape}
        ids = per_token.pop("input_ids")
        rows = []
        for index, mask in enumerate(kept):
            extras = {name: value[index][mask].tolist() for name, value in per_token.items()}
            row = ids[index][mask].tolist()
            rows.append(TokenizedRow(row, [None] * len(row), extras))
        return rows, {
            name: value for name, value in out.items() if name not in per_token and name != "input_ids"
        }

    def blank_image(self) -> dict[str, Tensor]:
        """Processor outputs of a small grey image."""
        grey = Image.new("RGB", (64, 64), (127, 127, 127))
        return self.open([self.render([message_with_images("a", 1)], ask=False)], [[grey]])[1]

    def prompt_tensors(self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> BatchFeature:
        """Everything the model takes for these texts with their images, padded left as generation needs it.

        Raises:
            ImagesRefused: the processor raises at the images of one of them.
        """
        return process(self.processor, texts, images, add_special_tokens=not self.writes_bos(texts[0]))

    def prompt_ids(self, text: str) -> list[int]:
        """Token ids of a rendered text, in which each image is still the one token that stands for it."""
        return self.tokenizer(text, add_special_tokens=not self.writes_bos(text))["input_ids"]

    def writes_bos(self, text: str) -> bool:
        """Whether the template has written the token that opens a text, so that the tokenizer must not."""
        bos = self.tokenizer.bos_token
        return bos is not None and text.startswith(bos)

    def extend(self, opened: TokenizedRow, pieces: list[Piece]) -> TokenizedRow:
        """A new row: the opened beginning of a dialogue, followed by the rest of its pieces."""
        row = TokenizedRow(
            opened.ids[:], opened.parts[:], {name: values[:] for name, values in opened.extras.items()}
        )
        begun = len(self.beginning(pieces))
        cuts = cut(self.tokenizer, [piece.text for piece in pieces])
        for piece, ids in zip(pieces[begun:], cuts[begun:], strict=True):
            row.ids += ids
            row.parts += [piece.part] * len(ids)
        for values in row.extras.values():
            # Token types of the vision inputs: 0 is text in every family.
            values += [0] * (len(row.ids) - len(values))
        return row
