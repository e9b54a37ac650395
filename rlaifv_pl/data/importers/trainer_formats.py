"""Formats of trainers: TRL, LLaVA, LLaMA-Factory, ms-swift, and a column for each text (OpenRLHF, Axolotl, EasyR1).

A format is two functions: whether a row looks like it, by its columns, and the row's samples. The latter raise
`BadSample`, naming the column.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from rlaifv_pl.data.bad_samples import Reason
from rlaifv_pl.data.importers.column_names import (
    ANSWERS,
    PROMPTS,
    Cells,
    are_lists,
    holds,
    holds_any,
    is_before_answer,
)
from rlaifv_pl.data.importers.messages import Turn, split_pair, split_texts
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.samples import make_sample, read_instruction, refuse_unanswered
from rlaifv_pl.data.importers.sources import bad_row
from rlaifv_pl.records import Sample

_PAIR = ("chosen", "rejected")
_TRL_ANSWERS = (*_PAIR, "completion")
_NOT_TRL = ("chosen", "rejected_response", "rejected_messages", "rejected_images", "kto_tag", "label")
"""Columns beside messages that make a row one of another format."""
_DIALOGUE_PAIRS = (
    ("chosen_messages", "rejected_messages"),
    ("chosen_conversations", "rejected_conversations"),
    ("conversations", "rejected_conversations"),
)
_SWIFT_REJECTED = ("rejected_response", "rejected_messages", "rejected_images")
_PLAIN_CHOSEN = ("chosen", "chosen_response")
_PLAIN_REJECTED = ("rejected", "rejected_response")
_PLAIN_ANSWERS = ("response", "answer", "output", "target")
_NOT_PLAIN = ("completion", "conversations", "messages", "refinement", "overall_response")


def is_trl(columns: Cells) -> bool:
    """Whether a row is TRL's: preference (with or without a prompt column), prompt and completion, messages, prompt.

    MM-RLHF, 2U1's Qwen-VL, torchtune and verl write rows of the same columns.
    """
    if holds(columns, "messages"):
        if holds(columns, "prompt", *_PAIR):
            return not are_lists(columns)
        return not holds_any(columns, *_NOT_TRL)
    if holds(columns, *_PAIR):
        explicit = holds(columns, "prompt") or not holds_any(
            columns, *PROMPTS, "conversations", "messages", "context"
        )
        return explicit and not are_lists(columns)
    return holds(columns, "prompt") and (holds(columns, "completion") or not holds_any(columns, *ANSWERS))


def read_trl(row: SourceRow) -> list[Sample]:
    """Turn a row of texts or messages into a sample; empty columns of answers are `missing_answer`."""
    columns = row.columns
    if _is_dialogue(columns):
        messages = row.messages("messages")
        return [make_sample(row, messages[:-1], {"completion": messages[-1:]})]
    answers = {name: columns[name] for name in _TRL_ANSWERS if columns.get(name) is not None}
    if holds(columns, *_PAIR) and (columns.get("prompt") is None or _repeat_prompt(answers)):
        prompt, pair = _split_implicit(row)
        return [make_sample(row, prompt, answers | pair)]
    if not answers:
        refuse_unanswered(row)
    return [make_sample(row, row.require("prompt"), answers)]


def trl_columns(columns: Cells) -> Collection[str]:
    """Return the columns that `read_trl` reads of a row."""
    return ("messages",) if _is_dialogue(columns) else ("prompt", *_TRL_ANSWERS)


def _is_dialogue(columns: Cells) -> bool:
    """Whether a dialogue holds all of a row: UltraFeedback has it beside the pair."""
    return holds(columns, "messages") and not holds(columns, "prompt", *_PAIR)


def _split_implicit(row: SourceRow) -> tuple[object, dict[str, object]]:
    """Take as prompt what the sides have in common from the start."""
    chosen, rejected = row.columns["chosen"], row.columns["rejected"]
    split: tuple[object, object, object]
    if isinstance(chosen, str) and isinstance(rejected, str):
        split = split_texts(chosen, rejected)
    else:
        split = split_pair(row.messages("chosen"), row.messages("rejected"))
    return split[0], {"chosen": split[1], "rejected": split[2]}


def _repeat_prompt(answers: Cells) -> bool:
    """Whether both sides repeat the prompt that has a column of its own."""
    sides = [answers["chosen"], answers["rejected"]]
    return all(isinstance(side, list) and len(side) > 1 and is_before_answer(side[0]) for side in sides)


def is_llava(columns: Cells) -> bool:
    """Whether a row is LLaVA's for SFT; with `chosen` it would be a preference format."""
    return holds(columns, "conversations") and not holds_any(
        columns, *_PAIR, "rejected_conversations", "kto_tag"
    )


def read_llava(row: SourceRow) -> list[Sample]:
    """Turn `{id, image, conversations: [{from, value}]}` into a sample; LLaMA-Factory's sharegpt is the same.

    The last answer becomes the completion; earlier ones stay in the prompt, and SFT learns them too.
    """
    conversations = row.require("conversations")
    if not isinstance(conversations, list) or len(conversations) < 2:
        raise bad_row(
            Reason.WRONG_TURNS, "conversations: expected a list of at least a question and an answer"
        )
    return [make_sample(row, conversations[:-1], {"completion": conversations[-1:]})]


def is_alpaca(columns: Cells) -> bool:
    """Whether a row is an instruction with its input and an answer or a pair."""
    is_answered = holds(columns, "output") and not holds(columns, "rejected_response")
    return holds(columns, "instruction") and (is_answered or holds(columns, *_PAIR))


