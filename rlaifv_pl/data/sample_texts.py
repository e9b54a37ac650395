"""The texts of a sample, and the markup of chat templates that none of them may hold."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.models.special_tokens import special_token_in, turns_in, without_end
from rlaifv_pl.records import Message, Sample

Content = str | Sequence[Mapping[str, Any]]
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def prompt_texts(prompt: str | Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Yield name and text of each turn of a prompt, without images, and without the end token of earlier answers."""
    if isinstance(prompt, str):
        yield "prompt", prompt
        return
    for number, message in enumerate(prompt):
        content: Content = message["content"]
        blocks = [{"text": content}] if isinstance(content, str) else content
        text = "".join(block.get("text", "") for block in blocks)
        is_answer = message["role"] == "assistant"
        yield f"prompt, turn {number} ({message['role']})", without_end(text) if is_answer else text


def answers(sample: Sample) -> Iterator[tuple[str, str]]:
    """Yield name and text of each answer of a sample, without its end token."""
    for side in ("chosen", "rejected", "completion"):
        if (text := getattr(sample, side)) is not None:
            yield side, without_end(text)
    for number, correction in enumerate(sample.corrections):
        yield f"corrections[{number}].question", correction.question
        yield f"corrections[{number}].answer", without_end(correction.answer)


def check_text(name: str, text: str, where: str) -> None:
    """Refuse a text with markup, which a model would not read as the words that it is made of.

    Raises:
        BadSample: `rendered_prompt` or `special_token`, naming the markup; `wrong_type` for half a character.
    """
    if surrogate := _SURROGATE.search(text):
        detail = f"{name} holds {surrogate[0]!r}, half of a surrogate pair, which stands for no character"
        raise BadSample(Reason.WRONG_TYPE, where, detail)
    if mark := turns_in(text):
        detail = f"{name} holds turns as a chat template writes them ({mark})"
        raise BadSample(Reason.RENDERED_PROMPT, where, detail)
    if token := special_token_in(text):
        raise BadSample(
            Reason.SPECIAL_TOKEN, where, f"{name} holds {token!r}, a special token of chat models"
        )


def without_ends(sample: Sample) -> Sample:
    """Return the sample without the end tokens of its answers, earlier ones included; itself where there are none."""
    texts: dict[str, Any] = {
        side: without_end(text)
        for side in ("chosen", "rejected", "completion")
        if (text := getattr(sample, side)) is not None
    }
    corrections = tuple(replace(one, answer=without_end(one.answer)) for one in sample.corrections)
    prompt = sample.prompt if isinstance(sample.prompt, str) else [_ended(turn) for turn in sample.prompt]
    mended = replace(sample, prompt=prompt, corrections=corrections, **texts)
    return sample if mended == sample else mended


def _ended(message: Message) -> Message:
    content = message["content"]
    if message["role"] != "assistant" or not content:
        return message
    if isinstance(content, str):
        return {**message, "content": without_end(content)}
    *before, last = content
    if last["type"] != "text":
        return message
    return {**message, "content": [*before, {**last, "text": without_end(last["text"])}]}
