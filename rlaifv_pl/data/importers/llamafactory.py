"""LLaMA-Factory's formats: alpaca, sharegpt with a pair, v1's pairs of dialogues, KTO's marked answers.

Sharegpt without a pair is LLaVA's; torchtune and CSR name two dialogues likewise.
"""

from collections.abc import Mapping
from typing import Any

from rlaifv_pl.data.importers.messages import split_pair
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.samples import holds, holds_any, instruction_of, make_sample
from rlaifv_pl.records import Sample

_DIALOGUES = (
    ("chosen_messages", "rejected_messages"),
    ("chosen_conversations", "rejected_conversations"),
    ("conversations", "rejected_conversations"),
)


def recognises_alpaca(columns: Mapping[str, Any]) -> bool:
    """Whether a row is an instruction with its input and an answer or a pair."""
    is_answered = holds(columns, "output") and not holds(columns, "rejected_response")
    return holds(columns, "instruction") and (is_answered or holds(columns, "chosen", "rejected"))


def recognises_sharegpt(columns: Mapping[str, Any]) -> bool:
    """Whether a row is a dialogue that waits for its answer, with a pair of them."""
    is_asked = holds_any(columns, "conversations", "messages") and not holds(columns, "messages", "prompt")
    return is_asked and holds(columns, "chosen", "rejected")


def recognises_v1(columns: Mapping[str, Any]) -> bool:
    """Whether a row has two whole dialogues, and no third."""
    return any(holds(columns, *names) for names in _DIALOGUES) and not holds(columns, "messages")


def recognises_kto(columns: Mapping[str, Any]) -> bool:
    """Whether a row is a dialogue whose last answer is marked good or bad."""
    return holds_any(columns, "conversations", "messages") and holds(columns, "kto_tag")


def read_alpaca(row: SourceRow) -> list[Sample]:
    """Turn a row into a sample; `input` follows the instruction.

    Raises:
        BadSample: naming the column.
    """
    names = ("chosen", "rejected") if holds_any(row.parsed(), "chosen", "rejected") else ("output",)
    answers = {"completion" if name == "output" else name: row.require(name) for name in names}
    return [make_sample(row, instruction_of(row), answers=answers)]


def read_sharegpt(row: SourceRow) -> list[Sample]:
    """Turn a row into a sample.

    Raises:
        BadSample: naming the column.
    """
    answers = {name: row.require(name) for name in ("chosen", "rejected")}
    return [make_sample(row, _dialogue(row), answers=answers)]


def read_v1(row: SourceRow) -> list[Sample]:
    """Turn a row into a sample; the prompt is what both dialogues begin with.

    Raises:
        BadSample: naming the column.
    """
    names = next((names for names in _DIALOGUES if holds(row.parsed(), *names)), _DIALOGUES[0])
    prompt, chosen, rejected = split_pair(*map(row.messages, names))
    return [make_sample(row, prompt, answers={"chosen": chosen, "rejected": rejected})]


def read_kto(row: SourceRow) -> list[Sample]:
    """Turn a row into a sample to learn by SFT, if its answer is marked as good.

    Raises:
        BadSample: naming the column; `unpaired` if it is marked as bad.
    """
    *prompt, answer = _dialogue(row)
    return [make_sample(row, prompt, answers={"completion": [answer]})]


def _dialogue(row: SourceRow) -> list[Any]:
    return row.messages("conversations" if holds(row.parsed(), "conversations") else "messages")
