"""Which columns of a row hold its images, told by their names and by what they hold."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from rlaifv_pl.data.file_kinds import file_kind
from rlaifv_pl.data.importers.encoded import is_encoded, is_nothing

_PICTURE = r"(?:images?|imgs?|pictures?|pics?|photos?)"
_FIRST = ("images", "image", "image_path")
_SURE = re.compile(
    rf"{_PICTURE}(?:file)?(?:paths?|files?|filenames?|filepaths?|urls?|uris?|bytes|base64|b64)?"
)
"""Names of columns, without separators and in lower case, that hold images and nothing else."""
_LIKELY = re.compile(
    rf"{_PICTURE}(?:names?|data|links?|src|source|contents?|locations?|id)"
    r"|\w*file_?names?|(?:local|full|relative|absolute)?(?:files?|filepaths?|paths?|urls?|uris?|links?|src)"
    r"|bytes|base64|binary|jpe?g|png|webp|gif"
)
"""Names of columns that hold an image if their value looks like one."""
_SUFFIX = re.compile(r"\.(?:jpe?g|png|webp|gif|bmp|tiff?|p[gpn]m|heic|avif)(?:[?#].*)?$", re.IGNORECASE)
_LONGEST_PATH = 4096
INNER_KEYS = (
    "bytes", "base64", "b64", "data", "path", "file_name", "filename", "file", "url", "image", "image_url",
)  # fmt: skip
"""Where an object holds its image, in the order in which they are looked at."""
_ELSEWHERE = ("rejected_images", "rows")


def sure_columns(columns: Mapping[str, Any]) -> list[str]:
    """Names of the columns that hold images by their name alone, the most usual first."""
    named = [name for name in columns if _SURE.fullmatch(_plain(name))]
    return sorted((name for name in named if not is_nothing(columns[name])), key=_rank)


def likely_columns(columns: Mapping[str, Any]) -> list[str]:
    """Names of the columns that hold images by their name and value, such as `file_name` of an imagefolder."""
    return [
        name for name in columns if _LIKELY.fullmatch(_plain(name)) and looks_like_pictures(columns[name])
    ]


def unread_columns(columns: Mapping[str, Any], read: str | None, texts: Iterable[str]) -> list[str]:
    """Names of the columns that look like images of their own, and are not what was read.

    Args:
        read: the column that the images were taken from, if it was one.
        texts: names of columns that hold texts.
    """
    skipped = {*_ELSEWHERE, *texts, read}
    found = [name for name in columns if name not in skipped and looks_like_pictures(columns[name])]
    return [name for name in found if read is None or not _same(columns[read], columns[name])]


def looks_like_pictures(value: Any) -> bool:
    """Whether a cell looks like an image or several: encoded, or the name of an image file."""
    if isinstance(value, bytes | bytearray):
        return (file_kind(bytes(value[:1024])) or "").endswith("image")
    if isinstance(value, str):
        return is_encoded(value) or (
            len(value) <= _LONGEST_PATH and _SUFFIX.search(value.strip()) is not None
        )
    if isinstance(value, Mapping):
        return any(looks_like_pictures(value.get(key)) for key in INNER_KEYS)
    return isinstance(value, list | tuple) and any(map(looks_like_pictures, value))


def _same(read: Any, other: Any) -> bool:
    """Whether a cell only says where the image in another cell comes from: a path beside bytes, a URL beside a path."""
    if isinstance(read, list | tuple) and len(read) == 1:
        read = read[0]
    if isinstance(other, list | tuple) and len(other) == 1:
        other = other[0]
    if read == other or not isinstance(other, str) or is_encoded(other):
        return read == other
    if not isinstance(read, str) or is_encoded(read) or ("://" in read) != ("://" in other):
        return True
    return PurePosixPath(read.strip()).name == PurePosixPath(other.strip()).name


def _plain(name: Any) -> str:
    return re.sub(r"[\W_]+", "", str(name)).lower()


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)
