"""Turns as the source formats write them, turned into prompts and completions as `Sample` has them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.fields import shorten

IMAGE_TAG = "<image>"
"""Where an image stands, in the text of LLaVA and its descendants."""

_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant"}
"""Other names of the roles; our own stand for themselves."""

_TEXT_TYPES = ("text", "input_text", "output_text")
_MOVING_TYPES = ("video", "video_url", "audio", "input_audio")
_IMAGE_TYPES = ("image", "image_url", "input_image")
_IMAGE_KEYS = ("image", "image_url", "url", "path", "base64", "source", "value")
"""Where a block holds its image, if it holds it."""

Block = dict[str, str]
Turn = dict[str, Any]


def messages_of(value: Any, name: str, where: str) -> list[Any]:
    """The messages of a cell, which may be a text of the user.

    Raises:
        BadSample: `wrong_type`.
    """
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        detail = f"{name}: expected a text or messages, got {type(value).__name__}"
        raise BadSample(Reason.WRONG_TYPE, where, detail)
    return value


def read_turn(message: Any, where: str) -> Turn:
    """Read one message, `{role, content}` or `{from, value}`, with blocks or tags where images stand.

    Raises:
        BadSample: `wrong_type`.
    """
    if not isinstance(message, Mapping):
        raise BadSample(Reason.WRONG_TYPE, where, f"expected a message, got {shorten(message)}")
    role = _first(message, "role", "from")
    content = _first(message, "content", "value")
    if not isinstance(role, str):
        raise BadSample(Reason.WRONG_TYPE, where, f"expected a message with a role, got {shorten(message)}")
    return {"role": _ROLES.get(role, role), "content": _read_content(content, where)}


def pictures_in(messages: Iterable[Any]) -> list[Any]:
    """What the blocks of messages hold of images themselves, in their order, as `PictureLoader` takes it.

    >>> pictures_in([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "1.jpg"}}]}])
    ['1.jpg']
    """
    return [picture for block in _blocks(messages) if (picture := _picture(block)) is not None]


def split_pair(chosen: list[Any], rejected: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Take as prompt what two dialogues have in common from the start; then what each says by itself.

    >>> split_pair(["a", "b", "c"], ["a", "b", "d"])
    (['a', 'b'], ['c'], ['d'])
    """
    # The last turn of a side is its answer, even where both say the same.
    length = _shared_length(chosen[:-1], rejected[:-1])
    return chosen[:length], chosen[length:], rejected[length:]


def split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """The same of two texts, in whole words.

    It cannot know where equal first words of the answers begin: an explicit prompt column is better.

    >>> split_texts("How many? Two.", "How many? Six.")
    ('How many?', 'Two.', 'Six.')
    """
    shared = chosen[: _shared_length(chosen, rejected)]
    length = len(shared) - len(re.search(r"\S*$", shared)[0])
    return chosen[:length].strip(), chosen[length:], rejected[length:]


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
    if kind in _IMAGE_TYPES:
        return {"type": "image"}
    if kind in _TEXT_TYPES and isinstance(text := _first(block, "text", "value"), str):
        return {"type": "text", "text": text}
    if kind in _MOVING_TYPES:
        raise BadSample(
            Reason.VIDEO_OR_AUDIO, where, f"a block of {kind}: samples hold images and texts only"
        )
    raise BadSample(Reason.WRONG_TYPE, where, f"expected a block of text or image, got {shorten(block)}")


def _blocks(messages: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    for message in messages:
        content = _first(message, "content", "value") if isinstance(message, Mapping) else None
        if isinstance(content, list):
            yield from (block for block in content if isinstance(block, Mapping))


def _picture(block: Mapping[str, Any]) -> Any:
    if block.get("type") not in _IMAGE_TYPES:
        return None
    value = _first(block, *_IMAGE_KEYS)
    inner = _first(value, "url", "data") if isinstance(value, Mapping) else None
    return value if inner is None else inner


def _first(mapping: Mapping[str, Any], *names: str) -> Any:
    return next((value for name in names if (value := mapping.get(name)) is not None), None)


def _shared_length(left: Sequence[Any], right: Sequence[Any]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
