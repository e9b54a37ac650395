"""Pictures of a page: small, and each distinct image once."""

import base64
import hashlib
import io
from typing import Any

from PIL import Image

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.images import image_extension, open_image, portable_image

MIME = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
QUALITY = 72


class Thumbnails:
    """Gathers images as they come.

    Args:
        size: longest side in pixels; a smaller image is not enlarged.
        limit: distinct images, at most; None for all.
    """

    def __init__(self, size: int, limit: int | None) -> None:
        self.size, self.limit = size, limit
        self.places: list[dict[str, Any]] = []
        """Each image's `mime`, `width`, `height`, and `start` and `end` in `text`."""
        self.left_out = 0
        """Times that an image was not taken, for the limit."""
        self._numbers: dict[bytes, int | str] = {}
        self._texts: list[str] = []
        self._length = 0

    @property
    def text(self) -> str:
        """All images in base64, one behind the other."""
        return "".join(self._texts)

    def add(self, data: bytes, where: str) -> int | str:
        """Number of an image, or the reason why it is not shown."""
        key = hashlib.sha256(data).digest()
        if key not in self._numbers:
            if self.limit is not None and len(self.places) >= self.limit:
                self.left_out += 1
                return "left out of this page (--images)"
            self._numbers[key] = self._make(data, where)
        return self._numbers[key]

    def _make(self, data: bytes, where: str) -> int | str:
        try:
            image = open_image(data, where)
        except BadSample as fault:
            return f"cannot be shown: {fault.reason}"
        small, mime = _shrunk(image, portable_image(data, where), self.size)
        encoded = base64.b64encode(small).decode()
        width, height = _fit(image.size, self.size)
        place = {"mime": mime, "width": width, "height": height}
        self.places.append(place | {"start": self._length, "end": self._length + len(encoded)})
        self._texts.append(encoded)
        self._length += len(encoded)
        return len(self.places) - 1


def _shrunk(image: Image.Image, data: bytes, size: int) -> tuple[bytes, str]:
    """A WebP that fits, or the file as it is if it fits already and is no larger."""
    file = io.BytesIO()
    image.resize(_fit(image.size, size), Image.Resampling.LANCZOS).save(file, "WEBP", quality=QUALITY)
    if max(image.size) <= size and len(data) <= file.tell():
        return data, MIME[image_extension(data) or "webp"]
    return file.getvalue(), MIME["webp"]


def _fit(size: tuple[int, int], longest: int) -> tuple[int, int]:
    factor = min(1.0, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
