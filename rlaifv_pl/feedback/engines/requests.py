"""Requests to a chat completions server: messages with their images in place, and forms to fill in."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from rlaifv_pl.data.images import image_extension, portable_image
from rlaifv_pl.feedback.engines.engine import EngineError, Request
from rlaifv_pl.feedback.prompt_templates import FILL
from rlaifv_pl.models.chat import message_with_images
from rlaifv_pl.models.special_tokens import plain
from rlaifv_pl.records import Message

AGAIN_TEMPERATURE = 0.7
"""A greedy answer that does not hold would come back the same."""

MIME = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}

NAMED = ("properties", "$defs")
"""Fields of a JSON schema whose keys are names of the user's choice."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """Body of one request, with the bytes of each image in place of its URL."""

    body: Mapping[str, Any]
    where: str
    """Name of its subject, for errors."""

    @property
    def wire(self) -> dict[str, Any]:
        """The body as it is sent, its images as data URIs of the pixels that training sees.

        Raises:
            BadSample: an image cannot be opened.
        """
        return self._shown(self._data_uri)

    @property
    def digest(self) -> dict[str, Any]:
        """The body with the SHA-256 of its images: short, and different whenever `wire` is.

        Raises:
            BadSample: an image cannot be opened.
        """
        return self._shown(lambda image: hashlib.sha256(portable_image(image, self.where)).hexdigest())

    @property
    def images(self) -> tuple[bytes, ...]:
        """The images, in order."""
        blocks = [block for message in self.body["messages"] for block in message["content"]]
        return tuple(
            block["image_url"]["url"] for block in blocks if isinstance(block, dict) and "image_url" in block
        )

    def again(self, time: int) -> "ChatRequest":
        """Return the request for its `time`-th repetition: with another seed, and never greedy; 0 is itself."""
        if time == 0:
            return self
        temperature = max(self.body.get("temperature", 0), AGAIN_TEMPERATURE)
        body = {**self.body, "seed": self.body.get("seed", 0) + time, "temperature": temperature}
        return ChatRequest(body, self.where)

    def _shown(self, show: Callable[[bytes], str]) -> dict[str, Any]:
        return json.loads(json.dumps(self.body, default=show))

    def _data_uri(self, image: bytes) -> str:
        sent = portable_image(image, self.where)
        return f"data:{MIME[image_extension(sent) or 'png']};base64,{base64.b64encode(sent).decode()}"


def server_numbers(calls: Sequence[ChatRequest]) -> list[int]:
    """Return a number for each request: equal for requests about the same images, different for all others."""
    numbers: dict[Any, int] = {}
    return [numbers.setdefault(call.images or place, len(numbers)) for place, call in enumerate(calls)]


def place_images(messages: Sequence[Message], images: Sequence[bytes]) -> list[Message]:
    """Return messages whose image blocks hold the images, in order."""
    rest = iter(images)
    return [{"role": one["role"], "content": _content(one["content"], rest)} for one in messages]


def request_messages(request: Request) -> list[Message]:
    """Return the messages of a request; special tokens in its text, as in a claim, are read as words."""
    return place_images([message_with_images(plain(request.text), len(request.images))], request.images)


def with_schema(request: Request, form: type[BaseModel]) -> Request:
    """Return the request with the form's JSON schema in its text."""
    schema = json.dumps(form.model_json_schema())
    return replace(request, text=FILL.format(text=request.text, schema=schema))


def response_format(form: type[BaseModel]) -> dict[str, Any]:
    """Return the field that makes a server constrain the model to a form."""
    return {
        "type": "json_schema",
        "json_schema": {"name": form.__name__, "strict": True, "schema": _strict(form.model_json_schema())},
    }


def import_openai() -> Any:
    """Return the module `openai`, which is an optional dependency.

    Raises:
        EngineError: it is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise EngineError(
            'Asking a server needs the openai package: pip install "rlaifv-pl[server]"'
        ) from error
    return openai


def _content(blocks: Sequence[Mapping[str, Any]], images: Iterator[bytes]) -> str | list[Mapping[str, Any]]:
    # Not every chat template takes blocks, but all take a string.
    if [block["type"] for block in blocks] == ["text"]:
        return blocks[0]["text"]
    return [
        block if block["type"] == "text" else {"type": "image_url", "image_url": {"url": next(images)}}
        for block in blocks
    ]


def _strict(schema: Any) -> Any:
    """Return the schema as strict servers want it: all properties required, no others, no defaults."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        name: {own: _strict(one) for own, one in value.items()} if name in NAMED else _strict(value)
        for name, value in schema.items()
        if name != "default"
    }
    if "properties" in kept:
        kept |= {"additionalProperties": False, "required": list(kept["properties"])}
    return kept
