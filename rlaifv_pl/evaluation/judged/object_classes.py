"""Objects that a judge has listed, as words of COCO's classes.

By the rules of Object HalBench: a known phrase stands for the whole listed name, otherwise its nouns do; each word
counts once in an answer. The authors find nouns with a tagger, and two nouns in a row are one unknown name to them.
Here the last word of a name counts, before any `of` or `with`: a wooden table is a table, and a dog leash no dog, as
there; but a coffee mug is a cup, which the authors' rules lose.
"""

from collections.abc import Iterable, Sequence

from rlaifv_pl.evaluation.chair.forms import classes, phrases, singular
from rlaifv_pl.evaluation.tokenization import BREAK, treebank_tokens
from rlaifv_pl.feedback.claims.english.lexicon import words_of

_BETWEEN = words_of("and at behind beside by for from in inside near next of on or over to under with") | {
    BREAK,
    "'s",
}


def named_classes(listed: Iterable[str]) -> list[str]:
    """Return the class of each word that an answer's listed objects name, every word once.

    >>> named_classes(["two men", "a man", "people", "Dog leash", "traffic light pole", "group of dogs", "sky"])
    ['person', 'person', 'traffic light', 'dog']
    """
    table = classes("C")
    words = dict.fromkeys(word for name in listed for word in _words(name))
    if "toilet" in words:
        words.pop("seat", None)
    return [table[word] for word in words if word in table]


def _words(name: str) -> list[str]:
    tokens = treebank_tokens(name.lower())
    known = [_singular(token) for token in tokens]
    if joined := _phrases(known):
        return joined
    ends = [*tokens, BREAK][1:]
    return [word for word, following in zip(known, ends, strict=True) if word and following in _BETWEEN]


def _phrases(known: Sequence[str]) -> list[str]:
    """Return the words that pairs of words count as, from left to right."""
    table, words, at = phrases("C"), [], 0
    while at < len(known):
        word = table.get(tuple(known[at : at + 2]))
        words += [word] if word else []
        at += 2 if word else 1
    return words


def _singular(token: str) -> str:
    # The authors' tagger has no such mistakes as each variant has, and none that both have.
    return singular(token, "C") or singular(token, "A")
