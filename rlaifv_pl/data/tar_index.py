"""Offsets of the members of a tar, found by walking its headers.

Reading the headers alone makes the samples of a shard accessible in any order, without unpacking it
and without an index file that could go stale. An image that is a hard link to an earlier one has that one's
place: links are looked up among the members of the same tar, and never on a file system.
"""

import os
import tarfile
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from struct import Struct
from sys import intern
from typing import NamedTuple
from zlib import adler32

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.sample_json import shorten
from rlaifv_pl.data.schema import is_image_member

_BLOCK = 512
_STRETCH = 2**20
_FIELDS = Struct("100s 24x 12s 12x 8s c 100s 6s 82x 155s 12x")
"""Name, size, checksum, type, link name, magic and prefix of a header."""
_USTAR = b"ustar\0"
_PLAIN_TYPES = (b"0", b"\0")
_HARD_LINK = b"1"
_NO_PAYLOAD_TYPES = (b"1", b"2", b"3", b"4", b"5", b"6")
"""Links, devices, directories, pipes: what follows their header is the next header."""


class Extent(NamedTuple):
    """Place of a member's content in its tar, in bytes."""

    offset: int
    size: int


class Entry(NamedTuple):
    """The members of one key, in the order of the tar."""

    key: str
    members: dict[str, Extent]
    """By extension: what follows the first dot of the member's name."""


class Shared(NamedTuple):
    """Images of a tar that are links to an earlier one."""

    images: int
    bytes: int
    """That a file for each would hold."""


_Member = tuple[str, str | None, int, int]
"""Name; the name that it links to, empty for a regular file, None for what is neither; and its extent. A plain tuple,
as is all that is held of a tar: the garbage collector would take longer to look through named ones than it takes to
read them."""


class TarIndex(Sequence[Entry]):
    """The samples of a tar in file order, each put together when it is asked for.

    Members are gathered by key, as webdataset does: what precedes the first dot of the name.

    Args:
        members: of the tar.
        where: the tar.

    Raises:
        BadSample: `foreign_member`, `bad_link`, `duplicate_member` or `duplicate_key`, as of `index_tar`.
    """

    def __init__(self, members: Iterable[_Member], where: str) -> None:
        self._keys: list[str] = []
        self._extensions: list[str] = []
        self._firsts, self._offsets, self._sizes = array("q"), array("q"), array("q")
        links: set[int] = set()
        places: dict[str, int] = {}
        for name, link, offset, size in members:
            key, dot, extension = name.partition(".")
            if link is None or "/" in name or not (key and dot and extension):
                detail = f"{shorten(name)} is no regular file named <key>.<extension>"
                raise BadSample(Reason.FOREIGN_MEMBER, where, detail)
            if not self._keys or self._keys[-1] != key:
                if key in places:
                    detail = f"the members of sample {shorten(key)} do not lie together"
                    raise BadSample(Reason.DUPLICATE_KEY, where, detail)
                places[key] = len(self._keys)
                self._keys.append(key)
                self._firsts.append(len(self._extensions))
            elif extension in self._extensions[self._firsts[-1] :]:
                raise BadSample(Reason.DUPLICATE_MEMBER, where, f"{shorten(name)} comes twice")
            if link:
                at = self._follow(name, link, places, where)
                if at in links:
                    raise _bad_link(name, link, "that is a link itself", where)
                offset, size = self._offsets[at], self._sizes[at]
                links.add(len(self._extensions))
            self._extensions.append(intern(extension))
            self._offsets.append(offset)
            self._sizes.append(size)
        self._firsts.append(len(self._extensions))
        self.shared = Shared(len(links), sum(self._sizes[at] for at in links))

    def _follow(self, name: str, link: str, places: Mapping[str, int], where: str) -> int:
        """Return the index of the earlier image that a member links to."""
        key, _, extension = link.partition(".")
        if not is_image_member(name.partition(".")[2]) or not is_image_member(extension):
            raise _bad_link(name, link, "only images may be links, and to images alone", where)
        if (at := self._find(places.get(key), extension)) is None:
            raise _bad_link(name, link, "no member before it has this name", where)
        return at

    def _find(self, number: int | None, extension: str) -> int | None:
        """Return the index of the member of an entry with an extension; None without one."""
        if number is None:
            return None
        ends = [*self._firsts[number + 1 : number + 2], len(self._extensions)]
        own = self._extensions[self._firsts[number] : ends[0]]
        return self._firsts[number] + own.index(extension) if extension in own else None

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Entry:
        index = range(len(self))[index]
        own = slice(self._firsts[index], self._firsts[index + 1])
        extents = map(Extent, self._offsets[own], self._sizes[own])
        return Entry(self._keys[index], dict(zip(self._extensions[own], extents, strict=True)))


def _bad_link(name: str, link: str, why: str, where: str) -> BadSample:
    return BadSample(Reason.BAD_LINK, where, f"{shorten(name)} links to {shorten(link)}, but {why}")


