"""A column for each text, under one of the names that are in use: OpenRLHF, Axolotl, ms-swift, EasyR1.

The prompt and its answers may be texts or messages; of an instruction and its input, both. An answer alone is
learned by SFT.
"""

from collections.abc import Collection, Mapping
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.column_names import PROMPTS
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.samples import are_lists, holds, holds_any, instruction_of, make_sample
from rlaifv_pl.records import Sample

_CHOSEN = ("chosen", "chosen_response")
_GOOD = ("response", "answer", "output", "target")
_REJECTED = ("rejected", "rejected_response")
_ELSEWHERE = ("completion", "conversations", "messages", "refinement", "overall_response")


def recognises(columns: Mapping[str, Any]) -> bool:
    """Whether a row looks like this, and like nothing more particular."""
    if holds_any(columns, *_ELSEWHERE) or not holds_any(columns, *PROMPTS):
        return False
    if holds_any(columns, "prompt", "question", "instruction") and holds(columns, "chosen", "rejected"):
        return False
    is_alpaca = holds(columns, "instruction", "output") and not holds(columns, "rejected_response")
    if is_alpaca or are_lists(columns):
        return False
    return holds_any(columns, *_GOOD, "chosen_response") or holds(columns, "chosen", "rejected")


def read(row: SourceRow) -> list[Sample]:
    """Turn a row into a sample.

    Raises:
        BadSample: naming the column; `wrong_type` where two columns could be the prompt.
    """
    columns = row.parsed()
    prompt = instruction_of(row) if holds(columns, "instruction", "input") else columns[_one(row, PROMPTS)]
    if holds_any(columns, *_REJECTED):
        chosen = _one(row, _CHOSEN if holds_any(columns, *_CHOSEN) else _GOOD)
        answers = {"chosen": columns[chosen], "rejected": columns[_one(row, _REJECTED)]}
    else:
        answers = {"completion": columns[_one(row, (*_GOOD, *_CHOSEN))]}
    return [make_sample(row, prompt, answers=answers)]


def reads(columns: Mapping[str, Any]) -> Collection[str]:
    """Columns of a row that are read."""
    is_pair = holds_any(columns, *_REJECTED) and holds_any(columns, *_CHOSEN)
    return (*PROMPTS, *_CHOSEN, *_REJECTED, *(() if is_pair else _GOOD))


def _one(row: SourceRow, names: tuple[str, ...]) -> str:
    held = [name for name in names if row.parsed().get(name) is not None]
    if len(held) == 1:
        return held[0]
    if held:
        raise BadSample(Reason.WRONG_TYPE, row.where, f"{' and '.join(held)}: expected one of them")
    raise BadSample(Reason.MISSING_FIELD, row.where, f"expected one of the columns {', '.join(names)}")
