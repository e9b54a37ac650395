"""Turns as the source formats write them, turned into prompts and completions as `Sample` has them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.sample_json import shorten

IMAGE_TAG = "<image>"
"""Where an image stands, in the text of LLaVA and its descendants."""
_MARKER = re.compile(rf"<img>(?P<path>.+?)</img>|{IMAGE_TAG}")
"""The same, or the image itself, as Qwen-VL and ms-swift write it."""

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


def markers_in(messages: Iterable[Any]) -> list[Any]:
    """What each image marker of messages holds of its image, in their order, as `PictureLoader` takes it.

    Markers are blocks and tags; one that only tells where an image stands holds None.

    >>> markers_in([{"role": "user", "content": "<image> or <img>1.jpg</img>?"}])
    [None, '1.jpg']
    >>> markers_in([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "1.jpg"}}]}])
    ['1.jpg']
    """
    return [marker for content in map(_content, messages) for marker in _markers(content)]


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

    Blanks and line ends within the text stay. LLaVA's own separators go, as its authors take them away: what stands
    behind the tags that open a text, and a line end before those that close it. Each template sets its own there.

    >>> split_tags("<image>\\nIs it <image> here?")
    [{'type': 'image'}, {'type': 'text', 'text': 'Is it '}, {'type': 'image'}, {'type': 'text', 'text': ' here?'}]
    """
    if not _MARKER.search(text):
        return text
    first, *rest = _without_separators(_MARKER.sub(IMAGE_TAG, text).split(IMAGE_TAG))
    pieces: list[Block] = [*_text_block(first)]
    for piece in rest:
        pieces += [{"type": "image"}, *_text_block(piece)]
    return pieces


def _without_separators(texts: list[str]) -> list[str]:
    """What stands between tags, without the separators at both ends."""
    said = [number for number, text in enumerate(texts) if text.strip()]
    if not said:
        return [""] * len(texts)
    first, last = said[0], said[-1]
    kept = ["" if number < first or number > last else text for number, text in enumerate(texts)]
    if first > 0:
        kept[first] = kept[first].lstrip()
    if last < len(texts) - 1 and "\n" in kept[last][len(kept[last].rstrip()) :]:
        kept[last] = kept[last].rstrip()
    return kept


def _text_block(text: str) -> Iterable[Block]:
    return [{"type": "text", "text": text}] if text else []


def _read_content(content: Any, where: str) -> str | list[Block]:
    if isinstance(content, str):
        return split_tags(content)
    if not isinstance(content, list):
        raise BadSample(
            Reason.WRONG_TYPE, where, f"expected text or blocks as content, got {shorten(content)}"
        )
    return [piece for block in content for piece in _pieces(_read_block(block, where))]


def _pieces(block: Block) -> list[Block]:
    """A block, or those of a text that holds images itself."""
    found = split_tags(block["text"]) if _holds_paths(block) else block
    return found if isinstance(found, list) else [block]


def _holds_paths(block: Mapping[str, Any]) -> bool:
    text = _first(block, "text", "value") if block.get("type") in _TEXT_TYPES else None
    return isinstance(text, str) and any(marker["path"] for marker in _MARKER.finditer(text))


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


def _content(message: Any) -> Any:
    return _first(message, "content", "value") if isinstance(message, Mapping) else None


def _markers(content: Any) -> Iterator[Any]:
    if isinstance(content, str):
        yield from (marker["path"] for marker in _MARKER.finditer(content))
    for block in content if isinstance(content, list) else []:
        if not isinstance(block, Mapping):
            continue
        if block.get("type") in _IMAGE_TYPES:
            yield _picture(block)
        elif _holds_paths(block):
            yield from _markers(_first(block, "text", "value"))


def _picture(block: Mapping[str, Any]) -> Any:
    value = _first(block, *_IMAGE_KEYS)
    inner = _first(value, "url", "data") if isinstance(value, Mapping) else None
    return value if inner is None else inner


def _first(mapping: Mapping[str, Any], *names: str) -> Any:
    return next((value for name in names if (value := mapping.get(name)) is not None), None)


def _shared_length(left: Sequence[Any], right: Sequence[Any]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
