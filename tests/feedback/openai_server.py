"""A chat completions server on 127.0.0.1 whose answers depend on the request alone, and which can misbehave."""

import hashlib
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


def answer(body: Body) -> str:
    """What the server says to a request: two words that any change of the request changes."""
    return f"answer {hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]}"


def completion(content: str | None, finish: str = "stop", logprobs: Any = None, **message: Any) -> Body:
    """A reply as the vendor's."""
    said = {"role": "assistant", "content": content, **message}
    choice = {"index": 0, "message": said, "finish_reason": finish, "logprobs": logprobs}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "choices": [choice]}


def tokens(shares: dict[str, float]) -> Body:
    """Log-ps of the first token."""
    top = [{"token": token, "logprob": math.log(share), "bytes": None} for token, share in shares.items()]
    return {"content": [{**top[0], "top_logprobs": top}], "refusal": None}


def regular(body: Body) -> Body:
    """What a server without faults replies."""
    said = answer(body)
    if body.get("logprobs"):
        yes = int(said[-4:], 16) / 70000 + 0.01
        return completion("Yes", logprobs=tokens({"Yes": yes, " no": 0.99 - yes}))
    if "response_format" in body:
        return completion(json.dumps({"words": said.split(), "right": True}))
    return completion(said)


Fault = Callable[["Handler", Body], None]


def status(code: int, message: str = "no", **headers: str) -> Fault:
    """A refusal."""
    return lambda handler, _: handler.reply({"error": {"message": message, "code": None}}, code, headers)


def says(reply: Body | str) -> Fault:
    """Something else than the regular answer."""
    return lambda handler, _: handler.reply(reply)


def hang_up(handler: "Handler", body: Body) -> None:
    """Close the connection without a reply."""
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def half(handler: "Handler", body: Body) -> None:
    """Promise the whole reply and send half of it."""
    raw = json.dumps(regular(body)).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(raw)))
    handler.end_headers()
    handler.wfile.write(raw[: len(raw) // 2])
    handler.wfile.flush()
    hang_up(handler, body)


def trickle(handler: "Handler", body: Body) -> None:
    """Never quite stop sending, so that no single read takes long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def slow(seconds: float) -> Fault:
    """The regular answer, later."""

    def wait(handler: "Handler", body: Body) -> None:
        time.sleep(seconds)
        handler.reply(regular(body))

    return wait


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: "ChatServer"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.seen(body, self.headers["Authorization"]) as time_of_body:
            fault = self.server.plan(body, time_of_body)
            try:
                fault(self, body) if fault else self.reply(regular(body))
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    def reply(self, body: Body | str, code: int = 200, headers: dict[str, str] | None = None) -> None:
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class ChatServer(ThreadingHTTPServer):
    """Serves from a thread of its own while it is entered.

    `plan(body, time)` gives the fault with which the `time`-th request of that body is met, from 0 on, or None.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: Callable[[Body, int], Fault | None] = lambda body, time: None
        self.bodies: list[Body] = []
        self.keys: set[str] = set()
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @contextmanager
    def seen(self, body: Body, key: str) -> Iterator[int]:
        """Count a request while it is under way; yields how often its body came before."""
        with self._lock:
            before = self.bodies.count(body)
            self.bodies.append(body)
            self.keys.add(key)
            self._now += 1
            self.most = max(self.most, self._now)
        yield before
        with self._lock:
            self._now -= 1

    def handle_error(self, *_: Any) -> None:
        """Clients that give up are what is tested."""

    def __enter__(self) -> "ChatServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.shutdown()
        self.server_close()
