"""Which columns of a row hold its images, told by their names and by what they hold."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from rlaifv_pl.data.file_kinds import file_kind
from rlaifv_pl.data.importers.encoded_images import is_encoded, is_nothing, leaves

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


def is_picture_name(name: str) -> bool:
    """Whether a column of this name holds images, whatever its values look like."""
    return _SURE.fullmatch(_plain(name)) is not None


def sure_columns(columns: Mapping[str, Any]) -> list[str]:
    """Names of the columns that hold images by their name alone, the most usual first."""
    named = [name for name in columns if is_picture_name(name)]
    return sorted((name for name in named if not is_nothing(columns[name])), key=_rank)


def likely_columns(columns: Mapping[str, Any]) -> list[str]:
    """Names of the columns that hold images by their name and value, such as `file_name` of an imagefolder."""
    return [
        name for name in columns if _LIKELY.fullmatch(_plain(name)) and looks_like_pictures(columns[name])
    ]


def unread_columns(columns: Mapping[str, Any], read: str | None, texts: Iterable[str] = ()) -> list[str]:
    """Names of the columns that hold or look like images of their own, and are not what was read.

    Args:
        read: the column that the images were taken from, if it was one.
        texts: names of columns that hold texts.
    """
    skipped, sure = {*_ELSEWHERE, *texts, read}, sure_columns(columns)
    shown = [name for name in columns if name in sure or looks_like_pictures(columns[name])]
    return [
        name
        for name in shown
        if name not in skipped and (read is None or not _same(columns[read], columns[name]))
    ]


def read_columns(columns: Mapping[str, Any]) -> set[str]:
    """Names of the column that a row's images are taken from, and of those that only say the same.

    >>> sorted(read_columns({"img": "1.jpg", "url": "https://a.b/1.jpg", "photo": "2.jpg", "prompt": "What?"}))
    ['img', 'url']
    """
    found = sure_columns(columns) or likely_columns(columns)
    if not found:
        return set()
    shown = {*sure_columns(columns), *likely_columns(columns)}
    return shown - {*unread_columns(columns, found[0])}


def looks_like_pictures(value: Any) -> bool:
    """Whether a cell looks like an image or several: encoded, or the name of an image file."""
    return any(map(_looks_like_picture, leaves(value)))


def _looks_like_picture(value: Any) -> bool:
    if isinstance(value, bytes | bytearray):
        return (file_kind(bytes(value[:1024])) or "").endswith("image")
    if isinstance(value, str):
        return is_encoded(value) or (
            len(value) <= _LONGEST_PATH and _SUFFIX.search(value.strip()) is not None
        )
    if isinstance(value, Mapping):
        return any(looks_like_pictures(value.get(key)) for key in INNER_KEYS)
    return False


def _same(read: Any, other: Any) -> bool:
    """Whether a cell only says where images in another cell come from: a path beside bytes, a URL beside a path."""
    if isinstance(read, list | tuple) and len(read) == 1:
        read = read[0]
    if isinstance(other, list | tuple) and len(other) == 1:
        other = other[0]
    if isinstance(read, list | tuple) and isinstance(other, str):
        return any(isinstance(one, str | Mapping) and _names(one) & _names(other) for one in read)
    if read == other or not isinstance(other, str) or is_encoded(other):
        return read == other
    if not isinstance(read, str) or is_encoded(read) or ("://" in read) != ("://" in other):
        return True
    return bool(_names(read) & _names(other))


def _names(value: Any) -> set[str]:
    """Names, without folders, of the files that a cell names."""
    if isinstance(value, Mapping):
        return {name for key in INNER_KEYS for name in _names(value.get(key))}
    return {PurePosixPath(value.strip()).name} if isinstance(value, str) and not is_encoded(value) else set()


def _plain(name: Any) -> str:
    return re.sub(r"[\W_]+", "", str(name)).lower()


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)
