"""Where each member of a tar lies, found by walking its headers.

Reading the headers alone makes the samples of a shard accessible in any order, without unpacking it
and without an index file that could go stale.
"""

import os
import re
import tarfile
from pathlib import Path
from typing import NamedTuple

from rlaifv_pl.data.faults import BadSample, Reason

_BLOCK = 512
_OCTAL = re.compile(rb"[0-7]+")
_PLAIN_TYPES = (b"0", b"\0")
_NO_PAYLOAD_TYPES = (b"1", b"2", b"3", b"4", b"5", b"6")
"""Links, devices, directories, pipes: what follows their header is the next header."""


class Extent(NamedTuple):
    """Where the content of a member lies in its tar, in bytes."""

    offset: int
    size: int


class Entry(NamedTuple):
    """The members of one key, in the order of the tar."""

    key: str
    members: dict[str, Extent]
    """By extension: what follows the first dot of the member's name."""


class _Member(NamedTuple):
    name: str
    is_file: bool
    extent: Extent


def index_tar(path: str | Path) -> list[Entry]:
    """List the samples of an uncompressed tar in file order.

    A tar as `ShardWriter` writes it is walked at about 100,000 members a second; one with pax or GNU
    headers goes through the slower `tarfile`.

    Raises:
        BadSample: `truncated_shard` if a member or the end mark is cut off, `corrupt_shard` if a
            header's checksum is wrong, `foreign_member` for links, directories and names with a path
            or no extension, `duplicate_member`, `duplicate_key` if a key's members do not lie together.
    """
    with open(path, "rb", buffering=0) as file:
        members = _walk(file.fileno(), str(path))
    return _group(_walk_slowly(path) if members is None else members, str(path))


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
            return members
        _check_header(header, position, where)
        kind = header[156:157]
        length = 0 if kind in _NO_PAYLOAD_TYPES else _octal(header[124:136])
        if kind not in _PLAIN_TYPES + _NO_PAYLOAD_TYPES or length is None:
            return None
        extent = Extent(position + _BLOCK, length)
        name = _member_name(header)
        if extent.offset + length > size:
            detail = f"member {name!r} needs {extent.offset + length} bytes, the file has {size}"
            raise BadSample(Reason.TRUNCATED_SHARD, where, detail)
        members.append(_Member(name, kind in _PLAIN_TYPES, extent))
        position = extent.offset + -(-length // _BLOCK) * _BLOCK


def _check_header(header: bytes, position: int, where: str) -> None:
    """Compare the header's checksum: the sum of its bytes, with spaces in place of the checksum."""
    if _octal(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise BadSample(Reason.CORRUPT_SHARD, where, f"byte {position} starts no tar header")


def _octal(field: bytes) -> int | None:
    """A number of a header; None where it is none, as in sizes beyond 8 GiB, which are binary."""
    digits = field.strip(b"\0 ")
    # int() would take a sign too, and a negative size would lead the walk in circles.
    return int(digits, 8) if _OCTAL.fullmatch(digits) else None


def _member_name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode(errors="replace")


def _walk_slowly(path: str | Path) -> list[_Member]:
    """Read any header that the standard library knows."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = [_from_tarinfo(info) for info in tar]
            # tarfile takes a broken header for the end: the end mark tells them apart.
            end = os.pread(tar.fileobj.fileno(), _BLOCK, tar.offset)
    except tarfile.TarError as error:
        raise BadSample(Reason.CORRUPT_SHARD, str(path), f"the tar is cut or corrupt: {error}") from error
    if len(end) < _BLOCK:
        raise BadSample(Reason.TRUNCATED_SHARD, str(path), "the tar ends without an end mark")
    if any(end):
        raise BadSample(Reason.CORRUPT_SHARD, str(path), "the tar goes on after a broken header")
    return members


def _from_tarinfo(info: tarfile.TarInfo) -> _Member:
    # A sparse file is regular to tarfile, but its bytes do not lie in one piece.
    is_file = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse()
    return _Member(info.name, is_file, Extent(info.offset_data, info.size))


def _group(members: list[_Member], where: str) -> list[Entry]:
    """Gather members by key, as webdataset does: what precedes the first dot of the name."""
    entries: list[Entry] = []
    seen: set[str] = set()
    for member in members:
        key, dot, extension = member.name.partition(".")
        if not member.is_file or "/" in member.name or not (key and dot and extension):
            detail = f"{member.name!r} is no regular file named <key>.<extension>"
            raise BadSample(Reason.FOREIGN_MEMBER, where, detail)
        if not entries or entries[-1].key != key:
            if key in seen:
                raise BadSample(
                    Reason.DUPLICATE_KEY, where, f"the members of sample {key!r} do not lie together"
                )
            seen.add(key)
            entries.append(Entry(key, {}))
        if extension in entries[-1].members:
            raise BadSample(Reason.DUPLICATE_MEMBER, where, f"{member.name!r} comes twice")
        entries[-1].members[extension] = member.extent
    return entries
