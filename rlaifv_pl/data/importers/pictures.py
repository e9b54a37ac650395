"""Images of a row, in whatever form it carries them, as encoded files."""

import base64
import binascii
import io
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.fields import shorten
from rlaifv_pl.data.images import STORED_FORMATS, image_extension, open_image
from rlaifv_pl.data.importers.web import fetch_picture
from rlaifv_pl.data.schema import MAX_SAMPLE_BYTES
from rlaifv_pl.data.urls import redact

SOURCE_FORMATS = (*STORED_FORMATS, "GIF", "BMP", "TIFF", "PPM")
"""What an importer decodes, by Pillow's names."""

_BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "UklGR", "R0lGOD")
"""How JPEG, PNG, WebP and GIF files begin in base64. They could begin a path too, but never do."""


def load_pictures(value: Any, root: Path, where: str, fetch: bool = False) -> tuple[bytes, ...]:
    """Load the image or images of a cell, and decode each once, so that no broken one gets further.

    Args:
        value: a path below `root`, a URL, a data URI, base64, bytes, `{bytes, path}` (as `datasets` stores
            images), a PIL image, a list of these, or None.
        root: the folder that paths start from and must not leave: a row could name any file.
        where: file and row, named in errors.
        fetch: whether an http or https URL is asked for its image, or is a fault.

    Returns:
        JPEG, PNG and WebP files byte by byte as they came; any other image as PNG.

    Raises:
        BadSample: `missing_image`, `undecodable_image`, `huge_image` or `wrong_type`.
    """
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(picture for item in value for picture in load_pictures(item, root, where, fetch))
    if isinstance(value, Image.Image):
        return (_encode_png(value.convert("RGB")),)
    return _checked(_file_bytes(value, root, where, fetch), where)


def is_picture(text: str) -> bool:
    """Whether a text is an encoded image itself: a data URI or base64.

    >>> is_picture("/9j/4AAQ"), is_picture("photos/1.jpg")
    (True, False)
    """
    return text.startswith(("data:", *_BASE64_STARTS))


def _checked(data: bytes, where: str) -> tuple[bytes, ...]:
    image = open_image(data, where, formats=SOURCE_FORMATS)
    return (data if image_extension(data) else _encode_png(image),)


def _encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _file_bytes(value: Any, root: Path, where: str, fetch: bool) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return _from_text(value, root, where, fetch)
    if isinstance(value, Mapping) and value.keys() & {"bytes", "path"}:
        inner = value.get("bytes") or value.get("path")
        if isinstance(inner, bytes | str):
            return _file_bytes(inner, root, where, fetch)
        raise BadSample(Reason.MISSING_IMAGE, where, "the image has neither bytes nor a path")
    detail = f"expected an image as path, bytes, {{bytes, path}}, base64 or data URI, got {shorten(value)}"
    raise BadSample(Reason.WRONG_TYPE, where, detail)


def _from_text(text: str, root: Path, where: str, fetch: bool) -> bytes:
    if text.startswith("data:"):
        return _from_base64(text.partition(",")[2], where)
    if text.startswith(("http://", "https://")):
        if fetch:
            return fetch_picture(text, where)
        detail = f"{shorten(redact(text))} is a URL, and nothing is fetched unless `fetch` is set"
        raise BadSample(Reason.MISSING_IMAGE, where, detail)
    if text.startswith(_BASE64_STARTS):
        return _from_base64(text, where)
    return _from_path(text, root, where)


def _from_base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        detail = f"cannot decode {shorten(text)} as base64: {error}"
        raise BadSample(Reason.UNDECODABLE_IMAGE, where, detail) from None


def _from_path(text: str, root: Path, where: str) -> bytes:
    # Lexically, not through symbolic links: a link below the root was put there by its owner.
    path = Path(os.path.abspath(root / text))
    if not path.is_relative_to(os.path.abspath(root)):
        raise BadSample(
            Reason.MISSING_IMAGE, where, f"image {text!r} lies outside of images_root {str(root)!r}"
        )
    try:
        return _read_file(path)
    except (OSError, ValueError) as error:
        # The system's errors repeat the path, however long.
        why = getattr(error, "strerror", None) or error
        raise BadSample(Reason.MISSING_IMAGE, where, f"cannot read image {shorten(text)}: {why}") from None


def _read_file(path: Path) -> bytes:
    """A file that has an end: from a pipe or a device one would read forever."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no file")
    if status.st_size > MAX_SAMPLE_BYTES:
        raise OSError(f"it has {status.st_size} bytes, more than {MAX_SAMPLE_BYTES}")
    return path.read_bytes()
