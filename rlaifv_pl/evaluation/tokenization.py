"""Words of a text as the Penn Treebank cuts them: published figures rest on these bounds."""

import re

# A mark between letters without a space belongs to the word (o'clock, and/or, t-shirt) unless it is one of these.
# A full stop ends a word only where it ends a sentence.
_APART = re.compile(r"[;@#$%&*?!()\[\]{}<>\"`\u00ab\u00bb\u201c\u201d\u201e\u2018\u2019]|--+|\.{2,}|''")
_COMMA = re.compile(r"[:,](?=\D|$)")
_STOP = re.compile(r"(?<=[^.\s])\.(?=['\s\x01]*(?:\s|$))")
_CLITIC = re.compile(r"(?<=[^'\s])(?='(?:s|m|d|ll|re|ve)?(?:\s|$))|(?<=\w)(?=n't(?:\s|$))", re.IGNORECASE)

BREAK = "\x01"
"""Stands for punctuation: no two words join across it."""


def treebank_tokens(text: str) -> list[str]:
    """Split a text into words, with a `BREAK` for each mark.

    >>> treebank_tokens("The man's t-shirt, at 5 o'clock.")
    ['The', 'man', "'s", 't-shirt', '\\x01', 'at', '5', "o'clock", '\\x01']
    """
    for pattern in (_APART, _COMMA, _STOP):
        text = pattern.sub(f" {BREAK} ", text)
    return _CLITIC.sub(" ", text).split()
