"""Checks of message texts before a chat template writes its own markup around them."""

import re
from collections.abc import Collection, Iterator, Sequence

from rlaifv_pl.models.special_tokens import END_TOKENS, plain, without_end
from rlaifv_pl.records import Message


class ChatError(ValueError):
    """A dialogue that the chat template or the processor cannot render faithfully."""


class SpecialTokenError(ChatError):
    """A text that contains a special token of the model."""


class RenderedPromptError(ChatError):
    """A text that the chat template has rendered already."""


class TextCheck:
    """Refuses texts that a model would not read as plain words.

    Args:
        special: special tokens of its tokenizer.
        ends: tokens that end an answer.
        around: text that its template writes before and after a user's words.
    """

    def __init__(self, special: Collection[str], ends: Collection[str], around: tuple[str, str]) -> None:
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))))
        self._ends = (*END_TOKENS, *ends)
        self._before, self._behind = around

    def checked(self, messages: Sequence[Message]) -> list[Message]:
        """Check messages, and strip end tokens from answers: the template writes its own.

        Raises:
            SpecialTokenError: a text contains a special token.
            RenderedPromptError: a text of the user has been rendered by the template already.
        """
        checked = [
            self._without_end(message) if message["role"] == "assistant" else message for message in messages
        ]
        for role, text in _text_blocks(checked):
            if token := self._special.search(text):
                raise SpecialTokenError(
                    f"A text of the {role} holds {token[0]!r}, a special token of this model: {text[:60]!r}."
                )
            if role == "user" and self._is_rendered(text.strip()):
                raise RenderedPromptError(
                    f"A text of the user is rendered already, from {self._before!r} to {self._behind!r}: {text[:60]!r}."
                )
        return checked

    def plain(self, text: str) -> str:
        """Insert a blank into each special token of this model, as `special_tokens.plain` does."""
        return plain(text, self._special)

    def _is_rendered(self, text: str) -> bool:
        is_marked = bool(self._before and self._behind)
        return is_marked and text.startswith(self._before) and text.endswith(self._behind)

    def _without_end(self, message: Message) -> Message:
        *before, last = message["content"]
        if last["type"] != "text":
            return message
        return {**message, "content": [*before, {**last, "text": without_end(last["text"], self._ends)}]}


def _text_blocks(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Yield role and text of each block of text."""
    for message in messages:
        for block in message["content"]:
            if block["type"] == "text":
                yield message["role"], block["text"]


def check_rendered(messages: Sequence[Message], text: str) -> None:
    """Refuse a rendered text that lacks words of the system or the user.

    Templates may leave out the reasoning of earlier answers.

    Raises:
        ChatError: words are missing.
    """
    for role, words in _text_blocks(messages):
        if role != "assistant" and words.strip() not in text:
            raise ChatError(f"The chat template leaves out what the {role} says: {words[:60]!r}.")
