"""LLaVA's SFT format: `{id, image, conversations: [{from, value}]}`, images where `<image>` stands.

Rows without an image are text-only samples. Of the answers the last becomes the completion; earlier
ones stay in the prompt, and SFT learns them too.
"""

from collections.abc import Mapping
from typing import Any

from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.importers.rows import Row
from rlaifv_pl.data.importers.turns import read_turn, text_of
from rlaifv_pl.records import Sample


def recognises(columns: Mapping[str, Any]) -> bool:
    """Whether a row looks like this family; with `chosen` it would be a preference format."""
    return "conversations" in columns and "chosen" not in columns


def read_row(row: Row) -> Sample:
    """Turn a row into a sample.

    Raises:
        BadSample: naming the column.
    """
    conversations = row.require("conversations")
    if not isinstance(conversations, list) or len(conversations) < 2:
        detail = "conversations: expected a list of at least a question and an answer"
        raise BadSample(Reason.WRONG_TURNS, row.where, detail)
    *turns, answer = conversations
    return Sample(
        key=row.key,
        prompt=[read_turn(turn, row.where) for turn in turns],
        images=row.pictures("image", "images"),
        completion=text_of([answer], "conversations[-1]", row.where),
        provenance=row.provenance("id", "image"),
    )
