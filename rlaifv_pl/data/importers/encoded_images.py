"""Images within a text: data URIs and base64, with whatever prefix, alphabet and line breaks."""

import base64
import binascii
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from rlaifv_pl.data.bad_samples import Reason
from rlaifv_pl.data.file_kinds import file_kind
from rlaifv_pl.data.importers.sources import bad_row
from rlaifv_pl.data.sample_json import shorten

_STARTS = ("/9j/", "_9j_", "iVBORw0KGgo", "UklGR", "R0lGOD")
"""First characters of JPEG, PNG, WebP and GIF files in base64. They could begin a path too, but never do."""
_PREFIX = re.compile(r"(?:data:)?[\w.+/-]{0,60}(?:;[\w=.-]{1,60}){0,4};?base64,", re.IGNORECASE)
_ALPHABET = re.compile(r"[A-Za-z0-9+/_=\s-]+")
_MIN_CHARACTERS = 64
"""Length of base64 without a known start; a path so long has a dot or names a file that is there."""
_NOTHING = ("", "none", "null", "nan", "<na>", "n/a")
"""Words that programs write for no value, in lower case."""


def is_nothing(value: object) -> bool:
    """Whether a cell holds no image.

    >>> is_nothing(" None "), is_nothing(float("nan")), is_nothing([None]), is_nothing("1.jpg")
    (True, True, True, False)
    """
    return all(map(_is_no_value, leaves(value)))


def leaves(value: object) -> Iterator[object]:
    """Yield everything in lists in lists, however deep, from behind; another cell is its own leaf."""
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, list | tuple):
            stack += top
        else:
            yield top


def is_encoded(text: str) -> bool:
    """Whether a text is an encoded image itself: a data URI or base64.

    >>> is_encoded("/9j/4AAQ"), is_encoded("photos/1.jpg")
    (True, False)
    """
    head = text[:400].strip()
    if head.startswith(("data:", *_STARTS)) or _PREFIX.match(head):
        return True
    if len(text) < _MIN_CHARACTERS or not _ALPHABET.fullmatch(text):
        return False
    try:
        return (file_kind(_decode_base64(head[:384])) or "").endswith("image")
    except ValueError:
        return False


def decode_text(text: str) -> bytes:
    """Decode a data URI or base64, standard or URL-safe, with or without padding.

    Raises:
        BadSample: `undecodable_image`.
    """
    text = text.strip()
    prefix = _PREFIX.match(text)
    try:
        if prefix is None and text.startswith("data:"):
            return unquote_to_bytes(text.partition(",")[2])
        return _decode_base64(text[prefix.end() :] if prefix else text)
    except ValueError as error:
        detail = f"cannot decode {shorten(text)} as base64: {error}"
        raise bad_row(Reason.UNDECODABLE_IMAGE, detail) from None


def _is_no_value(value: object) -> bool:
    if isinstance(value, str):
        return len(value) < 16 and value.strip().lower() in _NOTHING
    return value is None or value != value


def _decode_base64(text: str) -> bytes:
    data = "".join(text.split()).replace("%2B", "+").replace("%2F", "/").replace("%3D", "=").rstrip("=")
    standard = data.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
