"""Encoded images: which format they are, and opening them although nobody vouches for them."""

import io
import warnings
from collections.abc import Sequence

from PIL import Image, ImageOps

from rlaifv_pl.data.faults import BadSample, Reason

MAX_PIXELS = 2**26
"""67 megapixels: above any camera's photo, and 200 MB once decoded to RGB."""

MAX_SAMPLE_PIXELS = 2**28
"""Of all images of one side of a sample: they are decoded together, to 1 GB."""

MAX_ASPECT = 200
"""Long side by short side. Processors scale the short one to a few hundred pixels, and the long one with it."""

STORED_FORMATS = ("JPEG", "PNG", "WEBP")
"""What a shard may hold, by Pillow's names."""


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
    """Decode one image to RGB, turned upright as its EXIF orientation says.

    Args:
        data: the encoded file.
        where: named in errors, for instance shard and key.
        formats: Pillow's names of the formats to accept. Keep the list short: Pillow's other
            decoders are less tried, and its EPS decoder starts an external program.

    Raises:
        BadSample: `huge_image` above `MAX_PIXELS` or `MAX_ASPECT`, found before any pixel is decoded;
            `undecodable_image` for a broken, cut or unknown file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=formats)
        _check_size(image.size, where)
        return ImageOps.exif_transpose(image).convert("RGB")
    except BadSample:
        raise
    except Image.DecompressionBombError as error:
        raise BadSample(Reason.HUGE_IMAGE, where, str(error).rstrip(".")) from None
    except Exception as error:
        # On broken files decoders raise whatever their parser stumbles over: OSError, SyntaxError,
        # struct.error, IndexError. Any of them means the same to us.
        detail = f"cannot decode an image of {len(data)} bytes as {'/'.join(formats)}: {error}"
        raise BadSample(Reason.UNDECODABLE_IMAGE, where, detail) from error


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


def _check_size(size: tuple[int, int], where: str) -> None:
    width, height = size
    if max(size) > MAX_ASPECT * min(size):
        detail = f"an image of {width} x {height} is more than {MAX_ASPECT} times as long as it is wide"
        raise BadSample(Reason.HUGE_IMAGE, where, detail)
    if width * height > MAX_PIXELS:
        detail = f"an image of {width} x {height} has more than {MAX_PIXELS} pixels"
        raise BadSample(Reason.HUGE_IMAGE, where, detail)
