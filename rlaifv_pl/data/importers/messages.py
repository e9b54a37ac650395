"""The messages of source formats as the prompt and completions of a `Sample`."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from rlaifv_pl.data.bad_samples import Reason
from rlaifv_pl.data.importers.sources import bad_row
from rlaifv_pl.data.sample_json import shorten
from rlaifv_pl.records import Message

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


def messages_of(value: object, name: str) -> list[Any]:
    """Return the messages of a cell, which may be a text of the user.

    Raises:
        BadSample: `wrong_type`.
    """
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        detail = f"{name}: expected a text or messages, got {type(value).__name__}"
        raise bad_row(Reason.WRONG_TYPE, detail)
    return value


def read_turn(message: object) -> Turn:
    """Read one message, `{role, content}` or `{from, value}`, with blocks or tags where images stand.

    Raises:
        BadSample: `wrong_type`.
    """
    if not isinstance(message, Mapping):
        raise bad_row(Reason.WRONG_TYPE, f"expected a message, got {shorten(message)}")
    role = _first(message, "role", "from")
    if not isinstance(role, str):
        raise bad_row(Reason.WRONG_TYPE, f"expected a message with a role, got {shorten(message)}")
    return {"role": _ROLES.get(role, role), "content": _read_content(_content(message))}


def markers_in(messages: Iterable[object]) -> list[Any]:
    """Return what each image marker of messages holds of its image, in their order, as `ImageLoader` takes it.

    Markers are blocks and tags; one that only tells where an image stands holds None.

    >>> markers_in([{"role": "user", "content": "<image> or <img>1.jpg</img>?"}])
    [None, '1.jpg']
    >>> markers_in([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "1.jpg"}}]}])
    ['1.jpg']
    """
    return [marker for content in map(_content, messages) for marker in _markers(content)]


def split_pair(chosen: list[Any], rejected: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Split two dialogues into the prompt, which is what they have in common from the start, and each one's rest.

    >>> split_pair(["a", "b", "c"], ["a", "b", "d"])
    (['a', 'b'], ['c'], ['d'])
    """
    # The last turn of a side is its answer, even where both say the same.
    length = _shared_length(chosen[:-1], rejected[:-1])
    return chosen[:length], chosen[length:], rejected[length:]