def read_alpaca(row: SourceRow) -> list[Sample]:
    """Turn a row into a sample; `input` follows the instruction."""
    if holds_any(row.columns, *_PAIR):
        return [make_sample(row, read_instruction(row), {name: row.require(name) for name in _PAIR})]
    return [make_sample(row, read_instruction(row), {"completion": row.require("output")})]


def is_sharegpt(columns: Cells) -> bool:
    """Whether a row is LLaMA-Factory's dialogue that waits for its answer, with a pair of them."""
    is_waiting = holds_any(columns, "conversations", "messages") and not holds(columns, "messages", "prompt")
    return is_waiting and holds(columns, *_PAIR)


def read_sharegpt(row: SourceRow) -> list[Sample]:
    """Turn a dialogue and its pair of answers into a sample."""
    answers = {name: row.require(name) for name in _PAIR}
    return [make_sample(row, _dialogue(row), answers)]


def is_v1(columns: Cells) -> bool:
    """Whether a row has two whole dialogues (LLaMA-Factory's v1, torchtune, CSR), and no third."""
    return any(holds(columns, *names) for names in _DIALOGUE_PAIRS) and not holds(columns, "messages")


def read_v1(row: SourceRow) -> list[Sample]:
    """Turn two dialogues into a sample; the prompt is what both begin with."""
    names = next((names for names in _DIALOGUE_PAIRS if holds(row.columns, *names)), _DIALOGUE_PAIRS[0])
    prompt, chosen, rejected = split_pair(*map(row.messages, names))
    return [make_sample(row, prompt, {"chosen": chosen, "rejected": rejected})]


def is_kto(columns: Cells) -> bool:
    """Whether a row is a dialogue whose last answer is marked good or bad."""
    return holds_any(columns, "conversations", "messages") and holds(columns, "kto_tag")


def read_kto(row: SourceRow) -> list[Sample]:
    """Turn a row into a sample to learn by SFT if its answer is marked as good; `unpaired` if it is marked as bad."""
    *prompt, answer = _dialogue(row)
    return [make_sample(row, prompt, {"completion": [answer]})]


def _dialogue(row: SourceRow) -> list[Any]:
    return row.messages("conversations" if holds(row.columns, "conversations") else "messages")


def is_swift(columns: Cells) -> bool:
    """Whether a row is ms-swift's: messages that end in the chosen answer, and beside them what is rejected."""
    if not holds(columns, "messages") or holds_any(columns, "chosen", "kto_tag"):
        return False
    return holds_any(columns, *_SWIFT_REJECTED, "label")


def read_swift(row: SourceRow) -> list[Sample]:
    """Turn a row into a sample; one that is only marked good by its `label` becomes one of SFT.

    Rejected is an answer, a dialogue, or images alone, for which the same answer is the worse one.
    """
    messages, columns = row.messages("messages"), row.columns
    *prompt, answer = messages
    if holds(columns, "rejected_messages"):
        prompt, chosen, rejected = split_pair(messages, row.messages("rejected_messages"))
        answers = {"chosen": chosen, "rejected": rejected}
    elif holds(columns, "rejected_response"):
        answers = {"chosen": [answer], "rejected": columns["rejected_response"]}
    elif holds(columns, "rejected_images"):
        answers = {"chosen": [answer], "rejected": [answer]}
    else:
        answers = {"completion": [answer]}
    return [_with_all_tags(make_sample(row, prompt, answers))]


def _with_all_tags(sample: Sample) -> Sample:
    """Put tags of the images without one before the first text of the user, if others have one."""
    turns = [
        {**turn, "content": _blocks(turn["content"])} for turn in sample.prompt if isinstance(turn, Mapping)
    ]
    tags = sum(block["type"] == "image" for turn in turns for block in turn["content"])
    first: Turn | None = next((turn for turn in turns if turn["role"] == "user"), None)
    if first is None or not 0 < tags < len(sample.images):
        return sample
    first["content"] = [{"type": "image"}] * (len(sample.images) - tags) + first["content"]
    return replace(sample, prompt=turns)


def _blocks(content: str | list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def is_plain(columns: Cells) -> bool:
    """Whether a row has a column for each text, under names in use, and looks like nothing more particular."""
    if holds_any(columns, *_NOT_PLAIN) or not holds_any(columns, *PROMPTS):
        return False
    if holds_any(columns, "prompt", "question", "instruction") and holds(columns, *_PAIR):
        return False
    if are_lists(columns) or (
        holds(columns, "instruction", "output") and not holds(columns, "rejected_response")
    ):
        return False
    return holds_any(columns, *_PLAIN_ANSWERS, "chosen_response") or holds(columns, *_PAIR)


def read_plain(row: SourceRow) -> list[Sample]:
    """Turn texts or messages into a sample; an answer alone is learned by SFT."""
    columns = row.columns
    prompt = read_instruction(row) if holds(columns, "instruction", "input") else row.require_one(*PROMPTS)
    if not holds_any(columns, *_PLAIN_REJECTED):
        return [make_sample(row, prompt, {"completion": row.require_one(*_PLAIN_ANSWERS, *_PLAIN_CHOSEN)})]
    good = _PLAIN_CHOSEN if holds_any(columns, *_PLAIN_CHOSEN) else _PLAIN_ANSWERS
    answers = {"chosen": row.require_one(*good), "rejected": row.require_one(*_PLAIN_REJECTED)}
    return [make_sample(row, prompt, answers)]


def plain_columns(columns: Cells) -> Collection[str]:
    """Return the columns that `read_plain` reads of a row."""
    is_pair = holds_any(columns, *_PLAIN_REJECTED) and holds_any(columns, *_PLAIN_CHOSEN)
    return (*PROMPTS, *_PLAIN_CHOSEN, *_PLAIN_REJECTED, *(() if is_pair else _PLAIN_ANSWERS))
