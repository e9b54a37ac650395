"""A server of files on 127.0.0.1 that can misbehave in all the ways a transfer can break."""

import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

Fault = Callable[["Handler", bytes], None]


def status(code: int, **headers: str) -> Fault:
    """A refusal."""

    def refuse(handler: "Handler", _: bytes) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return refuse


def to(place: str) -> Fault:
    """A redirect."""
    return status(302, Location=place)


def cut(after: int) -> Fault:
    """Promise the rest of the file, and hang up after some bytes of it."""

    def send(handler: "Handler", data: bytes) -> None:
        body = handler.begin(data)
        handler.wfile.write(body[:after])
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    return send


def stall(handler: "Handler", data: bytes) -> None:
    """Begin, and say no more while the client listens."""
    handler.wfile.write(handler.begin(data)[:1000])
    handler.wfile.flush()
    handler.server.closing.wait(10)
    handler.close_connection = True


def trickle(handler: "Handler", data: bytes) -> None:
    """Never quite stop sending, so that no single read takes long."""
    for byte in handler.begin(data):
        handler.wfile.write(bytes([byte]))
        if handler.server.closing.wait(0.02):
            break
    handler.close_connection = True


def slow(seconds: float) -> Fault:
    """The right bytes, over some time."""

    def send(handler: "Handler", data: bytes) -> None:
        body = handler.begin(data)
        step = len(body) // 20 + 1
        for first in range(0, len(body), step):
            handler.wfile.write(body[first : first + step])
            time.sleep(seconds / 20)

    return send


def announces(length: int) -> Fault:
    """Another length than that of the file."""

    def send(handler: "Handler", data: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(data[:length])
        handler.close_connection = True

    return send


def sends(make: Callable[[bytes], bytes]) -> Fault:
    """Other bytes, without a word on how many: they end with the connection."""

    def send(handler: "Handler", data: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(make(data))
        handler.close_connection = True

    return send


def endless(handler: "Handler", data: bytes) -> None:
    """The file, and no end to what comes behind it."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(data)
    while not handler.server.closing.is_set():
        handler.server.excess += handler.wfile.write(bytes(2**16))


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: "FileServer"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.lstrip("/")
        with self.server.lock:
            before = self.server.gets[Path(path).name]
            self.server.gets[Path(path).name] += 1
            self.server.requests.append((self.path, self.headers.get("Authorization")))
        try:
            fault = self.server.plan(Path(path).name, before)
            file = self.server.root / path
            data = file.read_bytes() if file.is_file() else None
            if fault:
                fault(self, data or b"")
            elif data is None:
                status(404)(self, b"")
            else:
                self.wfile.write(self.begin(data))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do_HEAD(self) -> None:
        file = self.server.root / urlsplit(self.path).path.lstrip("/")
        self.send_response(200 if file.is_file() else 404)
        self.send_header("Content-Length", str(file.stat().st_size if file.is_file() else 0))
        self.end_headers()

    def begin(self, data: bytes) -> bytes:
        """Send the headers of the file, or of the range that was asked for; gives what is to be sent."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not (asked and self.server.knows_ranges):
            asked = None
        body = data[int(asked[1]) : int(asked[2] or len(data)) + 1] if asked else data
        self.send_response(206 if asked else 200)
        if asked:
            start = int(asked[1])
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(data)}")
            self.server.resumed.append(start)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return body

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class FileServer(ThreadingHTTPServer):
    """Serves a directory from a thread of its own while it is entered.

    `plan(name, time)` gives the fault with which the `time`-th request for a file of that name is met, from 0 on,
    or None.
    """

    daemon_threads = True
    request_queue_size = 64
    block_on_close = False

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.knows_ranges = root, True
        self.plan: Callable[[str, int], Fault | None] = lambda name, time: None
        self.gets: Counter[str] = Counter()
        self.requests: list[tuple[str, str | None]] = []
        self.resumed: list[int] = []
        self.excess = 0
        self.lock, self.closing = threading.Lock(), threading.Event()

    @property
    def place(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server_address[1]}"

    def url(self, directory: str = "") -> str:
        """Of a directory under the root."""
        return f"http://{self.place}/{directory}"

    def on(self, name: str, *faults: Fault | None) -> None:
        """Meet the first requests for a file with these, and all later ones with the last."""
        self.plan = lambda asked, time: faults[min(time, len(faults) - 1)] if asked == name else None

    def handle_error(self, *_: object) -> None:
        """Clients that give up are what is tested."""

    def __enter__(self) -> "FileServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()
