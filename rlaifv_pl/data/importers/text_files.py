"""Text files of unknown encoding, plain or compressed."""

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, TextIO

COMPRESSIONS: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_ESCAPED = re.compile("[\udc80-\udcff]")
"""A byte that is no UTF-8, by Python's `surrogateescape`."""
_SURROGATE = re.compile("\udced[\udca0-\udcbf]")
"""The first two bytes of half a surrogate pair, as some programs write characters beyond 16 bits."""


def open_text(path: Path, newline: str | None = None) -> TextIO:
    """Open a file as text: UTF-8, or UTF-16 or UTF-32 where its first bytes say so.

    Bytes that are no UTF-8 come as escapes, for `explain_encoding`.
    """
    opened: Callable[..., IO[bytes]] = COMPRESSIONS.get(path.suffix.lower(), open)
    file = opened(path, "rb")
    encoding = json.detect_encoding(file.read(4))
    file.seek(0)
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    return TextIOWrapper(file, encoding, errors, newline)


def explain_encoding(text: str, line: int = 1) -> str | None:
    """Name the first byte of a text that is no UTF-8, and the cure; None where there is none.

    Args:
        line: number of the text's first line in its file.
    """
    if (found := _ESCAPED.search(text)) is None:
        return None
    line += text.count("\n", 0, found.start())
    if _SURROGATE.match(text, found.start()):
        return (
            f"line {line}: the bytes of half a character (a surrogate) are no UTF-8. Have the program that wrote the "
            "file write whole characters, or remove it"
        )
    return (
        f"line {line}: the byte 0x{ord(found[0]) - 0xDC00:02X} is no UTF-8. If the file is in Latin-1 or "
        "Windows-1252, convert it first: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
    )