def split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Split two texts in the same way, in whole words.

    It cannot know where equal first words of the answers begin: an explicit prompt column is better.

    >>> split_texts("How many? Two.", "How many? Six.")
    ('How many?', 'Two.', 'Six.')
    """
    shared = chosen[: _shared_length(chosen, rejected)]
    # A word that the texts share in part belongs to the answers.
    length = len(re.sub(r"\S*$", "", shared))
    return chosen[:length].strip(), chosen[length:], rejected[length:]


def simplify(turns: Sequence[Message]) -> str | list[Message]:
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


def text_of(value: object, name: str) -> str:
    """Return the text of a completion, which may be a string, a message or a list of one message.

    Raises:
        BadSample: `wrong_turns` for several messages or another role than the assistant's; `wrong_type`.
    """
    if isinstance(value, str):
        return value
    messages = [value] if isinstance(value, Mapping) else value
    if not isinstance(messages, list):
        detail = f"{name}: expected a text or one assistant message, got {shorten(value)}"
        raise bad_row(Reason.WRONG_TYPE, detail)
    turns = [read_turn(message) for message in messages]
    roles = [turn["role"] for turn in turns]
    if roles != ["assistant"]:
        raise bad_row(Reason.WRONG_TURNS, f"{name}: expected one assistant turn, got turns of {roles}")
    content = turns[0]["content"]
    if isinstance(content, str):
        return content
    if any(block["type"] == "image" for block in content):
        raise bad_row(Reason.WRONG_TYPE, f"{name}: an answer cannot hold an image")
    return "".join(block["text"] for block in content)


def split_tags(text: str) -> str | list[Block]:
    """Turn the image tags of a text into blocks; return a text without tags as it is.

    Blanks and line ends within the text stay. LLaVA's own separators go, as its authors take them away: what stands
    behind the tags that open a text, and a line end before those that close it. Each template sets its own there.

    >>> split_tags("<image>\\nIs it <image> here?")
    [{'type': 'image'}, {'type': 'text', 'text': 'Is it '}, {'type': 'image'}, {'type': 'text', 'text': ' here?'}]
    """
    texts = _MARKER.sub(IMAGE_TAG, text).split(IMAGE_TAG)
    if len(texts) == 1:
        return text
    first, *rest = _without_separators(texts)
    blocks = _text_blocks(first)
    for piece in rest:
        blocks += [{"type": "image"}, *_text_blocks(piece)]
    return blocks


def _without_separators(texts: list[str]) -> list[str]:
    """Return what stands between tags, without the separators at both ends."""
    filled = [number for number, text in enumerate(texts) if text.strip()]
    if not filled:
        return [""] * len(texts)
    first, last = filled[0], filled[-1]
    kept = ["" if number < first or number > last else text for number, text in enumerate(texts)]
    if first > 0:
        kept[first] = kept[first].lstrip()
    if last < len(texts) - 1 and "\n" in kept[last][len(kept[last].rstrip()) :]:
        kept[last] = kept[last].rstrip()
    return kept


def _text_blocks(text: str) -> list[Block]:
    return [{"type": "text", "text": text}] if text else []


def _read_content(content: object) -> str | list[Block]:
    if isinstance(content, str):
        return split_tags(content)
    if not isinstance(content, list):
        detail = f"expected text or blocks as content, got {shorten(content)}"
        raise bad_row(Reason.WRONG_TYPE, detail)
    return [block for value in content for block in _read_block(value)]


def _read_block(block: object) -> list[Block]:
    """Read one block, which becomes several if its text names images itself.

    Arrow gives each block all the keys of its siblings, with None in those it lacks.
    """
    kind = block.get("type") if isinstance(block, Mapping) else None
    if kind in _IMAGE_TYPES:
        return [{"type": "image"}]
    if (text := _block_text(block)) is not None:
        pieces = split_tags(text) if _names_images(text) else text
        return pieces if isinstance(pieces, list) else [{"type": "text", "text": text}]
    if kind in _MOVING_TYPES:
        detail = f"a block of {kind}: samples hold images and texts only"
        raise bad_row(Reason.VIDEO_OR_AUDIO, detail)
    raise bad_row(Reason.WRONG_TYPE, f"expected a block of text or image, got {shorten(block)}")


def _block_text(block: object) -> str | None:
    """Return the text of a block; None for another one."""
    if not isinstance(block, Mapping) or block.get("type") not in _TEXT_TYPES:
        return None
    text = _first(block, "text", "value")
    return text if isinstance(text, str) else None


def _names_images(text: str) -> bool:
    return any(marker["path"] for marker in _MARKER.finditer(text))


def _content(message: object) -> object:
    return _first(message, "content", "value") if isinstance(message, Mapping) else None


def _markers(content: object) -> Iterator[object]:
    if isinstance(content, str):
        yield from (marker["path"] for marker in _MARKER.finditer(content))
    for block in content if isinstance(content, list) else []:
        if isinstance(block, Mapping) and block.get("type") in _IMAGE_TYPES:
            value = _first(block, *_IMAGE_KEYS)
            inner = _first(value, "url", "data") if isinstance(value, Mapping) else None
            yield value if inner is None else inner
        elif (text := _block_text(block)) is not None and _names_images(text):
            yield from _markers(text)


def _first(mapping: Mapping[str, Any], *names: str) -> Any:
    return next((value for name in names if (value := mapping.get(name)) is not None), None)


def _shared_length(left: Sequence[object], right: Sequence[object]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
