"""Names of columns that several formats share, and whether a row has something in them."""

from collections.abc import Mapping
from typing import Any

Cells = Mapping[str, Any]
"""The cells of a row by the name of their column."""

PROMPTS = ("prompt", "question", "query", "instruction", "input", "problem")
"""Columns of one text that come before an answer."""
ANSWERS = (
    "chosen", "rejected", "completion", "completions", "response", "answer", "output", "target", "refinement",
    "chosen_response", "rejected_response", "response_1", "response_2",
)  # fmt: skip
DIALOGUES = (
    "messages", "conversations", "chosen_messages", "rejected_messages", "chosen_conversations",
    "rejected_conversations",
)  # fmt: skip
"""Columns of several turns."""
SYSTEMS = ("system", "system_prompt")
"""Columns of the text that precedes the first turn."""
HISTORIES = ("history", "chat_history")
"""Columns of earlier turns."""
MARKS = ("label", "kto_tag")
"""Columns that tell a good answer from a bad one."""
LISTS = (
    "completions", "history", "chat_history", "images", "rejected_images", "objects", "facts", "scores", "tools",
)  # fmt: skip
"""Columns that hold lists of objects, or of texts that are no prompts."""


def readable_name(name: str) -> str:
    """Return a column's name without blanks and byte order marks around it, and with escapes for what has no letter.

    >>> print(readable_name("\\ufeff prompt "), readable_name("a\\0b"))
    prompt a\\x00b
    """
    name = name.strip().strip("\ufeff").strip()
    letters = (
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name
    )
    return "".join(letters)


def holds(columns: Cells, *names: str) -> bool:
    """Whether there is something in each of these columns."""
    return all(columns.get(name) is not None for name in names)


def holds_any(columns: Cells, *names: str) -> bool:
    """Whether there is something in one of these columns."""
    return any(columns.get(name) is not None for name in names)


def are_lists(columns: Cells) -> bool:
    """Whether chosen and rejected are lists of texts: several answers a side."""
    sides = [columns.get("chosen"), columns.get("rejected")]
    return all(
        isinstance(side, list) and side and all(isinstance(text, str) for text in side) for side in sides
    )


def is_before_answer(message: object) -> bool:
    """Whether a message is of the user or the system."""
    roles = [message.get("role"), message.get("from")] if isinstance(message, Mapping) else []
    return any(role in ("user", "human", "system") for role in roles)
