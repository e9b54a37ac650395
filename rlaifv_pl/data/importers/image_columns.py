"""The columns of a row that hold its images, by their names and by what they hold."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from rlaifv_pl.data.file_kinds import file_kind
from rlaifv_pl.data.importers.column_names import Cells
from rlaifv_pl.data.importers.encoded_images import is_encoded, is_nothing, leaves

_IMAGE = r"(?:images?|imgs?|pictures?|pics?|photos?)"
_USUAL = ("images", "image", "image_path")
_SURE = re.compile(rf"{_IMAGE}(?:file)?(?:paths?|files?|filenames?|filepaths?|urls?|uris?|bytes|base64|b64)?")
"""Names of columns, without separators and in lower case, that hold images and nothing else."""
_LIKELY = re.compile(
    rf"{_IMAGE}(?:names?|data|links?|src|source|contents?|locations?|id)"
    r"|\w*file_?names?|(?:local|full|relative|absolute)?(?:files?|filepaths?|paths?|urls?|uris?|links?|src)"
    r"|bytes|base64|binary|jpe?g|png|webp|gif"
)
"""Names of columns that hold an image if their value looks like one."""
_SUFFIX = re.compile(r"\.(?:jpe?g|png|webp|gif|bmp|tiff?|p[gpn]m|heic|avif)(?:[?#].*)?$", re.IGNORECASE)
_MAX_PATH = 4096
INNER_KEYS = (
    "bytes", "base64", "b64", "data", "path", "file_name", "filename", "file", "url", "image", "image_url",
)  # fmt: skip
"""Fields of an object that may hold its image, the first that is filled counts."""
_OTHER_IMAGES = ("rejected_images", "rows")


def is_image_name(name: str) -> bool:
    """Whether a column of this name holds images, whatever its values look like."""
    return _SURE.fullmatch(_plain(name)) is not None


def sure_columns(columns: Cells) -> list[str]:
    """Return the names of the columns that hold images by their name alone, the most usual first."""
    names = [name for name in columns if is_image_name(name) and not is_nothing(columns[name])]
    return sorted(names, key=lambda name: _USUAL.index(name) if name in _USUAL else len(_USUAL))


def likely_columns(columns: Cells) -> list[str]:
    """Return the names of the columns that hold images by name and value, such as an imagefolder's `file_name`."""
    likely = (name for name in columns if _LIKELY.fullmatch(_plain(name)))
    return [name for name in likely if looks_like_images(columns[name])]


def unread_columns(columns: Cells, read: str | None, texts: Iterable[str] = ()) -> list[str]:
    """Return the names of the columns that hold or look like images of their own, and are not what was read.

    Args:
        columns: columns of the row.
        read: the column that the images were taken from, if it was one.
        texts: names of columns that hold texts.
    """
    skipped, sure = {*_OTHER_IMAGES, *texts, read}, sure_columns(columns)
    names = [name for name in columns if name in sure or looks_like_images(columns[name])]
    names = [name for name in names if name not in skipped]
    return [name for name in names if read is None or not _is_same(columns[read], columns[name])]


def read_columns(columns: Cells) -> set[str]:
    """Return the names of the column that a row's images are taken from, and of those that only say the same.

    >>> sorted(read_columns({"img": "1.jpg", "url": "https://a.b/1.jpg", "photo": "2.jpg", "prompt": "What?"}))
    ['img', 'url']
    """
    sure, likely = sure_columns(columns), likely_columns(columns)
    first = next(iter(sure or likely), None)
    return {*sure, *likely} - {*unread_columns(columns, first)} if first else set()


def looks_like_images(value: object) -> bool:
    """Whether a cell looks like an image or several: encoded, or the name of an image file."""
    return any(map(_looks_like_image, leaves(value)))


def _looks_like_image(value: object) -> bool:
    if isinstance(value, bytes | bytearray):
        return (file_kind(bytes(value[:1024])) or "").endswith("image")
    if isinstance(value, str):
        return is_encoded(value) or (len(value) <= _MAX_PATH and _SUFFIX.search(value.strip()) is not None)
    if isinstance(value, Mapping):
        return any(looks_like_images(value.get(key)) for key in INNER_KEYS)
    return False


def _is_same(read: object, other: object) -> bool:
    """Whether a cell only says where images in another cell come from: a path beside bytes, a URL beside a path."""
    read, other = _only(read), _only(other)
    if isinstance(read, list | tuple) and isinstance(other, str):
        return any(
            isinstance(item, str | Mapping) and _file_names(item) & _file_names(other) for item in read
        )
    if read == other or not isinstance(other, str) or is_encoded(other):
        return read == other
    if not isinstance(read, str) or is_encoded(read) or ("://" in read) != ("://" in other):
        return True
    return bool(_file_names(read) & _file_names(other))


def _only(value: object) -> object:
    """Return the only item of a list, or the value itself."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


def _file_names(value: object) -> set[str]:
    """Return the names, without folders, of the files that a cell names."""
    if isinstance(value, Mapping):
        return {name for key in INNER_KEYS for name in _file_names(value.get(key))}
    return {PurePosixPath(value.strip()).name} if isinstance(value, str) and not is_encoded(value) else set()


def _plain(name: object) -> str:
    return re.sub(r"[\W_]+", "", str(name)).lower()
