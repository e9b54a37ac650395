"""Encoded images: which format they are, and opening them although nobody vouches for them.

Every image of the product is opened here, so that a page, training, feedback and evaluation show the same pixels.
"""

import io
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.file_kinds import file_kind
from rlaifv_pl.data.rgb import is_ordinary, paint

MAX_PIXELS = 2**26
"""67 megapixels: above any camera's photo, and 200 MB once decoded to RGB."""

MAX_SAMPLE_PIXELS = 2**28
"""Of all images of one side of a sample: they are decoded together, to 1 GB."""

MAX_ASPECT = 200
"""Long side by short side. Processors scale the short one to a few hundred pixels, and the long one with it."""

STORED_FORMATS = ("JPEG", "PNG", "WEBP")
"""What a shard may hold, by Pillow's names."""

SOURCE_FORMATS = (*STORED_FORMATS, "GIF", "BMP", "TIFF", "PPM")
"""What a user's own files may be, by Pillow's names."""

OPENING = 2
"""Raised when the same file is opened to other pixels than before, so that what was computed of them is stale."""


class OpenedImage(NamedTuple):
    """A decoded image, and what became of its file on the way."""

    image: Image.Image
    """RGB, upright."""
    is_scaled: bool
    """Whether its levels were scaled to 8 bits."""
    is_transparent: bool
    """Whether some of its ground was transparent, and is white now."""
    is_first_frame: bool
    """Whether it is the first of several frames or pages."""


def image_extension(data: bytes) -> str | None:
    """Tell `jpg`, `png` or `webp` by the first bytes of a file; None for anything else.

    >>> image_extension(bytes.fromhex("ffd8ffe0")), image_extension(b"GIF89a")
    ('jpg', None)
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return None


def open_image(data: bytes, where: str, formats: tuple[str, ...] = STORED_FORMATS) -> Image.Image:
    """Decode one image to upright 8-bit RGB, transparent ground white; of several frames, the first.

    Args:
        data: the encoded file.
        where: named in errors, for instance shard and key.
        formats: Pillow's names of the formats to accept. Keep the list short: Pillow's other
            decoders are less tried, and its EPS decoder starts an external program.

    Raises:
        BadSample: `huge_image` above `MAX_PIXELS` or `MAX_ASPECT`, found before any pixel is decoded;
            `unknown_range` for samples that nothing tells the black and white of;
            `undecodable_image` for a broken, cut or unknown file.
    """
    return inspect_image(data, where, formats).image


def inspect_image(data: bytes, where: str, formats: tuple[str, ...] = STORED_FORMATS) -> OpenedImage:
    """Decode one image, and tell what had to be done to it.

    Args and errors: as `open_image`.
    """
    try:
        image = _open(data, formats)
        check_size(image.size, where)
        is_first = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
        painted = paint(image, where)
        return OpenedImage(*painted, is_first_frame=is_first)
    except BadSample:
        raise
    except Image.DecompressionBombError as error:
        raise BadSample(Reason.HUGE_IMAGE, where, str(error).rstrip(".")) from None
    except Exception as error:
        # On broken files decoders raise whatever their parser stumbles over: OSError, SyntaxError,
        # struct.error, IndexError. Any of them means the same to us.
        raise BadSample(Reason.UNDECODABLE_IMAGE, where, _why_undecodable(data, formats, error)) from error


def portable_image(data: bytes, where: str) -> bytes:
    """Return the file itself where any reader shows the pixels of `open_image`, else a PNG of them.

    What leaves this process goes through here: a server or a browser may paint transparent ground black,
    clip 16 bits, play frames, or leave a photo on its side.

    Raises:
        BadSample: as `open_image`.
    """
    try:
        return _portable(data)
    except BadSample as fault:
        raise BadSample(fault.reason, where, fault.detail) from None


@lru_cache(maxsize=16)
def _portable(data: bytes) -> bytes:
    """Many questions are asked about one image."""
    try:
        is_portable = is_ordinary(_open(data, STORED_FORMATS))
    except Exception:
        is_portable = False
    return data if is_portable else encode_png(open_image(data, ""))


def storable_image(data: bytes, where: str) -> bytes:
    """Return a user's file as a sample holds it: itself if a shard may hold it, else a PNG of it.

    Raises:
        BadSample: as `open_image`.
    """
    return data if image_extension(data) else encode_png(open_image(data, where, SOURCE_FORMATS))


def encode_png(image: Image.Image) -> bytes:
    """Encode an image as PNG, without loss."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def check_size(size: tuple[int, int], where: str) -> None:
    """Refuse a size in pixels that is beyond `MAX_PIXELS` or `MAX_ASPECT`.

    Raises:
        BadSample: `huge_image`.
    """
    width, height = size
    if max(size) > MAX_ASPECT * min(size):
        detail = f"an image of {width} x {height} is more than {MAX_ASPECT} times as long as it is wide"
        raise BadSample(Reason.HUGE_IMAGE, where, detail)
    if width * height > MAX_PIXELS:
        detail = f"an image of {width} x {height} has more than {MAX_PIXELS} pixels"
        raise BadSample(Reason.HUGE_IMAGE, where, detail)


def open_images(images: Sequence[bytes], where: str) -> list[Image.Image]:
    """Decode the images of one side of a sample.

    Args:
        images: the encoded files.
        where: sample and side; errors name the image's number behind it.

    Raises:
        BadSample: as `open_image`; `huge_image` above `MAX_SAMPLE_PIXELS` in all.
    """
    opened: list[Image.Image] = []
    pixels = 0
    for number, data in enumerate(images):
        image = open_image(data, f"{where}[{number}]")
        pixels += image.width * image.height
        if pixels > MAX_SAMPLE_PIXELS:
            detail = f"with this image they are more than {MAX_SAMPLE_PIXELS} pixels"
            raise BadSample(Reason.HUGE_IMAGE, f"{where}[{number}]", detail)
        opened.append(image)
    return opened


def _open(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data), formats=formats)


def _why_undecodable(data: bytes, formats: tuple[str, ...], error: Exception) -> str:
    """Name the file for what it is, without what Pillow says of objects in memory."""
    kind = file_kind(data)
    if not isinstance(error, UnidentifiedImageError):
        return (
            f"cannot decode {kind or 'an image'} of {len(data)} bytes, which is cut off or damaged: {error}"
        )
    found = kind or f"a file of no known kind that begins with {data[:8]!r}"
    return f"cannot decode an image of {len(data)} bytes: expected {'/'.join(formats)}, got {found}"
