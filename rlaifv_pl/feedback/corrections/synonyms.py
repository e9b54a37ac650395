"""Names of objects that do not depend on the words of a text: plurals and synonyms come to one name."""

from functools import cache

from rlaifv_pl import coco
from rlaifv_pl.feedback.claims.english import lexicon
from rlaifv_pl.feedback.claims.english.inflection import IRREGULAR_PLURALS

_SEXES = ("man boy male gentleman guy father brother", "woman girl female lady mother sister")
"""People that are no synonyms of one another, though CHAIR counts all of them as persons."""


@cache
def _class_by_word() -> dict[str, str]:
    """Class of each word, or of two with a blank between."""
    phrases = {phrase: name for name, listed in coco.PHRASES.items() for phrase in listed}
    singles = {word: name for name, listed in coco.OTHERS.items() for word in listed.split()}
    return {name: name for name in coco.PLAIN} | singles | phrases


def singular(word: str) -> str:
    """Return a noun as the dictionary has it.

    >>> singular("men"), singular("buses"), singular("cups"), singular("glass"), singular("ties")
    ('man', 'bus', 'cup', 'glass', 'tie')
    """
    irregular = IRREGULAR_PLURALS.get(word, "")
    for form in (word, irregular, word.removesuffix("s"), word.removesuffix("es")):
        if form in _class_by_word():
            return form
    return irregular or (lexicon.base_of(word) if len(word) > 3 else word)


def canonical_names(words: list[str]) -> tuple[str, ...]:
    """Return the words with each object by one name, two words of a phrase as one.

    >>> canonical_names("two bikes and a mobile phone".split())
    ('two', 'bicycle', 'and', 'a', 'cell phone')
    """
    nouns, names = [singular(word) for word in words], []
    while nouns:
        length = 2 if " ".join(nouns[:2]) in _class_by_word() else 1
        phrase = " ".join(nouns[:length])
        names.append(_class_by_word().get(phrase, phrase))
        del nouns[:length]
    return tuple(names)


def sexes(words: list[str]) -> frozenset[int]:
    """Return the sexes that the words name, as numbers."""
    nouns = {singular(word) for word in words}
    return frozenset(number for number, listed in enumerate(_SEXES) if nouns & {*listed.split()})


def is_object(name: str) -> bool:
    """Whether a name is that of a class."""
    return name in coco.PLAIN


def ends_noun_phrase(word: str) -> bool:
    """Whether the words from this one on say where an object is or what it does."""
    acts = word in lexicon.BASES or word in lexicon.VERBS or word.endswith("ing")
    return word in lexicon.PREPOSITIONS or (acts and word not in lexicon.NOT_GERUNDS)


def stem(word: str) -> str:
    """Return what the forms of a verb have in common.

    >>> stem("rides"), stem("riding"), stem("ride"), stem("running"), stem("runs")
    ('rid', 'rid', 'rid', 'run', 'run')
    """
    if is_object(word) or word in lexicon.NOT_GERUNDS:
        return word
    short = word.removesuffix("ing") if len(word) > 5 else word
    if short != word and short[-1] == short[-2]:
        short = short[:-1]
    return (lexicon.base_of(word) if short == word else short).removesuffix("e")
