"""TRL's formats: preference (explicit or implicit prompt), prompt and completion, messages, prompt only.

Texts or message lists; images in `images` or `image`, or in the blocks themselves, as OpenAI and
Anthropic write them. MM-RLHF, 2U1's Qwen-VL, torchtune and verl write rows of the same columns.
"""

from collections.abc import Collection, Mapping
from typing import Any

from rlaifv_pl.data.importers.column_names import ANSWERS, PROMPTS
from rlaifv_pl.data.importers.messages import split_pair, split_texts
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.samples import (
    are_lists,
    holds,
    holds_any,
    is_asked,
    make_sample,
    refuse_unanswered,
)
from rlaifv_pl.records import Sample

_ANSWERS = ("chosen", "rejected", "completion")
_OTHER_PROMPTS = (*PROMPTS, "conversations", "messages", "context")


def recognises(columns: Mapping[str, Any]) -> bool:
    """Whether a row looks like this format."""
    if holds(columns, "messages"):
        if holds(columns, "prompt", "chosen", "rejected"):
            return not are_lists(columns)
        others = ("chosen", "rejected_response", "rejected_messages", "rejected_images", "kto_tag", "label")
        return not holds_any(columns, *others)
    if holds(columns, "chosen", "rejected"):
        explicit = holds(columns, "prompt") or not holds_any(columns, *_OTHER_PROMPTS)
        return explicit and not are_lists(columns)
    return holds(columns, "prompt") and (holds(columns, "completion") or not holds_any(columns, *ANSWERS))


def read(row: SourceRow) -> list[Sample]:
    """Turn a row into a sample.

    Raises:
        BadSample: naming the column; `missing_answer` where columns of answers are there and empty.
    """
    prompt, answers = _split(row)
    return [make_sample(row, prompt, answers=answers)]


def reads(columns: Mapping[str, Any]) -> Collection[str]:
    """Columns of a row that are read."""
    return ("messages",) if _is_told(columns) else ("prompt", *_ANSWERS)


def _is_told(columns: Mapping[str, Any]) -> bool:
    """Whether a dialogue holds all of a row: UltraFeedback has it beside the pair."""
    return holds(columns, "messages") and not holds(columns, "prompt", "chosen", "rejected")


def _split(row: SourceRow) -> tuple[Any, dict[str, Any]]:
    """Tell prompt and answers apart, as raw cells."""
    columns = row.parsed()
    if _is_told(columns):
        messages = row.messages("messages")
        return messages[:-1], {"completion": messages[-1:]}
    names = [name for name in _ANSWERS if columns.get(name) is not None]
    answers = {name: columns[name] for name in names}
    if {"chosen", "rejected"} <= answers.keys() and (columns.get("prompt") is None or _are_whole(answers)):
        return _split_implicit(answers, row)
    if not answers:
        refuse_unanswered(row)
    return row.require("prompt"), answers


def _split_implicit(answers: dict[str, Any], row: SourceRow) -> tuple[Any, dict[str, Any]]:
    """Take as prompt what the sides have in common from the start."""
    chosen, rejected = answers.pop("chosen"), answers.pop("rejected")
    split: tuple[Any, Any, Any]
    if isinstance(chosen, str) and isinstance(rejected, str):
        split = split_texts(chosen, rejected)
    else:
        split = split_pair(row.messages("chosen"), row.messages("rejected"))
    prompt, chosen, rejected = split
    return prompt, answers | {"chosen": chosen, "rejected": rejected}


def _are_whole(answers: Mapping[str, Any]) -> bool:
    """Whether both sides repeat the prompt that has a column of its own."""
    sides = [answers["chosen"], answers["rejected"]]
    return all(isinstance(side, list) and len(side) > 1 and is_asked(side[0]) for side in sides)
