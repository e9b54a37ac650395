"""ms-swift's formats: messages that end in the chosen answer, and beside them what is rejected.

That is an answer (`rejected_response`), a dialogue (`rejected_messages`), or images alone
(`rejected_images`), for which the same answer is the worse one. Images that no tag stands for come
first.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rlaifv_pl.data.importers.messages import split_pair
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.samples import holds, holds_any, make_sample
from rlaifv_pl.records import Sample

_REJECTED = ("rejected_response", "rejected_messages", "rejected_images")


def recognises(columns: Mapping[str, Any]) -> bool:
    """Whether a row looks like this family."""
    if not holds(columns, "messages") or holds_any(columns, "chosen", "kto_tag"):
        return False
    return holds_any(columns, *_REJECTED, "label")


def read(row: SourceRow) -> list[Sample]:
    """Turn a row into a sample; one that is only marked good by its `label` becomes one of SFT.

    Raises:
        BadSample: naming the column.
    """
    prompt, answers = _split(row)
    return [_with_all_tags(make_sample(row, prompt, answers=answers))]


def _split(row: SourceRow) -> tuple[list[Any], dict[str, Any]]:
    messages, columns = row.messages("messages"), row.parsed()
    *prompt, answer = messages
    if holds(columns, "rejected_messages"):
        prompt, chosen, rejected = split_pair(messages, row.messages("rejected_messages"))
        return prompt, {"chosen": chosen, "rejected": rejected}
    if holds(columns, "rejected_response"):
        return prompt, {"chosen": [answer], "rejected": columns["rejected_response"]}
    if holds(columns, "rejected_images"):
        return prompt, {"chosen": [answer], "rejected": [answer]}
    return prompt, {"completion": [answer]}


def _with_all_tags(sample: Sample) -> Sample:
    """A sample some of whose images have a tag, with those of the others before its first text of the user."""
    asked: Any = sample.prompt  # Turns, as the readers make them.
    turns = [{**turn, "content": _blocks(turn["content"])} for turn in asked]
    tags = sum(block["type"] == "image" for turn in turns for block in turn["content"])
    first = next((turn for turn in turns if turn["role"] == "user"), None)
    if first is None or not 0 < tags < len(sample.images):
        return sample
    first["content"] = [{"type": "image"}] * (len(sample.images) - tags) + first["content"]
    return replace(sample, prompt=turns)


def _blocks(content: str | list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
