"""LLaVA's SFT format: `{id, image, conversations: [{from, value}]}`, images where `<image>` stands.

Rows without an image are text-only samples. Of the answers the last becomes the completion; earlier
ones stay in the prompt, and SFT learns them too. LLaMA-Factory's sharegpt without a pair is the same.
"""

from collections.abc import Mapping
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.samples import holds, holds_any, make_sample
from rlaifv_pl.records import Sample


def recognises(columns: Mapping[str, Any]) -> bool:
    """Whether a row looks like this format; with `chosen` it would be a preference format."""
    return holds(columns, "conversations") and not holds_any(
        columns, "chosen", "rejected", "rejected_conversations", "kto_tag"
    )


def read(row: SourceRow) -> list[Sample]:
    """Turn a row into a sample.

    Raises:
        BadSample: naming the column.
    """
    conversations = row.require("conversations")
    if not isinstance(conversations, list) or len(conversations) < 2:
        detail = "conversations: expected a list of at least a question and an answer"
        raise BadSample(Reason.WRONG_TURNS, row.where, detail)
    return [make_sample(row, conversations[:-1], answers={"completion": conversations[-1:]})]
