"""A model behind OpenAI-compatible servers: vLLM, SGLang, llama.cpp, transformers serve, the vendor's own.

An answer is one request with a seed of its own, kept by the hash of all that decides it. So it does not
depend on its neighbours, and a run that was killed asks only for what is missing.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal
from urllib.parse import urlsplit

from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.feedback.engines import responses
from rlaifv_pl.feedback.engines.engine import Completion, Form, Request, Sampling
from rlaifv_pl.feedback.engines.requests import (
    ChatRequest,
    place_images,
    request_messages,
    response_format,
    server_numbers,
    with_schema,
)
from rlaifv_pl.feedback.engines.response_cache import ResponseCache
from rlaifv_pl.feedback.engines.responses import Choice, Reading
from rlaifv_pl.feedback.engines.server import Complete, Servers
from rlaifv_pl.models.chat import prompt_messages
from rlaifv_pl.records import Message, Sample

TOP = 20
"""Tokens of one place whose probabilities are asked for: the most that the vendor and vLLM tell."""
WORD_TOKENS = 8
"""Room for one word with quotes or stars around it."""

KEY_PLACE = "a key is read from the environment variable that api_key_env names (OPENAI_API_KEY unless set)"
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
SECRET = re.compile(r"api[-_]?key|authori[sz]ation|password|secret|headers", re.IGNORECASE)
"""Names of fields that hold what a config must not."""
OWN = {"model", "messages", "seed", "temperature", "n", "stream", "max_tokens", "max_completion_tokens", "logprobs",
       "top_logprobs", "response_format"}  # fmt: skip
"""Fields that each request decides by itself."""


@dataclass(kw_only=True)
class OpenAIEngine:
    """An `Engine` that asks a server for chat completions.

    Args:
        model: name under which the server knows it.
        base_url: of the API, or several for servers of one model, which take the images in turn: all that is asked
            about an image goes to one of them, which has read it. No key or password belongs in it.
        version: anything; change it when other weights are served under the same name, so that no
            answer of the old ones is taken for one of the new.
        api_key_env: name, in capitals, of the environment variable with the key; None, or one that is not set, for
            a server without keys.
        cache: file that keeps the answers, for any number of runs and processes. None keeps them in
            this process until `release`.
        concurrency: requests under way at once, over all servers.
        timeout: seconds for one try of a request.
        retries: tries after the first of a request that fails.
        backoff: seconds before the second try, at most; doubles with each one, up to a minute.
        answers: how `choose` learns probabilities: from `logprobs` of the first token or, where a
            server has none, from the `text`: 1 for the word that it begins with, 0 for the others.
        structured: how `fill` asks for a form: from a server that holds the model to a `json_schema`, to
            some `json_object`, or to `none`. The last two have the schema in the text.
        fill_tokens: longest filled-in form.
        fill_tries: drafts of a form.
        fill_temperature: of its first draft; later ones are drawn at 0.7 or more.
        limit_name: what the server calls a limit of tokens.
        extra: fields of every request besides or instead of the engine's own, such as
            `chat_template_kwargs` or `top_k`; null leaves a field out. What each request decides by itself (its
            messages, seed, temperature, limit of tokens) can be left out, but not replaced.

    Raises:
        ValueError: a setting that makes no sense.
    """

    model: str
    base_url: list[str] | str = "http://127.0.0.1:8000/v1"
    version: str = ""
    api_key_env: str | None = "OPENAI_API_KEY"
    cache: str | None = None
    concurrency: int = 32
    timeout: float = 300.0
    retries: int = 6
    backoff: float = 1.0
    answers: Literal["logprobs", "text"] = "logprobs"
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    fill_tokens: int = 1024
    fill_tries: int = 3
    fill_temperature: float = 0.0
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (
            min(self.concurrency, self.fill_tries) < 1
            or min(self.retries, self.backoff) < 0
            or self.timeout <= 0
        ):
            raise ValueError(
                "concurrency and fill_tries must be at least 1, retries and backoff not negative, and timeout "
                f"positive; got {self.concurrency}, {self.fill_tries}, {self.retries}, {self.backoff}, {self.timeout}"
            )
        self._refuse_keys()

    def _refuse_keys(self) -> None:
        """A config is kept beside what it made, so that no key may stand in it, nor in what is said of it."""
        urls = list(map(urlsplit, self._urls))
        if not urls or any(
            url.scheme not in ("http", "https") or "@" in url.netloc or url.query or url.fragment
            for url in urls
        ):
            raise ValueError(
                f"base_url must be http(s)://host/path without user, password or query: {KEY_PLACE}"
            )
        if self.api_key_env is not None and not VARIABLE.fullmatch(self.api_key_env):
            raise ValueError(
                f"api_key_env must be the name of an environment variable, in capitals, and not a key: {KEY_PLACE}"
            )
        if named := [name for name in _names(self.extra) if SECRET.search(name)]:
            raise ValueError(f"extra has {named[0]}, and no key or password belongs in a config: {KEY_PLACE}")
        if fixed := sorted(name for name in OWN & self.extra.keys() if self.extra[name] is not None):
            raise ValueError(
                f"extra has {fixed[0]}, which each request decides by itself: set feedback.sampling or the engine's "
                "own options, or null to leave it out"
            )

    @property
    def identity(self) -> str:
        """Hash of the model's name and version and of the settings that decide answers, wherever it runs."""
        settings = ("model", "version", "answers", "structured", "fill_tokens", "fill_tries", "fill_temperature",
                    "limit_name", "extra")  # fmt: skip
        return hash_json({name: getattr(self, name) for name in settings})

    def sample(
        self, samples: Sequence[Sample], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        """A completion of each sample's prompt for each of its seeds.

        One without a text, as of a filter or a model that thought for too long, is not kept: the next call asks again.

        Raises:
            EngineError: the server cannot be asked, or not like this.
        """
        drawn = {"temperature": sampling.temperature, "top_p": 1.0}
        calls = [
            self._call(messages, f"sample {sample.key}", sampling.max_new_tokens, seed=seed, **drawn)
            for sample, own in zip(samples, seeds, strict=True)
            for messages in [place_images(prompt_messages(sample), sample.images)]
            for seed in own
        ]
        reading = Reading(responses.completion, lambda said: bool(said.text))
        kept = (Completion(*one) for one in self._ask(calls, [reading] * len(calls), knows_end=True))
        return [[next(kept) for _ in own] for own in seeds]

    def choose(self, requests: Sequence[Request], words: Sequence[str]) -> list[list[float]]:
        """For each request, the probability that the answer begins with each word.

        It is summed over those of the `TOP` likeliest first tokens that are the word, whatever their
        case and spaces; a word of several tokens has none. An answer that begins with none of the words is
        drawn again, `fill_tries` times in all, and not kept.

        Raises:
            EngineError: the server cannot be asked, or tells no probabilities.
        """
        read: Callable[[Choice], Any]
        chance: Callable[[Any, str], float]
        if self.answers == "text":
            read, chance, tokens, options = responses.text, responses.begins, WORD_TOKENS, {}
        else:
            read, chance, tokens = responses.top_tokens, responses.share, 1
            options = {"logprobs": True, "top_logprobs": TOP}
        calls = [
            self._call(request_messages(one), one.where, tokens, seed=0, temperature=0.0, **options)
            for one in requests
        ]
        reading = Reading(read, lambda answer: any(chance(answer, word) for word in words))
        answers = self._ask(calls, [reading] * len(calls), self.fill_tries)
        return [[chance(answer, word) for word in words] for answer in answers]

    def fill(self, requests: Sequence[Request], form: type[Form]) -> list[Form | None]:
        """A filled-in form for each request.

        None where none of `fill_tries` drafts holds: cut, refused, or no JSON of the form. That is not kept, nor is a
        form that the request does not accept: the next call asks again.

        Raises:
            EngineError: the server cannot be asked, or not like this.
        """
        how: dict[str, Any] = {"temperature": self.fill_temperature}
        if self.structured == "json_schema":
            how["response_format"] = response_format(form)
        elif self.structured == "json_object":
            how["response_format"] = {"type": "json_object"}
        if self.structured != "json_schema":
            requests = [with_schema(one, form) for one in requests]
        calls = [
            self._call(request_messages(one), one.where, self.fill_tokens, seed=one.seed, **how)
            for one in requests
        ]
        readings = [
            Reading(partial(responses.filled, form=form), partial(responses.is_accepted, form, one.accepts))
            for one in requests
        ]
        kept = self._ask(calls, readings, self.fill_tries)
        return [None if json is None else form.model_validate_json(json) for json in kept]

    def release(self) -> None:
        """Close the file of answers, or forget them where there is none; the model is the server's."""
        self.__dict__.pop("_kept", None)

    @property
    def _urls(self) -> list[str]:
        return [self.base_url] if isinstance(self.base_url, str) else self.base_url

    @cached_property
    def _kept(self) -> ResponseCache:
        return ResponseCache(self.cache or ":memory:")

    def _call(self, messages: Sequence[Message], where: str, tokens: int, **fields: Any) -> ChatRequest:
        body = {"model": self.model, "messages": messages, self.limit_name: tokens, **fields, **self.extra}
        return ChatRequest({name: value for name, value in body.items() if value is not None}, where)

    def _ask(
        self,
        calls: Sequence[ChatRequest],
        readings: Sequence[Reading],
        drafts: int = 1,
        *,
        knows_end: bool = False,
    ) -> list[Any]:
        """What is kept of the answer to each call; equal calls are made once, known ones never.

        Args:
            readings: of each call's answer.
            drafts: times that a call is made until its answer holds.
            knows_end: whether what is kept tells if the model ended its answer, which texts of earlier versions do not.
        """
        # Not of `identity`: a setting that only `fill` knows must not make `choose` pay again.
        keys = [hash_json([self.version, call.digest, *["end"] * knows_end]) for call in calls]
        known = self._kept.get(keys)
        missing = {
            key: (call, reading)
            for key, call, reading in zip(keys, calls, readings, strict=True)
            if key not in known
        }
        if missing:
            known |= _run(self._fetch(missing, drafts))
        return [known[key] for key in keys]

    async def _fetch(self, calls: Mapping[str, tuple[ChatRequest, Reading]], drafts: int) -> dict[str, Any]:
        """Make the calls, and keep each answer as soon as it is there.

        After a failure no further call is begun, but those under way are paid for: they are kept, too.
        """
        answers: dict[str, Any] = {}
        failures: list[Exception] = []
        rest = iter(zip(calls.items(), server_numbers([call for call, _ in calls.values()]), strict=True))

        async def work(complete: Complete) -> None:
            while not failures and (item := next(rest, None)):
                (key, (call, reading)), first = item
                try:
                    answers[key], holds = await responses.draft(
                        call, partial(complete, first), reading, drafts
                    )
                    if holds:
                        self._kept.put({key: answers[key]})
                except Exception as error:
                    failures.append(error)

        servers = Servers(self._urls, self.api_key_env, self.timeout, self.retries, self.backoff)
        async with servers.connect() as complete:
            await asyncio.gather(*(work(complete) for _ in range(min(self.concurrency, len(calls)))))
        if failures:
            raise failures[0]
        return answers


def _names(fields: Any) -> Iterator[str]:
    """Yield the names of all fields, nested ones included."""
    if isinstance(fields, Mapping):
        yield from map(str, fields)
        fields = list(fields.values())
    for value in fields if isinstance(fields, list) else []:
        yield from _names(value)


def _run(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """Run to the end, also for a caller within an event loop (a notebook), which has to wait."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()
