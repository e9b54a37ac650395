"""Turns as the source formats write them, turned into prompts and completions as `Sample` has them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.fields import shorten

IMAGE_TAG = "<image>"
"""Where an image stands, in the text of LLaVA and its descendants."""

_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant"}
"""Other names of the roles; our own stand for themselves."""

Block = dict[str, str]
Turn = dict[str, Any]


def read_turn(message: Any, where: str) -> Turn:
    """Read one message, `{role, content}` or `{from, value}`, with blocks or tags where images stand.

    Raises:
        BadSample: `wrong_type`.
    """
    if not isinstance(message, Mapping):
        raise BadSample(Reason.WRONG_TYPE, where, f"expected a message, got {shorten(message)}")
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
    if not isinstance(role, str):
        raise BadSample(Reason.WRONG_TYPE, where, f"expected a message with a role, got {shorten(message)}")
    return {"role": _ROLES.get(role, role), "content": _read_content(content, where)}


def simplify(turns: Sequence[Turn]) -> str | list[Turn]:
    """Write a prompt in its shortest form: as text where that says the same.

    It does for a single turn of the user whose images, if any, all stand before the text, since that
    is where images go by default. It forgets the number of images: check that first.

    >>> simplify([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}])
    'What?'
    """
    if [turn["role"] for turn in turns] != ["user"]:
        return list(turns)
    content = turns[0]["content"]
    if isinstance(content, str):
        return content
    types = [block["type"] for block in content]
    return content[-1]["text"] if types == ["image"] * (len(types) - 1) + ["text"] else list(turns)


def text_of(value: Any, name: str, where: str) -> str:
    """The text of a completion, which may be a string, a message or a list of one message.

    Raises:
        BadSample: `wrong_turns` for several messages or another role than the assistant's;
            `wrong_type`.
    """
    if isinstance(value, str):
        return value
    messages = [value] if isinstance(value, Mapping) else value
    if not isinstance(messages, list):
        detail = f"{name}: expected a text or one assistant message, got {shorten(value)}"
        raise BadSample(Reason.WRONG_TYPE, where, detail)
    turns = [read_turn(message, where) for message in messages]
    if [turn["role"] for turn in turns] != ["assistant"]:
        detail = f"{name}: expected one assistant turn, got turns of {[turn['role'] for turn in turns]}"
        raise BadSample(Reason.WRONG_TURNS, where, detail)
    content = turns[0]["content"]
    if isinstance(content, str):
        return content
    if any(block["type"] == "image" for block in content):
        raise BadSample(Reason.WRONG_TYPE, where, f"{name}: an answer cannot hold an image")
    return "".join(block["text"] for block in content)


def split_tags(text: str) -> str | list[Block]:
    """Turn the image tags of a text into blocks; a text without tags stays as it is.

    >>> split_tags("<image> What is it?")
    [{'type': 'image'}, {'type': 'text', 'text': 'What is it?'}]
    """
    if IMAGE_TAG not in text:
        return text
    first, *rest = text.split(IMAGE_TAG)
    pieces: list[Block] = [*_text_block(first)]
    for piece in rest:
        pieces += [{"type": "image"}, *_text_block(piece)]
    return pieces


def _text_block(text: str) -> Iterable[Block]:
    # The line break beside a tag belongs to the tag: each model's template sets its own.
    return [{"type": "text", "text": text.strip()}] if text.strip() else []


def _read_content(content: Any, where: str) -> str | list[Block]:
    if isinstance(content, str):
        return split_tags(content)
    if not isinstance(content, list):
        raise BadSample(
            Reason.WRONG_TYPE, where, f"expected text or blocks as content, got {shorten(content)}"
        )
    return [_read_block(block, where) for block in content]


def _read_block(block: Any, where: str) -> Block:
    """One block; Arrow gives each all the keys of its siblings, with None in those it lacks."""
    kind = block.get("type") if isinstance(block, Mapping) else None
    if kind == "image":
        return {"type": "image"}
    if kind == "text" and isinstance(block.get("text"), str):
        return {"type": "text", "text": block["text"]}
    raise BadSample(Reason.WRONG_TYPE, where, f"expected a block of text or image, got {shorten(block)}")
