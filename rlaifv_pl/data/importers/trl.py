"""TRL's formats: preference (explicit or implicit prompt), prompt and completion, messages, prompt only.

Texts or message lists; images in `images` or `image`. Columns for tools and chat templates are left
behind: they belong to the policy.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.importers.rows import Row
from rlaifv_pl.data.importers.turns import Turn, read_turn, text_of
from rlaifv_pl.records import Sample


def recognises(columns: Mapping[str, Any]) -> bool:
    """Whether a row looks like this family."""
    return {"chosen", "rejected"} <= columns.keys() or bool({"prompt", "messages"} & columns.keys())


def read_row(row: Row) -> Sample:
    """Turn a row into a sample.

    Raises:
        BadSample: naming the column.
    """
    prompt, answers = _split(row)
    if not isinstance(prompt, str | list):
        detail = f"prompt: expected a text or messages, got {type(prompt).__name__}"
        raise BadSample(Reason.WRONG_TYPE, row.where, detail)
    return Sample(
        key=row.key,
        prompt=_read_prompt(prompt, row.where),
        images=row.pictures("images", "image"),
        rejected_images=row.pictures("rejected_images"),
        provenance=row.provenance("idx", "id", "ds_name", "origin_dataset", "origin_split"),
        **{name: text_of(value, name, row.where) for name, value in answers.items()},
    )


def _split(row: Row) -> tuple[Any, dict[str, Any]]:
    """Tell prompt and answers apart, as raw cells."""
    columns = row.parsed()
    if columns.get("messages") is not None:
        messages = _require_list(row, "messages")
        return messages[:-1], {"completion": messages[-1:]}
    names = [name for name in ("chosen", "rejected", "completion") if columns.get(name) is not None]
    answers = {name: columns[name] for name in names}
    if columns.get("prompt") is None and {"chosen", "rejected"} <= answers.keys():
        return _split_implicit(answers, row)
    return row.require("prompt"), answers


def _split_implicit(answers: dict[str, Any], row: Row) -> tuple[Any, dict[str, Any]]:
    """Take as prompt what the sides have in common from the start.

    Of two texts this keeps whole words only. It cannot know where equal first words of the answers
    begin: an explicit prompt column is better.
    """
    chosen, rejected = answers.pop("chosen"), answers.pop("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        shared = chosen[: _shared_length(chosen, rejected)]
        length = len(shared) - len(re.search(r"\S*$", shared)[0])
        return chosen[:length].strip(), answers | {"chosen": chosen[length:], "rejected": rejected[length:]}
    chosen, rejected = _require_list(row, "chosen"), _require_list(row, "rejected")
    # The last turn of a side is its answer, even where both say the same.
    length = _shared_length(chosen[:-1], rejected[:-1])
    return chosen[:length], answers | {"chosen": chosen[length:], "rejected": rejected[length:]}


def _shared_length(left: Sequence[Any], right: Sequence[Any]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def _read_prompt(prompt: str | list[Any], where: str) -> list[Turn]:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return [read_turn(message, where) for message in messages]


def _require_list(row: Row, column: str) -> list[Any]:
    value = row.require(column)
    if not isinstance(value, list) or not value:
        raise BadSample(
            Reason.WRONG_TYPE, row.where, f"{column}: expected messages, got {type(value).__name__}"
        )
    return value
