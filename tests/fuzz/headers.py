"""Tar headers that are made to trip a reader: sizes, chains, extensions, holes."""

import os
import tarfile
from collections.abc import Callable

from tests.fuzz.base import ALL, Case, Member, headers, members

BLOCK = 512


def header(name: str, kind: bytes, size: bytes, magic: bytes = b"ustar\x0000") -> bytes:
    """A tar header with a right checksum, whatever stands in it."""
    fields = (
        name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0") + b"0" * 11
    )
    fields += b"\0" + b" " * 8 + kind
    block = (fields + bytes(100) + magic).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def octal(size: int) -> bytes:
    """A size as headers have it; in binary where it is negative or beyond 8 GiB."""
    if 0 <= size < 8**11:
        return b"%011o\0" % size
    return (b"\xff" if size < 0 else b"\x80") + (size % 256**11).to_bytes(11)


def pax(text: bytes, kind: bytes = b"x") -> bytes:
    """An extended header."""
    return header("x", kind, octal(len(text))) + text.ljust(-(-len(text) // BLOCK) * BLOCK, b"\0")


def record(name: str, value: str) -> bytes:
    """One line of an extended header."""
    rest = f" {name}={value}\n".encode()
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _sparse(size: int) -> bytes:
    return (
        record("GNU.sparse.major", "1")
        + record("GNU.sparse.minor", "0")
        + record("GNU.sparse.realsize", str(size))
    )


HEADERS: dict[str, Callable[[Case], bytes]] = {
    "pax size beyond the file": lambda case: pax(record("size", str(10**9))),
    "pax size beyond any file": lambda case: pax(record("size", str(10**25))),
    "negative pax size": lambda case: pax(record("size", "-1024")),
    "pax size of letters": lambda case: pax(record("size", "many")),
    "pax size too small": lambda case: pax(record("size", "1")),
    "pax path outside": lambda case: pax(record("path", "../canary/secret.json")),
    "pax path of another sample": lambda case: pax(record("path", "s99.json")),
    "long pax path": lambda case: pax(record("path", "k" * 300_000 + ".json")),
    "pax record of no length": lambda case: pax(b"0 path=a.json\n"),
    "pax record that is cut": lambda case: pax(b"30 path=a"),
    "pax record that is noise": lambda case: pax(case.rng.randbytes(100)),
    "pax for all": lambda case: pax(record("path", "s1.json"), kind=b"g"),
    "huge pax": lambda case: header("x", b"x", octal(2**33)),
    "pax beyond any memory": lambda case: header("x", b"x", octal(2**80)),
    "pax of negative size": lambda case: header("x", b"x", octal(-512)),
    "empty pax": lambda case: pax(b""),
    "sparse without a map": lambda case: pax(_sparse(9)),
    "sparse of a broken map": lambda case: pax(_sparse(9) + record("GNU.sparse.map", "0,x,1")),
    "sparse of many parts": lambda case: pax(_sparse(9) + record("GNU.sparse.numblocks", "9" * 30)),
    "old sparse": lambda case: header("s1.json", b"S", octal(BLOCK), b"ustar  \0") + b"9" * BLOCK,
    "huge long name": lambda case: header("x", b"L", octal(2**33)),
    "long name of no end": lambda case: header("x", b"L", octal(-(2**40))),
    "empty long name": lambda case: header("x", b"L", octal(0)),
    "chain of long names": lambda case: (header("x", b"L", octal(1)) + b"a".ljust(BLOCK, b"\0")) * 2000,
    "chain of pax": lambda case: pax(record("path", "s9.json")) * 2000,
    "size of letters": lambda case: header("s9.json", b"0", b"many"),
    "negative size": lambda case: header("s9.json", b"0", octal(-BLOCK)),
    "negative octal size": lambda case: header("s9.json", b"0", b"-0000001000"),
    "size beyond the file": lambda case: header("s9.json", b"0", octal(2**40)),
    "size beyond any file": lambda case: header("s9.json", b"0", octal(2**86)),
    "size of a directory": lambda case: header("s9", b"5", octal(2**40)),
    "size of a link": lambda case: header("s9.jpg", b"2", octal(2**40)),
    "unknown kind": lambda case: header("s9.json", case.rng.randbytes(1), octal(BLOCK)),
}


def headed(case: Case) -> None:
    """A header that plain tars do not have, in front of one of a sample."""
    path = case.tar()
    data = path.read_bytes()
    with tarfile.open(path, "r:") as tar:
        at = case.rng.choice([info.offset for info in headers(tar)])
    name = case.pick(HEADERS)
    path.write_bytes(data[:at] + HEADERS[name](case) + data[at:])
    case.touched.add(ALL)
    case.note(f"{name} at byte {at} of {path.name}")


def holed(case: Case) -> None:
    """A member of gigabytes that takes no room on the disk."""
    path, size = case.tar(), case.rng.choice([2**26, 2**29])
    name = case.rng.choice(["s99.json", "s99.png"])
    kept = b"".join(_plain(member) for member in members(path))
    with open(path, "wb") as file:
        file.write(kept + (_plain(Member("s99.json", b'{"prompt": "?"}')) if name != "s99.json" else b""))
        file.write(header(name, b"0", octal(size)))
        file.seek(size + 2 * BLOCK, os.SEEK_CUR)
        file.truncate()
    case.touched.add(ALL)
    case.note(f"{name} of {size} bytes in {path.name}")


def _plain(member: Member) -> bytes:
    return header(member.name, b"0", octal(len(member.data))) + member.data.ljust(
        -(-len(member.data) // BLOCK) * BLOCK, b"\0"
    )
