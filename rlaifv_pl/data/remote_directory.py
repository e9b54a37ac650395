"""Directories behind URLs: their files opened at any byte, with a named cause for each failure."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp
import fsspec
from fsspec.implementations.local import LocalFileSystem

from rlaifv_pl.errors import UserError

BLOCK_BYTES = 2**23
"""Size of a request, where a file is not read as a stream."""
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]*://")
_QUOTED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]*")
_SENT_AS_IS = re.compile(r"[!-~]+")
_PASSING = {408, 425, 429}
"""HTTP status codes of transient refusals, beside those of 500 and more."""


class RemoteError(UserError, RuntimeError):
    """Remote shards cannot be had; the message says which, what was expected, what came, and what to do."""


class FaultCause(NamedTuple):
    """A kind of fault."""

    attempts: int
    """Attempts after which it counts as permanent."""
    remedy: str


BROKEN = FaultCause(
    1000, "Look at the network and the server, and run the same command again: what came so far is kept."
)
WRONG = FaultCause(
    2,
    "It was replaced after its manifest was written, or is being copied there just now. Put the file there that "
    "the manifest describes, or write the shards again, to a directory of their own.",
)
MISSING = FaultCause(
    1, "Name the directory that holds manifest.json with its tars beside it, and copy what is missing."
)
DENIED = FaultCause(1, "Look at the credentials: shards/README.md says where they are taken from.")
REFUSED = FaultCause(1, "Look at the URL.")


class RemoteFault(Exception):
    """Failure of one attempt.

    Attributes:
        cause: decides whether another one is made.
        detail: what was expected and what came, without secrets.
        pause: seconds that the server asks to wait.
        reached: bytes of the file that are there.
    """

    def __init__(self, cause: FaultCause, detail: str, pause: float = 0.0) -> None:
        super().__init__(cause, detail, pause)
        self.cause, self.detail, self.pause, self.reached = cause, detail, pause, 0


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Timeouts, and how often a failed download is repeated."""

    attempts: int = 5
    """Failed attempts in a row without progress, before a download is given up."""
    connect: float = 30.0
    """Longest seconds until a connection is made."""
    stall: float = 60.0
    """Longest seconds without a byte."""
    pause: float = 1.0
    """Seconds before the second attempt, more or less; twice as many before each next one."""


def is_url(path: str | Path) -> bool:
    """Return whether shards lie behind a URL, and not at a path.

    >>> [is_url(path) for path in ("s3://bucket/shards", "shards/mine", "C:/shards")]
    [True, False, False]
    """
    return isinstance(path, str) and _URL.match(path) is not None


def redact(text: str) -> str:
    """Return a text without the secrets that its URLs may hold: users with passwords, and queries.

    >>> redact("no answer from https://me:secret@host/dir?token=secret")
    'no answer from https://***@host/dir?***'
    """
    return _QUOTED.sub(lambda match: _redact_url(match[0]), text)


def _redact_url(url: str) -> str:
    # Of a chain of URLs, each may have them.
    return re.sub(r"[?#].*", "?***", re.sub(r"://[^/]*@", "://***@", url))


class OpenStream(NamedTuple):
    """A file that is being read."""

    start: int
    """Byte that it is read from: that which was asked for, or 0 where the server knows no other."""
    chunks: Iterator[bytes]


