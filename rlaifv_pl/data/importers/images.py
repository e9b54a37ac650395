"""Images of a row, in whatever form it carries them, as encoded files."""

import ast
import hashlib
import json
import os
import re
import shlex
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from PIL import Image

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.images import SOURCE_FORMATS, check_size, encode_png, image_extension, inspect_image
from rlaifv_pl.data.importers.encoded_images import decode_text, is_encoded, is_nothing
from rlaifv_pl.data.importers.fetch_image import fetch_image
from rlaifv_pl.data.importers.image_columns import INNER_KEYS
from rlaifv_pl.data.importers.sources import bad_row
from rlaifv_pl.data.remote_directory import redact
from rlaifv_pl.data.rgb import paint
from rlaifv_pl.data.sample_json import shorten
from rlaifv_pl.data.schema import MAX_SAMPLE_BYTES

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_MAX_INTS = 2**26
"""Length of a list of bytes."""


@dataclass
class ImageFindings:
    """What is noticed about the images of an import, over all of its sources."""

    outside: Path | None = None
    """The deepest folder above all files that were refused since they lie outside of a loader's root."""
    roots: set[Path] = field(default_factory=set)
    """Folders that paths were read from."""
    unread: dict[str, str] = field(default_factory=dict)
    """Columns that look like images and were not read, each with an example."""
    _traits: dict[bytes, tuple[str, ...]] = field(default_factory=dict)
    """Traits of unusual images, by the hash of the stored file."""

    def count_traits(self, images: Iterable[bytes]) -> Counter[str]:
        """Count how many of these stored images are `transparent`, `scaled`, or the `first_frame` of several."""
        if not self._traits:
            return Counter()
        return Counter(trait for data in images for trait in self._traits.get(_digest(data), ()))

    def note_traits(self, data: bytes, **traits: bool) -> bytes:
        """Keep which traits a stored image has, and return it."""
        if held := tuple(name for name, holds in traits.items() if holds):
            self._traits[_digest(data)] = held
        return data

    def note_outside(self, path: Path) -> None:
        """Keep that a file lies outside of its root."""
        folder = path.parent
        self.outside = folder if self.outside is None else Path(os.path.commonpath([self.outside, folder]))


