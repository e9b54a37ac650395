"""Images of a row, in whatever form it carries them, as encoded files."""

import ast
import hashlib
import json
import os
import re
import shlex
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from rlaifv_pl.data.remote_directory import redact
from rlaifv_pl.data.rgb import paint
from rlaifv_pl.data.sample_json import shorten
from rlaifv_pl.data.schema import MAX_SAMPLE_BYTES

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_MOST_INTS = 2**26


@dataclass
class PictureFindings:
    """What was found out about the images of an import, over all of its sources."""

    outside: Path | None = None
    """The deepest folder above all files that were refused since they lie outside of a loader's root."""
    roots: set[Path] = field(default_factory=set)
    """Folders that paths were read from."""
    unread: dict[str, str] = field(default_factory=dict)
    """Columns that look like images and were not read, each with an example."""
    _traits: dict[bytes, tuple[str, ...]] = field(default_factory=dict)
    """Of unusual images, by the hash of the stored file."""

    def counts(self, images: Iterable[bytes]) -> Counter[str]:
        """Number of these stored images that are `transparent`, `scaled`, or the first of several frames."""
        if not self._traits:
            return Counter()
        return Counter(trait for data in images for trait in self._traits.get(_digest(data), ()))

    def note(self, data: bytes, **traits: bool) -> None:
        """Keep which traits a stored image has."""
        if held := tuple(name for name, holds in traits.items() if holds):
            self._traits[_digest(data)] = held

    def refuse(self, path: Path) -> None:
        """Keep that a file lies outside of its root."""
        folder = path.parent
        self.outside = folder if self.outside is None else Path(os.path.commonpath([self.outside, folder]))


def image_warnings(
    findings: PictureFindings, samples: int, with_images: int, command: Callable[..., str]
) -> Iterator[str]:
    """Sentences on what an import may have missed of the images, each with the option that mends it.

    Args:
        samples: number that was kept.
        with_images: number of these that have an image.
        command: writes the command line of the import with options changed.
    """
    if findings.unread:
        name, example = next(iter(findings.unread.items()))
        listed = ", ".join(map(repr, findings.unread))
        yield (
            f"the columns {listed} look like images ({name}: {example}) and were not read; `--keys image={name}` reads "
            "one as the image"
        )
    if samples and with_images < samples:
        missing = f"{samples - with_images} of the {samples} samples have no image"
        yield missing if with_images else f"none of the {samples} samples has an image"
    if findings.outside is not None:
        folder = os.path.commonpath([findings.outside, *findings.roots])
        yield (
            f"images outside of images_root were refused; if these rows may read all files of {folder!r}, the command "
            f"is\n  {command(images_root=folder)}"
        )


