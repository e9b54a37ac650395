"""Which things a text names, whatever words it has for them: plurals and synonyms come to one name."""

from functools import cache

from rlaifv_pl import coco
from rlaifv_pl.feedback.claims.english import lexicon
from rlaifv_pl.feedback.claims.english.inflection import IRREGULAR_PLURALS
from rlaifv_pl.feedback.claims.english.lexicon import base_of

_SEXES = ("man boy male gentleman guy father brother", "woman girl female lady mother sister")
"""People that are not said in other words by one another, though CHAIR counts all of them as persons."""


@cache
def _classes() -> dict[str, str]:
    """A word, or two with a blank between, to the name of its class."""
    phrases = {phrase: name for name, listed in coco.PHRASES.items() for phrase in listed}
    singles = {word: name for name, listed in coco.OTHERS.items() for word in listed.split()}
    return {name: name for name in coco.PLAIN} | singles | phrases


def singular(word: str) -> str:
    """A noun as the dictionary has it.

    >>> singular("men"), singular("buses"), singular("cups"), singular("glass"), singular("ties")
    ('man', 'bus', 'cup', 'glass', 'tie')
    """
    if word in _classes():
        return word
    forms = (IRREGULAR_PLURALS.get(word, ""), word.removesuffix("s"), word.removesuffix("es"))
    known = next((form for form in forms if form in _classes()), "")
    return known or forms[0] or (base_of(word) if len(word) > 3 else word)


def names(words: list[str]) -> tuple[str, ...]:
    """The words with each thing by one name, two words of a phrase as one.

    >>> names("two bikes and a mobile phone".split())
    ('two', 'bicycle', 'and', 'a', 'cell phone')
    """
    known = [singular(word) for word in words]
    found, place = [], 0
    while place < len(known):
        pair = " ".join(known[place : place + 2])
        length = 2 if pair in _classes() else 1
        found.append(_classes().get(pair if length == 2 else known[place], known[place]))
        place += length
    return tuple(found)


def sexes(words: list[str]) -> frozenset[int]:
    """Which sexes the words tell, as numbers."""
    known = {singular(word) for word in words}
    return frozenset(number for number, listed in enumerate(_SEXES) if known & {*listed.split()})


def is_object(name: str) -> bool:
    """Whether a name is that of a class."""
    return name in coco.PLAIN


def ends_phrase(word: str) -> bool:
    """Whether what follows says where a thing is or what it does."""
    acts = word in lexicon.BASES or word in lexicon.VERBS or word.endswith("ing")
    return word in lexicon.PREPOSITIONS or (acts and word not in lexicon.NOT_GERUNDS)


def stem(word: str) -> str:
    """What the forms of a verb have in common.

    >>> stem("rides"), stem("riding"), stem("ride"), stem("running"), stem("runs")
    ('rid', 'rid', 'rid', 'run', 'run')
    """
    if is_object(word) or word in lexicon.NOT_GERUNDS:
        return word
    short = word.removesuffix("ing") if len(word) > 5 else word
    if short != word and short[-1] == short[-2]:
        short = short[:-1]
    return (base_of(word) if short == word else short).removesuffix("e")
