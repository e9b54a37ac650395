"""Names of columns that several formats share."""

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
    "completions",
    "history",
    "chat_history",
    "images",
    "rejected_images",
    "objects",
    "facts",
    "scores",
    "tools",
)
"""Columns that hold lists of objects, or of texts that are no prompts."""
