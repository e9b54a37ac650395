"""What a chat completions server replies, as far as it is read, and what is kept and made of it."""

import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError, model_validator

from rlaifv_pl.feedback.engines.engine import Completion, EngineError
from rlaifv_pl.feedback.engines.requests import ChatRequest
from rlaifv_pl.models.special_tokens import without_end

CUT = {"length", "max_tokens", "content_filter", "abort", "error"}
"""Why an answer may stop before the model ended it, as servers name it."""
SPACES = " \t\r\n\u2581\u0120"
"""The last two are vocabularies' own marks of a space, which some servers leave in."""


class TopToken(BaseModel):
    """A token that could have stood in some place, and how likely it was."""

    token: str
    logprob: float


class Place(BaseModel):
    """One place of the answer."""

    top_logprobs: list[TopToken]


class Logprobs(BaseModel):
    """Likely tokens of each place."""

    content: list[Place] | None = None


class ChatMessage(BaseModel):
    """What an assistant says; one of the two is there."""

    content: str | None = None
    refusal: str | None = None


class Choice(BaseModel):
    """One answer of the model."""

    message: ChatMessage
    finish_reason: str
    logprobs: Logprobs | None = None

    @model_validator(mode="after")
    def _has_an_answer(self) -> "Choice":
        if self.message.content is None and not self.withheld:
            raise ValueError(
                f"no content, and it ended by {self.finish_reason!r}; a model that thinks first may have spent all "
                "its tokens on that: allow it more, or turn thinking off with `extra`"
            )
        return self

    @property
    def withheld(self) -> bool:
        """Whether the model or a filter of the server refused to answer."""
        return self.message.refusal is not None or self.finish_reason == "content_filter"


class ChatCompletion(BaseModel):
    """The body of a reply."""

    choices: list[Choice] = Field(min_length=1)


class Reading(NamedTuple):
    """What is made of an answer."""

    read: Callable[[Choice], Any]
    """From the answer to the JSON value that is kept of it; None where it is none."""
    holds: Callable[[Any], bool]
    """Whether the value can be used; another draft is made of one that cannot, and the last is given, but not kept."""


def text(choice: Choice) -> str:
    """What was said: the answer, or the words of a refusal, or nothing where a filter took it.

    Some servers leave the token that ended an answer in its text.
    """
    return without_end(choice.message.content or choice.message.refusal or "").strip()


def completion(choice: Choice) -> Completion:
    """What was said, and whether the model ended it."""
    return Completion(text(choice), choice.finish_reason not in CUT)


def begins(said: str, word: str) -> float:
    """1 where a text begins with the word, whatever its case and the signs around it; else 0."""
    return float(re.match(rf"\W*{re.escape(word)}\b", said, re.IGNORECASE) is not None)


def top_tokens(choice: Choice) -> list[tuple[str, float]]:
    """The likeliest first tokens with their log-ps; none where the answer was withheld.

    Raises:
        EngineError: the server does not tell them.
    """
    if choice.withheld:
        return []
    if choice.logprobs is None or not choice.logprobs.content or not choice.logprobs.content[0].top_logprobs:
        raise EngineError(
            "The server answers, but without the probabilities of the first token (logprobs and top_logprobs were "
            "asked for). Set the engine's `answers: text`, which takes the answer's first word for certain, or use a "
            "server that tells them, such as vLLM, SGLang or llama.cpp."
        )
    return [(one.token, one.logprob) for one in choice.logprobs.content[0].top_logprobs]


def share(tokens: Sequence[tuple[str, float]], word: str) -> float:
    """Probability of the tokens that are the word, whatever their case and spaces."""
    return sum(
        math.exp(logprob) for token, logprob in tokens if token.strip(SPACES).casefold() == word.casefold()
    )


def filled(choice: Choice, form: type[BaseModel]) -> str | None:
    """The JSON of a form that holds; None for an answer that is cut, withheld, or anything else."""
    if choice.withheld or choice.finish_reason == "length":
        return None
    # Where no server holds a model to it, words and fences stand around the object.
    found = text(choice)
    json = found[found.find("{") : found.rfind("}") + 1]
    try:
        form.model_validate_json(json)
    except ValidationError:
        return None
    return json


def is_accepted(form: type[BaseModel], accepts: Callable[[Any], bool], json: str) -> bool:
    """Whether a request accepts the form that some JSON fills in."""
    return accepts(form.model_validate_json(json))


async def draft(
    call: ChatRequest,
    ask: Callable[[Mapping[str, Any], str], Awaitable[Choice]],
    reading: Reading,
    drafts: int,
) -> tuple[Any, bool]:
    """What an answer comes to, and whether it can be used.

    Args:
        ask: for the answer to a request's body about something.
        drafts: times that the call is made until its answer holds.
    """
    last = None
    for time in range(drafts):
        value = reading.read(await ask(call.again(time).wire, call.where))
        if value is not None:
            if reading.holds(value):
                return value, True
            last = value
    return last, False
