"""Objects of COCO that a description mentions, in its own order, each as often as it is mentioned."""

from collections.abc import Iterator
from typing import NamedTuple

from rlaifv_pl.evaluation.chair.forms import Variant, classes, phrases, singular
from rlaifv_pl.evaluation.tokenization import treebank_tokens


class Mention(NamedTuple):
    """A class and the place of its mention."""

    name: str
    start: int
    """Place of its first character in the text."""
    end: int


def mentions(text: str, variant: Variant) -> list[str]:
    """Return the class of each mention.

    >>> mentions("Two men feed a baby elephant near the traffic lights; a bus waits.", "A")
    ['person', 'elephant', 'traffic light']
    >>> mentions("Two men feed a baby elephant near the traffic lights; a bus waits.", "C")
    ['elephant', 'traffic light', 'bus']
    """
    return [mention.name for mention in located(text, variant)]


def located(text: str, variant: Variant) -> list[Mention]:
    """Return each mention with its place.

    >>> text = "Two DOGS, a stop  light."
    >>> [(one.name, text[one.start : one.end]) for one in located(text, "A")]
    [('dog', 'DOGS'), ('traffic light', 'stop  light')]
    """
    lower = text.lower()
    if len(lower) != len(text):  # A letter or two of all that there are become longer.
        lower = "".join(letter if len(letter.lower()) > 1 else letter.lower() for letter in text)
    tokens, table = treebank_tokens(lower), classes(variant)
    named = list(_named(tokens, variant))
    lost = {"seat"} if any(word == "toilet" for word, _, _ in named) else set()
    places = _places(lower, tokens)
    return [
        Mention(table[word], places[first][0], places[last][1])
        for word, first, last in named
        if word in table and word not in lost
    ]


def _named(tokens: list[str], variant: Variant) -> Iterator[tuple[str, int, int]]:
    """Yield words of the vocabulary in the singular, two of a phrase as the one that they count as (others empty), with
    the numbers of their first and last token."""
    joined = phrases(variant)
    known = [singular(token, variant) for token in tokens]
    at = 0
    while at < len(known):
        pair = tuple(known[at : at + 2])
        last = at + (pair in joined)
        yield joined.get(pair, known[at]), at, last
        at = last + 1


def _places(text: str, tokens: list[str]) -> list[tuple[int, int]]:
    """Return start and end of each token; no character is in two tokens, and only blanks and marks are in none."""
    places, at = [], 0
    for token in tokens:
        start = text.find(token, at)
        # A break stands for marks that may be any.
        at = at if start < 0 else start + len(token)
        places.append((max(start, 0), at))
    return places
