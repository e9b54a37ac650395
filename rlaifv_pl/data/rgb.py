"""Pixels of any mode as 8-bit RGB: wider ranges scaled, transparent ground painted white."""

from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps

from rlaifv_pl.data.bad_samples import BadSample, Reason

_PHOTOMETRIC, _SMALLEST, _LARGEST = 262, 340, 341
"""TIFF tags: whether 0 is white, and the range of the samples."""
_DEEP_KEYS = {"L;2": 85, "L;4": 17, "RGB;16B": 1 / 256}
"""PNG gives a transparent colour in its own units; Pillow has scaled the pixels of these raw modes to 8 bits."""


class Painted(NamedTuple):
    """An image as a model sees it."""

    image: Image.Image
    """Mode RGB."""
    is_scaled: bool
    """Whether its levels were scaled to 8 bits."""
    is_transparent: bool
    """Whether some of its ground was transparent, and is white now."""


class _Levels(NamedTuple):
    black: float
    white: float


def paint(image: Image.Image, where: str) -> Painted:
    """Turn an image upright and convert it to RGB on white, as vLLM and qwen-vl-utils composite it.

    Args:
        image: of any mode; best not loaded yet, since loading forgets what a file says of its samples.
        where: named in errors.

    Raises:
        BadSample: `unknown_range` for integers or floats that nothing tells the range of.
        Exception: whatever Pillow stumbles over on a broken file.
    """
    levels, key = _levels(image, where), _transparent_key(image)
    upright: Image.Image = ImageOps.exif_transpose(image, in_place=False)
    if levels is None:
        return _on_white(_with_key(upright, key))
    values = np.asarray(upright)
    grey = Image.fromarray(_scaled(values, levels))
    if key is None:
        return Painted(grey.convert("RGB"), is_scaled=True, is_transparent=False)
    alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
    return _on_white(Image.merge("LA", (grey, alpha)))._replace(is_scaled=True)


def is_ordinary(image: Image.Image) -> bool:
    """Whether every reader shows the pixels that `paint` makes: eight bits, opaque, upright, a single frame."""
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    is_plain = image.mode in ("1", "L", "P", "RGB") and not image.has_transparency_data
    return is_plain and frames == 1 and image.getexif().get(0x0112, 1) == 1


def _levels(image: Image.Image, where: str) -> _Levels | None:
    """Which samples of a mode other than 8-bit are black and white; None for 8-bit modes."""
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        top = 4095 if _raw_mode(image) == "I;12" else 65535
        return _Levels(top, 0) if tags.get(_PHOTOMETRIC) == 0 else _Levels(0, top)
    if image.mode not in ("I", "F"):
        return None
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return _Levels(0, 65535)
    smallest, largest = (np.ravel(tags.get(tag, ()))[:1].tolist() for tag in (_SMALLEST, _LARGEST))
    if smallest < largest and smallest:
        return _Levels(smallest[0], largest[0])
    kind = "floats" if image.mode == "F" else "32-bit or signed integers"
    detail = (
        f"the image's samples are {kind} (mode {image.mode}), and nothing says which is black and which white"
    )
    raise BadSample(Reason.UNKNOWN_RANGE, where, detail)


def _scaled(values: np.ndarray, levels: _Levels) -> np.ndarray:
    share = (values.astype(np.float32) - levels.black) / (levels.white - levels.black)
    return np.rint(share.clip(0, 1) * 255).astype(np.uint8)


def _transparent_key(image: Image.Image) -> Any:
    """The colour that a PNG declares transparent, in the units of the decoded pixels; None if it declares none."""
    key = image.info.get("transparency")
    factor = _DEEP_KEYS.get(_raw_mode(image))
    if key is None or factor is None:
        return key
    return tuple(int(part * factor) for part in key) if isinstance(key, tuple) else int(key * factor)


def _with_key(image: Image.Image, key: Any) -> Image.Image:
    if key is not None:
        image.info["transparency"] = key
    return image


def _raw_mode(image: Image.Image) -> str:
    """How the file lays out its samples, by Pillow's name; empty once it is loaded."""
    tiles: Any = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _on_white(image: Image.Image) -> Painted:
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
    if not image.has_transparency_data:
        return Painted(image.convert("RGB"), is_scaled=False, is_transparent=False)
    drawing = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    alpha = drawing.getchannel("A")
    white = Image.new("RGB", drawing.size, "white")
    white.paste(drawing, mask=alpha)
    return Painted(white, is_scaled=False, is_transparent=alpha.histogram()[255] < alpha.width * alpha.height)
