"""Which objects of COCO a description mentions, in its own order, each as often as it is mentioned."""

from collections.abc import Iterator

from rlaifv_pl.metrics.chair.forms import Variant, classes, phrases, singular
from rlaifv_pl.metrics.english import tokens


def mentions(text: str, variant: Variant) -> list[str]:
    """Class of each mention.

    >>> mentions("Two men feed a baby elephant near the traffic lights; a bus waits.", "A")
    ['person', 'elephant', 'traffic light']
    >>> mentions("Two men feed a baby elephant near the traffic lights; a bus waits.", "C")
    ['elephant', 'traffic light', 'bus']
    """
    named, table = list(_named(tokens(text.lower()), variant)), classes(variant)
    if "toilet" in named:
        named = [word for word in named if word != "seat"]
    return [table[word] for word in named if word in table]


def _named(found: list[str], variant: Variant) -> Iterator[str]:
    """Words of the vocabulary in the singular, two of a phrase as the one that they count as; others empty."""
    joined = phrases(variant)
    known = [singular(token, variant) for token in found]
    at = 0
    while at < len(known):
        pair = tuple(known[at : at + 2])
        yield joined.get(pair, known[at])
        at += 2 if pair in joined else 1