class RemoteDirectory:
    """A directory behind a URL of any kind that fsspec knows.

    Args:
        url: of the directory.
        patience: with its server; other kinds than HTTP have timeouts of their own.

    Raises:
        RemoteError: the kind of URL is unknown, or its package is not installed.
    """

    def __init__(self, url: str, patience: RetryPolicy) -> None:
        self.patience, self.shown = patience, redact(url)
        self._is_http = re.match(r"https?://", url, re.IGNORECASE) is not None
        try:
            self._files, self._path = self._connect(url)
        except ImportError as error:
            name = url.split(":")[0]
            raise RemoteError(
                f"{self.shown} cannot be read: {redact(str(error))}. For {name}://, "
                f'pip install "rlaifv-pl[{name}]" or the package that is named.'
            ) from None
        except Exception as error:
            raise RemoteError(
                f"{self.shown} cannot be read: {redact(str(error))}. {REFUSED.remedy}"
            ) from None
        self._files.invalidate_cache()

    @property
    def local(self) -> Path | None:
        """Local path, or None if the URL is remote."""
        return Path(self._path) if isinstance(self._files, LocalFileSystem) else None

    @property
    def name(self) -> str:
        """Last part of the URL, as part of a file's name."""
        path = urlsplit(self._path).path if self._is_http else re.split(r"[?#]", self._path)[0]
        last = unquote(path).rstrip("/").rpartition("/")[2].rpartition("@")[2]
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", last)
        return plain.strip("-")[:40] or "shards"

    def show(self, name: str) -> str:
        """Return the URL of a file, for messages."""
        return redact(self._join(self.shown, name))

    @contextmanager
    def open(self, name: str, start: int, size: int | None = None) -> Iterator[OpenStream]:
        """Read a file from a byte on.

        Args:
            name: of the file in the directory.
            start: the byte.
            size: of the whole file, if it is known.

        Raises:
            Fault: it cannot be read, or the server speaks of another size.
        """
        path = self._join(self._path, name)
        how: dict[str, Any] = {"block_size": BLOCK_BYTES}
        if self._is_http:
            asked = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
            # As a stream: with a size of its own, no other request comes first.
            how = {"block_size": 0, "size": 1, "headers": asked}
        with self._attempt(self._files.open, path, "rb", **how) as file:
            if self._is_http:
                start = _check_reply(file.r, start, size)
            elif start:
                self._attempt(file.seek, start)
            yield OpenStream(start, self._chunks(file))

    def _chunks(self, file: Any) -> Iterator[bytes]:
        while chunk := self._attempt(file.read, BLOCK_BYTES):
            yield chunk

    def _connect(self, url: str) -> tuple[fsspec.AbstractFileSystem, str]:
        if not self._is_http:
            return fsspec.url_to_fs(url)
        limits = aiohttp.ClientTimeout(
            total=None, connect=self.patience.connect, sock_read=self.patience.stall
        )
        client = {"timeout": limits, "trust_env": True, "requote_redirect_url": False}
        # As it is, where it may be: a signature can be of every character.
        how = {"client_kwargs": client, "encoded": _SENT_AS_IS.fullmatch(url) is not None}
        return fsspec.filesystem("http", **how), url

    def _join(self, directory: str, name: str) -> str:
        if not self._is_http:
            return f"{directory.rstrip('/')}/{name}"
        # A query stays behind the path: it may be what opens the door.
        parts = urlsplit(directory)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))

    def _attempt(self, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return work(*args, **options)
        except Exception as error:
            # Without its cause, which would spell out the URL.
            raise self._explain(error) from None

    def _explain(self, error: Exception) -> RemoteFault:
        if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
            return RemoteFault(MISSING, "there is no such file")
        if isinstance(error, aiohttp.TooManyRedirects):
            return RemoteFault(REFUSED, "the server sends from one address to the next without end")
        if isinstance(error, aiohttp.ClientResponseError):
            return _explain_status(error)
        if isinstance(error, TimeoutError):
            limits = f"{self.patience.connect:g} seconds to connect, {self.patience.stall:g} between bytes"
            return RemoteFault(BROKEN, f"nothing came in time ({limits})")
        if isinstance(error, aiohttp.ClientPayloadError):
            return RemoteFault(BROKEN, "the connection was cut")
        said = f"{type(error).__name__}: {redact(str(error))}"
        # Of all the libraries behind fsspec, not all make theirs a PermissionError.
        if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
            return RemoteFault(DENIED, said)
        is_ours = isinstance(error, ValueError | TypeError | NotImplementedError)
        return RemoteFault(REFUSED if is_ours else BROKEN, said)


def _explain_status(error: aiohttp.ClientResponseError) -> RemoteFault:
    detail = f"the server answers {error.status}"
    if error.status in (401, 403):
        return RemoteFault(DENIED, detail)
    if error.status in _PASSING or error.status >= 500:
        asked = error.headers.get("Retry-After", "") if error.headers else ""
        return RemoteFault(BROKEN, detail, pause=float(asked) if asked.isdecimal() else 0.0)
    # The file there is shorter than what is here of it.
    return RemoteFault(WRONG if error.status == 416 else REFUSED, detail)


def _check_reply(reply: aiohttp.ClientResponse, start: int, size: int | None) -> int:
    """The byte from which a server sends, once it speaks of the right file."""
    sent = re.fullmatch(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)", reply.headers.get("Content-Range", ""))
    first = int(sent[1]) if reply.status == 206 and sent else 0
    if reply.status == 206 and first != start:
        raise RemoteFault(WRONG, f"expected bytes from {start} on, the server sends {first} and on")
    whole = sent[2] if first and sent else reply.headers.get("Content-Length", "")
    is_plain = "Content-Encoding" not in reply.headers and whole.isdecimal()
    if size is not None and is_plain and int(whole) != size:
        raise RemoteFault(WRONG, f"expected {size} bytes, the server has {whole}")
    return first