@dataclass(frozen=True)
class PictureLoader:
    """Loads images of cells, and decodes each once, so that no broken one gets further.

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
    findings: PictureFindings = field(default_factory=PictureFindings)

    def load(self, value: Any, where: str) -> tuple[bytes, ...]:
        """Load the image or images of a cell.

        Args:
            value: a path, a `file://` URI, a URL, a data URI, base64, bytes, `{bytes, path}` (as `datasets` stores
                images), a PIL image, or a list of these; None, NaN and empty texts are no image.
            where: file and row, named in errors.

        Returns:
            JPEG, PNG and WebP files byte by byte as they came; any other image as PNG.

        Raises:
            BadSample: `missing_image`, `undecodable_image`, `unknown_range`, `huge_image` or `wrong_type`.
        """
        if isinstance(value, list | tuple) and not _is_bytes(value):
            return tuple(picture for item in value for picture in self.load(item, where))
        if isinstance(value, Image.Image):
            check_size(value.size, where)
            painted = paint(value, where)
            return self._noted(encode_png(painted.image), painted.is_transparent, painted.is_scaled)
        if isinstance(value, str) and (spelled_out := _spelled_out(value)) is not None:
            return self.load(spelled_out, where)
        if is_nothing(value):
            return ()
        data = self._file(value, where)
        opened = inspect_image(data, where, formats=SOURCE_FORMATS)
        stored = data if image_extension(data) else encode_png(opened.image)
        return self._noted(stored, opened.is_transparent, opened.is_scaled, opened.is_first_frame)

    def _noted(self, data: bytes, transparent: bool, scaled: bool, frame: bool = False) -> tuple[bytes]:
        self.findings.note(data, transparent=transparent, scaled=scaled, first_frame=frame)
        return (data,)

    def _file(self, value: Any, where: str) -> bytes:
        if isinstance(value, list | tuple) and _is_bytes(value):
            return bytes(value)
        if isinstance(value, bytes | bytearray):
            text = bytes(value[:400]).decode("ascii", errors="replace")
            return decode_text(bytes(value).decode("ascii"), where) if is_encoded(text) else bytes(value)
        if isinstance(value, str):
            return self._from_text(value, where)
        if isinstance(value, Mapping) and value.keys() & set(INNER_KEYS):
            held = [(key, value[key]) for key in INNER_KEYS if not is_nothing(value.get(key))]
            if not held:
                raise BadSample(Reason.MISSING_IMAGE, where, "the image has neither bytes nor a path")
            key, inner = held[0]
            is_text = isinstance(inner, str) and key in ("bytes", "base64", "b64")
            return decode_text(inner, where) if is_text else self._file(inner, where)
        detail = (
            f"expected an image as path, bytes, {{bytes, path}}, base64 or data URI, got {shorten(value)}"
        )
        raise BadSample(Reason.WRONG_TYPE, where, detail)

    def _from_text(self, text: str, where: str) -> bytes:
        if is_encoded(text):
            return decode_text(text, where)
        scheme = _SCHEME.match(text.strip())
        if scheme is None or scheme[0].lower() == "file://":
            return self._from_path(text, where)
        url = text.strip()
        if scheme[0].lower() not in ("http://", "https://"):
            detail = (
                f"{shorten(redact(url))} is a URL of another kind than http: copy its file to this machine"
            )
            raise BadSample(Reason.MISSING_IMAGE, where, detail)
        if self.fetch:
            return fetch_image(url, where)
        detail = f"{shorten(redact(url))} is a URL, and nothing is fetched unless `--fetch true` is given"
        raise BadSample(Reason.MISSING_IMAGE, where, detail)

    def _from_path(self, text: str, where: str) -> bytes:
        root = os.path.abspath(self.root)
        starts = [root] if self.base is None else [root, os.path.abspath(self.base)]
        inside: list[Path] = []
        for name in _spellings(text):
            # Lexically, not through symbolic links: a link below the root was put there by its owner.
            paths = [Path(os.path.abspath(Path(start, name))) for start in starts]
            allowed = [path for path in paths if path.is_relative_to(root)]
            if not allowed:
                raise self._refused(text, paths[-1], where)
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
            raise BadSample(Reason.MISSING_IMAGE, where, detail) from None
        self.findings.roots.add(Path(next(start for start in reversed(starts) if path.is_relative_to(start))))
        return data

    def _refused(self, text: str, path: Path, where: str) -> BadSample:
        self.findings.refuse(path)
        detail = (
            f"image {shorten(text)} lies outside of images_root {str(self.root)!r}. If these rows may read files of "
            f"{str(path.parent)!r}, give `--images_root {shlex.quote(str(path.parent))}`"
        )
        return BadSample(Reason.MISSING_IMAGE, where, detail)


def _spellings(text: str) -> Iterator[str]:
    """What a text may mean as a path, the most literal first: URIs, blanks around it, Windows' separators, `~`."""
    if text.strip().lower().startswith("file:"):
        rest = unquote(text.strip()[len("file:") :]).removeprefix("//")
        yield rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
        return
    yield text
    stripped = text.strip()
    home = os.path.expanduser(stripped) if stripped.startswith("~") else stripped
    slashed = home.replace("\\", "/")
    yield from dict.fromkeys(name for name in (home, slashed, unquote(slashed)) if name != text)


def _spelled_out(text: str) -> Any:
    """The list, object or bytes that a cell of a table spells out, as JSON or as Python prints it; None for others."""
    if not text.startswith(("[", "{", "b'", 'b"')):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return value if isinstance(value, list | Mapping | bytes) else None
    return None


def _is_bytes(value: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list is the bytes of a file, one by one."""
    return 8 < len(value) < _MOST_INTS and all(type(item) is int and 0 <= item < 256 for item in value)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _read_file(path: Path) -> bytes:
    """A file that has an end: from a pipe or a device one would read forever."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no file")
    if status.st_size > MAX_SAMPLE_BYTES:
        raise OSError(f"it has {status.st_size} bytes, more than {MAX_SAMPLE_BYTES}")
    return path.read_bytes()