@dataclass(frozen=True)
class ImageLoader:
    """Load images of cells, and decode each once, so that no broken one gets further.

    Args:
        root: the folder that paths start from and must not leave: a row could name any file.
        base: the folder of the source, which relative paths start from if `root` does not hold them; it opens no file
            outside of `root` either.
        fetch: whether an http or https URL is asked for its image, or is a fault.
        findings: takes up what is worth telling about the images.
    """

    root: Path
    base: Path | None = None
    fetch: bool = False
    findings: ImageFindings = field(default_factory=ImageFindings)

    def load(self, value: object) -> tuple[bytes, ...]:
        """Load the image or images of a cell.

        Args:
            value: a path, a `file://` URI, a URL, a data URI, base64, bytes, `{bytes, path}` (as `datasets` stores
                images), a PIL image, or a list of these; None, NaN and empty texts are no image.

        Returns:
            JPEG, PNG and WebP files byte by byte as they came; any other image as PNG.

        Raises:
            BadSample: `missing_image`, `undecodable_image`, `unknown_range`, `huge_image` or `wrong_type`.
        """
        if isinstance(value, list | tuple) and not _is_bytes(value):
            return tuple(image for item in value for image in self.load(item))
        note = self.findings.note_traits
        if isinstance(value, Image.Image):
            check_size(value.size, "")
            painted = paint(value, "")
            png = encode_png(painted.image)
            return (note(png, transparent=painted.is_transparent, scaled=painted.is_scaled),)
        if isinstance(value, str) and (literal := _parse_literal(value)) is not None:
            return self.load(literal)
        if is_nothing(value):
            return ()
        data = self._read(value)
        opened = inspect_image(data, "", formats=SOURCE_FORMATS)
        stored = data if image_extension(data) else encode_png(opened.image)
        traits = {"transparent": opened.is_transparent, "scaled": opened.is_scaled}
        return (note(stored, **traits, first_frame=opened.is_first_frame),)

    def _read(self, value: object) -> bytes:
        """Return the file of one image."""
        if isinstance(value, list | tuple) and _is_bytes(value):
            return bytes(value)
        if isinstance(value, bytes | bytearray):
            is_base64 = is_encoded(bytes(value[:400]).decode("ascii", errors="replace"))
            return decode_text(bytes(value).decode("ascii")) if is_base64 else bytes(value)
        if isinstance(value, str):
            return self._read_text(value)
        if isinstance(value, Mapping) and value.keys() & set(INNER_KEYS):
            held = [(key, value[key]) for key in INNER_KEYS if not is_nothing(value.get(key))]
            if not held:
                raise bad_row(Reason.MISSING_IMAGE, "the image has neither bytes nor a path")
            key, inner = held[0]
            is_base64 = isinstance(inner, str) and key in ("bytes", "base64", "b64")
            return decode_text(inner) if is_base64 else self._read(inner)
        expected = "expected an image as path, bytes, {bytes, path}, base64 or data URI"
        raise bad_row(Reason.WRONG_TYPE, f"{expected}, got {shorten(value)}")

    def _read_text(self, text: str) -> bytes:
        if is_encoded(text):
            return decode_text(text)
        url = text.strip()
        scheme = _SCHEME.match(url)
        if scheme is None or scheme[0].lower() == "file://":
            return self._read_path(text)
        if scheme[0].lower() not in ("http://", "https://"):
            fault = "is a URL of another kind than http: copy its file to this machine"
        elif self.fetch:
            return fetch_image(url)
        else:
            fault = "is a URL, and nothing is fetched unless `--fetch true` is given"
        raise bad_row(Reason.MISSING_IMAGE, f"{shorten(redact(url))} {fault}")

    def _read_path(self, text: str) -> bytes:
        root = os.path.abspath(self.root)
        starts = [root] if self.base is None else [root, os.path.abspath(self.base)]
        inside: list[Path] = []
        for name in _spellings(text):
            # Lexically, not through symbolic links: a link below the root was put there by its owner.
            paths = [Path(os.path.abspath(Path(start, name))) for start in starts]
            allowed = [path for path in paths if path.is_relative_to(root)]
            if not allowed:
                raise self._outside(text, paths[-1])
            inside += allowed
            if any(map(os.path.lexists, allowed)):
                break
        path = next(filter(os.path.lexists, inside), inside[0])
        try:
            data = _read_file(path)
        except (OSError, ValueError) as error:
            # The system's errors repeat the path, however long.
            why = getattr(error, "strerror", None) or error
            detail = f"cannot read image {shorten(text)} below {shorten(root, length=200)}: {why}"
            raise bad_row(Reason.MISSING_IMAGE, detail) from None
        self.findings.roots.add(Path(next(start for start in reversed(starts) if path.is_relative_to(start))))
        return data

    def _outside(self, text: str, path: Path) -> BadSample:
        self.findings.note_outside(path)
        return bad_row(
            Reason.MISSING_IMAGE,
            f"image {shorten(text)} lies outside of images_root {str(self.root)!r}. If these rows may read files of "
            f"{str(path.parent)!r}, give `--images_root {shlex.quote(str(path.parent))}`",
        )


def _spellings(text: str) -> Iterator[str]:
    """Return what a text may mean as a path, the most literal first: URIs, blanks, Windows' separators, `~`."""
    if text.strip().lower().startswith("file:"):
        rest = unquote(text.strip()[len("file:") :]).removeprefix("//")
        yield rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
        return
    yield text
    stripped = text.strip()
    home = os.path.expanduser(stripped) if stripped.startswith("~") else stripped
    slashed = home.replace("\\", "/")
    yield from dict.fromkeys(name for name in (home, slashed, unquote(slashed)) if name != text)


def _parse_literal(text: str) -> list[Any] | Mapping[str, Any] | bytes | None:
    """Return the list, object or bytes that a cell of a table holds as JSON or as Python prints it; None for others."""
    if not text.startswith(("[", "{", "b'", 'b"')):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return value if isinstance(value, list | Mapping | bytes) else None
    return None


def _is_bytes(value: Sequence[object]) -> bool:
    """Whether a list is the bytes of a file, one by one."""
    return 8 < len(value) < _MAX_INTS and all(type(item) is int and 0 <= item < 256 for item in value)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _read_file(path: Path) -> bytes:
    """Read a regular file: a pipe or a device has no end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no file")
    if status.st_size > MAX_SAMPLE_BYTES:
        raise OSError(f"it has {status.st_size} bytes, more than {MAX_SAMPLE_BYTES}")
    return path.read_bytes()
