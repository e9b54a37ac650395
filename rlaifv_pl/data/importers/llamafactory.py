"""LLaMA-Factory's formats: alpaca, sharegpt with a pair, v1's pairs of dialogues, KTO's marked answers.

Sharegpt without a pair is LLaVA's; torchtune and CSR name two dialogues likewise. Weights of single messages are
left behind.
"""

from collections.abc import Mapping
from typing import Any

from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.importers.rows import Row
from rlaifv_pl.data.importers.samples import holds, holds_any, make_sample, refuse_unpaired
from rlaifv_pl.data.importers.turns import split_pair
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
    return holds_any(columns, "conversations", "messages") and holds(columns, "chosen", "rejected")


def recognises_v1(columns: Mapping[str, Any]) -> bool:
    """Whether a row has two whole dialogues, and no third."""
    return any(holds(columns, *names) for names in _DIALOGUES) and not holds(columns, "messages")


def recognises_kto(columns: Mapping[str, Any]) -> bool:
    """Whether a row is a dialogue whose last answer is marked good or bad."""
    return holds_any(columns, "conversations", "messages") and holds(columns, "kto_tag")


def read_alpaca(row: Row) -> list[Sample]:
    """Turn a row into a sample; `history` becomes earlier turns, `input` follows the instruction.

    Raises:
        BadSample: naming the column; `unpaired` for an output whose `kto_tag` is false.
    """
    columns = row.parsed()
    texts = [row.require("instruction"), columns.get("input")]
    texts = [text for text in texts if text not in (None, "")]
    if not all(isinstance(text, str) for text in texts):
        raise BadSample(Reason.WRONG_TYPE, row.where, "instruction, input: expected texts")
    prompt = [*_history(row), {"role": "user", "content": "\n".join(texts)}]
    if holds_any(columns, "chosen", "rejected"):
        answers = {"chosen": row.require("chosen"), "rejected": row.require("rejected")}
    else:
        refuse_unpaired(row, "kto_tag")
        answers = {"completion": row.require("output")}
    return [make_sample(row, prompt, answers=answers)]


def read_sharegpt(row: Row) -> list[Sample]:
    """Turn a row into a sample.

    Raises:
        BadSample: naming the column.
    """
    answers = {name: row.require(name) for name in ("chosen", "rejected")}
    return [make_sample(row, _dialogue(row), answers=answers)]


def read_v1(row: Row) -> list[Sample]:
    """Turn a row into a sample; the prompt is what both dialogues begin with.

    Raises:
        BadSample: naming the column.
    """
    names = next((names for names in _DIALOGUES if holds(row.parsed(), *names)), _DIALOGUES[0])
    prompt, chosen, rejected = split_pair(*map(row.messages, names))
    return [make_sample(row, prompt, answers={"chosen": chosen, "rejected": rejected})]


def read_kto(row: Row) -> list[Sample]:
    """Turn a row into a sample to learn by SFT, if its answer is marked as good.

    Raises:
        BadSample: naming the column; `unpaired` if it is marked as bad.
    """
    refuse_unpaired(row, "kto_tag")
    *prompt, answer = _dialogue(row)
    return [make_sample(row, prompt, answers={"completion": [answer]})]


def _dialogue(row: Row) -> list[Any]:
    return row.messages("conversations" if holds(row.parsed(), "conversations") else "messages")


def _history(row: Row) -> list[dict[str, Any]]:
    """Earlier turns, which alpaca writes as pairs of a question and its answer."""
    turns = row.parsed().get("history") or []
    if not isinstance(turns, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in turns):
        raise BadSample(Reason.WRONG_TYPE, row.where, "history: expected a list of [question, answer]")
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for turn in turns for role, text in zip(roles, turn, strict=True)]
