"""Requests to servers that may be slow, busy, broken or gone: retries, backoff, and errors with a remedy."""

import asyncio
import os
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from rlaifv_pl.feedback.engines.engine import EngineError
from rlaifv_pl.feedback.engines.requests import import_openai
from rlaifv_pl.feedback.engines.responses import ChatCompletion, Choice

VENDOR = "api.openai.com"
LONGEST_BACKOFF = 60.0
"""Seconds; a server that names a time itself may ask for up to `LONGEST_PAUSE`."""
LONGEST_PAUSE = 3600.0
SHOWN = 300
"""Characters of a server's own words in an error."""

PASSING = {408, 409, 429}
"""Refusals that may be over when asked again, besides all of 500 and above."""

REMEDIES = {
    401: "Set the environment variable that `api_key_env` names to a key of this server.",
    403: "Use a key that may use this model, or another `model`.",
    404: "Give `model` as the server lists it under /models, and a `base_url` that ends where its API begins, mostly "
    "in /v1.",
    413: "Store smaller images.",
    429: "Lower `concurrency`, raise `retries`, or see to the account's quota.",
}
REFUSED = (
    "The request itself is refused: read the server's words, and change `model`, `answers` or `structured`, or leave "
    "out and replace fields with `extra`."
)
BROKEN = "Look at the server's own log and start it again."


Complete = Callable[[int, Mapping[str, Any], str], Awaitable[Choice]]
"""From the number of the server that is asked first, a request's body, and what it is about, to the answer.
Raises EngineError when none came, however often it was tried."""


@dataclass(slots=True)
class ServerFault(Exception):
    """A failed try."""

    got: str
    """The server's reply instead of an answer."""
    remedy: str
    passing: bool = True
    """Whether it may work when it is tried again."""
    pause: float = 0.0
    """Seconds that the server asks to be left alone."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Servers of one model, and the retry policy.

    Args:
        base_urls: of the API, on one server or on several; what fails on one is tried again on the next.
        api_key_env: name of the environment variable with the key, or None for none.
        timeout: seconds for one try, from connecting to the last byte.
        retries: tries after the first.
        backoff: seconds; try n follows after a random time of up to backoff * 2**(n-1), at most
            `LONGEST_BACKOFF`, and not before the server's own `Retry-After`.
    """

    base_urls: Sequence[str]
    api_key_env: str | None
    timeout: float
    retries: int
    backoff: float

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Complete]:
        """Give a function that asks for completions, within one event loop.

        Raises:
            EngineError: the `openai` package is missing, or the vendor is asked without a key.
        """
        openai = import_openai()
        key = self._key
        if not key and VENDOR in [urlsplit(url).hostname for url in self.base_urls]:
            raise EngineError(f"{VENDOR} wants a key: set the environment variable {self.api_key_env}.")
        async with AsyncExitStack() as open_clients:
            clients = [
                # The client insists on some key, and would repeat requests by a policy of its own.
                await open_clients.enter_async_context(
                    openai.AsyncOpenAI(
                        base_url=url, api_key=key or "none", timeout=self.timeout, max_retries=0
                    )
                )
                for url in self.base_urls
            ]
            yield partial(self._complete, clients)

    async def _complete(
        self, clients: Sequence[Any], first: int, body: Mapping[str, Any], where: str
    ) -> Choice:
        for tried in range(self.retries + 1):
            number = (first + tried) % len(clients)
            try:
                return await self._try(clients[number], body)
            except ServerFault as fault:
                last = fault
            if not last.passing:
                break
            if tried < self.retries:
                # All of the range, so that those who failed together do not come back together.
                backoff = random.uniform(0, min(self.backoff * 2**tried, LONGEST_BACKOFF))
                await asyncio.sleep(max(backoff, last.pause))
        raise EngineError(
            f"{where}: expected a chat completion of {body['model']} from {self.base_urls[number]}, got {last.got} "
            f"(tries: {tried + 1}). {last.remedy} Answers that came are kept where the engine has a `cache`."
        )

    async def _try(self, client: Any, body: Mapping[str, Any]) -> Choice:
        import openai

        # The client checks the names of all other fields against the vendor's.
        known = {name: body[name] for name in ("model", "messages")}
        others = {name: value for name, value in body.items() if name not in known}
        try:
            # The client's own limit is one for each read: a server that trickles would never reach it.
            async with asyncio.timeout(self.timeout):
                reply = await client.chat.completions.with_raw_response.create(**known, extra_body=others)
            return ChatCompletion.model_validate_json(reply.content).choices[0]
        except (TimeoutError, openai.APITimeoutError):
            raise ServerFault(
                f"nothing within {self.timeout:g} seconds", "Raise `timeout` or lower `concurrency`."
            ) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise ServerFault(
                f"no connection, or one that broke ({type(cause).__name__}: {self._words(str(cause))})",
                "Check that the server is up and that `base_url` is its address.",
            ) from None
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "body"
            raise ServerFault(
                f"a reply that is none ({place}: {first['msg']}): {self._words(reply.text)!r}", BROKEN
            ) from None

    @property
    def _key(self) -> str:
        return os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""

    def _refusal(self, error: Any) -> ServerFault:
        status, response = error.status_code, error.response
        passing = (status in PASSING or status >= 500) and error.code != "insufficient_quota"
        remedy = REMEDIES.get(status, BROKEN if status >= 500 else REFUSED)
        pause = _seconds(response.headers.get("retry-after", ""))
        return ServerFault(f"HTTP {status}: {self._words(response.text)!r}", remedy, passing, pause)

    def _words(self, text: str) -> str:
        """Return the start of a text, without the key."""
        # In this order: a key that the end of the short text cuts in two would not be found.
        text = text.replace(self._key, "[key]") if self._key else text
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _seconds(retry_after: str) -> float:
    """Return the header's number of seconds, or those until its date; 0 if it is neither."""
    if re.fullmatch(r"\d+(\.\d+)?", retry_after):
        return min(float(retry_after), LONGEST_PAUSE)
    try:
        left = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return 0.0
    return min(max(left, 0.0), LONGEST_PAUSE)
