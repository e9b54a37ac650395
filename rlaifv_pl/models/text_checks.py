"""The texts of messages, checked before a chat template writes its own markup around them."""

import re
from collections.abc import Collection, Iterator, Sequence

from rlaifv_pl.models.special_tokens import END_TOKENS, plain, without_end
from rlaifv_pl.records import Message


class ChatError(ValueError):
    """A dialogue that the chat template or the processor cannot render faithfully."""


class SpecialTokenError(ChatError):
    """A text that holds a special token of the model."""


class RenderedPromptError(ChatError):
    """A text that the chat template has rendered already."""


class TextCheck:
    """What texts must not hold if a model is to read them as words.

    Args:
        special: special tokens of its tokenizer.
        ends: those that end an answer.
        around: what its template writes in front of a user's words, and behind them.
    """

    def __init__(self, special: Collection[str], ends: Collection[str], around: tuple[str, str]) -> None:
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))))
        self._ends = (*END_TOKENS, *ends)
        self._before, self._behind = around

    def checked(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, in which an answer ends where its words end: the end token is the template's.

        Raises:
            SpecialTokenError: a text holds a special token.
            RenderedPromptError: a text of the user has around it what the template writes there.
        """
        checked = [self._ended(one) if one["role"] == "assistant" else one for one in messages]
        for role, text in spoken(checked):
            if found := self._special.search(text):
                raise SpecialTokenError(
                    f"A text of the {role} holds {found[0]!r}, a special token of this model: {text[:60]!r}."
                )
            if role == "user" and self._is_rendered(text.strip()):
                raise RenderedPromptError(
                    f"A text of the user is rendered already, from {self._before!r} to {self._behind!r}: {text[:60]!r}."
                )
        return checked

    def plain(self, text: str) -> str:
        """The text as `markup.plain` writes it, with the special tokens of this model."""
        return plain(text, self._special)

    def _is_rendered(self, text: str) -> bool:
        is_marked = bool(self._before and self._behind)
        return is_marked and text.startswith(self._before) and text.endswith(self._behind)

    def _ended(self, message: Message) -> Message:
        *before, last = message["content"]
        if last["type"] != "text":
            return message
        return {**message, "content": [*before, {**last, "text": without_end(last["text"], self._ends)}]}


def spoken(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Role and text of each block of text."""
    for message in messages:
        for block in message["content"]:
            if block["type"] == "text":
                yield message["role"], block["text"]


def check_rendered(messages: Sequence[Message], text: str) -> None:
    """Refuse a rendered text in which something is missing that system or user say.

    Of an earlier answer a template may rightly leave out what a model thought before it.

    Raises:
        ChatError: naming what is missing.
    """
    for role, said in spoken(messages):
        if role != "assistant" and said.strip() not in text:
            raise ChatError(f"The chat template leaves out what the {role} says: {said[:60]!r}.")
