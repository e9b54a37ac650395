"""Markup of chat templates in plain text: special tokens, and turns that a template has written already.

A tokenizer reads a special token anywhere, so that `</s>` in an answer ends it and `<image>` in a question stands for
an image that does not exist. Tokens of the common families are listed here; `Chat` adds those of its model.
"""

import re
from collections.abc import Collection

END_TOKENS = (
    "</s>", "<eos>", "<pad>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>",
    "<|eot|>", "<|return|>", "<end_of_turn>", "<turn|>", "<end_of_utterance>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>", "<|END_OF_TURN_TOKEN|>",
)  # fmt: skip
"""Tokens that some family writes behind an answer, padding included."""

_STRUCK_OUT = re.compile(r"(?!\A)<s>[^<]*</s>")
"""HTML strike-through, which is no token of Llama's."""

_SPECIAL = re.compile(
    r"<\|[A-Za-z][\w/-]{1,40}\|?>|<[A-Za-z][\w-]{1,40}\|>|<\uff5c[^<>\uff5c]{1,40}\uff5c>|\[\|[A-Za-z]{2,20}\|\]"
    r"|</?s>|<(?:eos|bos|pad|unk|image|start_of_turn|end_of_turn|start_of_image|end_of_image|image_soft_token"
    r"|end_of_utterance|fake_token_around_image|global-img|row_\d+_col_\d+|IMG_CONTEXT|im_start|im_end|im_patch)>"
    r"|\[/?INST\]|<</?SYS>>"
)
_TURN = re.compile(
    r"<\|(?:im_start|start_header_id|header_start|start|turn|user|assistant|system|human|end_of_role|start_of_role)\|?>"
    r"|<\uff5c(?:User|Assistant)\uff5c>|\[\|(?:user|assistant|system|human)\|\]|<start_of_turn>|\[/?INST\]|<</?SYS>>",
    re.IGNORECASE,
)

_USER = r"(?:USER|HUMAN|User|Human)\s?:|#{2,3}\s?(?:Human|User|Instruction)\s?:"
_ASSISTANT = r"(?:ASSISTANT|GPT|AI|Assistant)\s?:|#{2,3}\s?(?:Assistant|Response)\s?:"
_ASKED = re.compile(rf"(?:\A|(?<=[\s>]))(?:{_USER})")
_ASKED_FIRST = re.compile(rf"\s*({_USER})")
_ANSWERED = re.compile(rf"(?:^|(?<=\n))[ \t]*({_ASSISTANT})|[.?!>]\s?(ASSISTANT\s?:)")
_ANSWERED_LAST = re.compile(rf"(?<=[\s>])(?:{_ASSISTANT})\Z")
_LONGEST_LABEL = 24
_ANSWER_LABEL = re.compile(r"\s*(?:ASSISTANT|#{2,3}\s?(?:Assistant|Response))\s?:")


def markup_in(text: str) -> str | None:
    """Return the first template turn or special token in a text, or None for plain words."""
    return turns_in(text) or special_token_in(text)


def without_end(text: str, ends: Collection[str] = END_TOKENS) -> str:
    """Strip end tokens and padding from the end of an answer; an answer without any is unchanged.

    >>> without_end("A red square. </s>")
    'A red square.'
    >>> without_end("The old price is <s>5</s>")
    'The old price is <s>5</s>'
    """
    stripped = whole = _masked(text).rstrip()
    while end := next((token for token in ends if stripped.endswith(token)), ""):
        stripped = stripped.removesuffix(end).rstrip()
    return text if stripped == whole else text[: len(stripped)]


def special_token_in(text: str) -> str | None:
    """Return the first special token of a common family in a text.

    >>> special_token_in("Sit.<|im_end|> Stay."), special_token_in("Is x<y or y>z?")
    ('<|im_end|>', None)
    """
    match = _SPECIAL.search(_masked(text))
    return match[0] if match else None


def plain(text: str, special: re.Pattern[str] = _SPECIAL) -> str:
    """Insert a blank into each special token, so that a model reads it as words.

    Meant for text about a text, such as a claim. Texts to be learned or answered are refused instead.

    >>> plain("Is there an <image>?")
    'Is there an < image>?'
    """
    return special.sub(lambda token: f"{token[0][0]} {token[0][1:]}", text)


def turns_in(text: str) -> str | None:
    """Return the evidence that a text contains turns of a chat template, or None.

    >>> turns_in("USER: <image>\\nWhat is it? ASSISTANT:"), turns_in("What does USER: mean on the screen?")
    ('USER: ... ASSISTANT:', None)
    """
    if token := _TURN.search(text):
        return token[0]
    if label := _ANSWER_LABEL.match(text):
        return label[0].strip()
    return _labels_in(text.rstrip())


def _labels_in(text: str) -> str | None:
    """Find role labels: both must occur, and one must begin or end the text. A question may mention a USER."""
    if (asked := _ASKED.search(text)) and (last := _ANSWERED_LAST.search(text, len(text) - _LONGEST_LABEL)):
        return f"{asked[0]} ... {last[0]}"
    if (asked := _ASKED_FIRST.match(text)) and (answered := _ANSWERED.search(text)):
        return f"{asked[1]} ... {answered[1] or answered[2]}"
    return None


def _masked(text: str) -> str:
    """Replace HTML strike-through by letters of the same length."""
    return _STRUCK_OUT.sub(lambda tag: "x" * len(tag[0]), text) if "<s>" in text else text