def index_tar(path: str | Path) -> TarIndex:
    """List the samples of an uncompressed tar in file order.

    A tar as `ShardWriter` writes it is walked at about 200,000 members a second; one with pax or GNU
    headers goes through the slower `tarfile`.

    Raises:
        BadSample: `truncated_shard` if a member or the end mark is cut off, `corrupt_shard` if a
            header's checksum is wrong, `foreign_member` for symbolic links, directories and names with a
            path or no extension, `bad_link` for a hard link to anything but an earlier image that is a file,
            `duplicate_member`, `duplicate_key` if a key's members do not lie together.
    """
    with open(path, "rb", buffering=0) as file:
        members = _walk(file.fileno(), str(path))
    return TarIndex(_walk_slowly(path) if members is None else members, str(path))


def _walk(descriptor: int, where: str) -> list[_Member] | None:
    """Read plain ustar headers; None if there is any other."""
    size = os.fstat(descriptor).st_size
    members = []
    position = 0
    while True:
        header = os.pread(descriptor, _BLOCK, position)
        if len(header) < _BLOCK:
            raise BadSample(Reason.TRUNCATED_SHARD, where, f"the tar ends at byte {size} without an end mark")
        if not any(header):
            _check_rest(descriptor, position, where)
            return members
        name, digits, checksum, kind, target, magic, prefix = _FIELDS.unpack(header)
        if _octal(checksum) != _checksum(header):
            raise BadSample(Reason.CORRUPT_SHARD, where, f"byte {position} starts no tar header")
        is_file = kind in _PLAIN_TYPES
        length = _octal(digits) if is_file else 0
        if length is None or not (is_file or kind in _NO_PAYLOAD_TYPES):
            return None
        name = _member_name(name, prefix if magic == _USTAR else b"")
        start = position + _BLOCK
        if start + length > size:
            detail = f"member {name!r} needs {start + length} bytes, the file has {size}"
            raise BadSample(Reason.TRUNCATED_SHARD, where, detail)
        is_link = kind == _HARD_LINK and _octal(digits) == 0
        link = "" if is_file else _member_name(target, b"") or None if is_link else None
        members.append((name, link, start, length))
        position = start + -(-length // _BLOCK) * _BLOCK


def _check_rest(descriptor: int, position: int, where: str) -> None:
    """Refuse data behind the end mark: the mark would be a lost header, and members behind it lost with it."""
    while rest := os.pread(descriptor, _STRETCH, position):
        if any(rest):
            raise BadSample(
                Reason.CORRUPT_SHARD, where, f"the tar goes on after an end mark at byte {position}"
            )
        position += len(rest)


def _checksum(header: bytes) -> int:
    """Return the checksum of a header: the sum of its bytes, with spaces in place of the checksum."""
    # The lower half of Adler-32 is one more than the sum of the bytes, modulo 65521: of 256 bytes, the sum itself.
    parts = adler32(header[:148]), adler32(header[156:412]), adler32(header[412:])
    return (parts[0] & 0xFFFF) + (parts[1] & 0xFFFF) + (parts[2] & 0xFFFF) - 3 + 8 * ord(" ")


def _octal(field: bytes) -> int | None:
    """Parse a number of a header; None for others, such as sizes beyond 8 GiB, which are binary."""
    digits = field.strip(b"\0 ")
    # int() would take a sign too, and a negative size would lead the walk in circles.
    if not digits.isdigit():
        return None
    try:
        return int(digits, 8)
    except ValueError:
        return None


def _member_name(name: bytes, prefix: bytes) -> str:
    name, prefix = name.partition(b"\0")[0], prefix.partition(b"\0")[0]
    return (prefix + b"/" + name if prefix else name).decode(errors="replace")


def _walk_slowly(path: str | Path) -> list[_Member]:
    """Read any header that the standard library knows; measured 5 times slower than `_walk`."""
    where = str(path)
    try:
        with tarfile.open(path, "r:") as tar:
            descriptor = tar.fileobj.fileno()  # type: ignore[attr-defined]
            size = os.fstat(descriptor).st_size
            members = [_from_tarinfo(info, size, where) for info in tar]
            # tarfile takes a broken header for the end: the end mark tells them apart.
            end = os.pread(descriptor, _BLOCK, tar.offset)
            if len(end) == _BLOCK and not any(end):
                _check_rest(descriptor, tar.offset, where)
    except BadSample:
        raise
    except Exception as error:
        # On broken headers tarfile raises whatever it stumbles over: TarError, ValueError, OverflowError,
        # RecursionError, MemoryError. Any of them means the same to us.
        detail = f"the tar is cut or corrupt: {shorten(str(error) or type(error).__name__, length=200)}"
        raise BadSample(Reason.CORRUPT_SHARD, where, detail) from error
    if len(end) < _BLOCK:
        raise BadSample(Reason.TRUNCATED_SHARD, where, "the tar ends without an end mark")
    if any(end):
        raise BadSample(Reason.CORRUPT_SHARD, where, "the tar goes on after a broken header")
    return members


def _from_tarinfo(info: tarfile.TarInfo, end: int, where: str) -> _Member:
    # At once: a negative size leads tarfile in circles.
    if info.size < 0 or info.offset_data + info.size > end:
        detail = f"member {shorten(info.name)} claims {info.size} bytes from byte {info.offset_data} on"
        raise BadSample(Reason.CORRUPT_SHARD, where, f"{detail}, the file has {end}")
    # A sparse file is regular to tarfile, but its bytes do not lie in one piece.
    is_file = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse()
    link = "" if is_file else info.linkname or None if info.islnk() and not info.size else None
    return info.name, link, info.offset_data, info.size
