"""Forms that a word of the vocabulary has in a text, by the variant of CHAIR.

Variants differ in how they bring a word into the singular: A as `pattern` does, C as WordNet does for nouns. Both make
mistakes, which are part of the variant, for every published figure has them. Of all words only those of a closed
vocabulary matter, so that each variant is a table: regular forms, and here what is irregular or mistaken.
"""

from functools import cache
from typing import Literal

from rlaifv_pl import coco as words
from rlaifv_pl.feedback.claims.english.inflection import IRREGULAR_PLURALS, plural
from rlaifv_pl.feedback.claims.english.lexicon import words_of

Variant = Literal["A", "C"]

_MISTAKEN: dict[Variant, dict[str, str]] = {
    "A": {
        "broncoes": "bronco",
        "childrens": "child",
        "cockatooes": "cockatoo",
        "limoes": "limo",
        "palominoes": "palomino",
    },
    "C": {"thieves": "thief", "busses": "bus", "taxies": "taxi"},
}
_ENDINGS: dict[Variant, dict[str, str]] = {
    # Whatever ends so, an omnibus as well as a mistyped "dogs/collies".
    "A": {"buses": "bus", "collies": "collie", "doggies": "doggie"},
    "C": {},
}
_LOST: dict[Variant, frozenset[str]] = {
    # Taken for plurals (a "bu"), or for those of other words (a "ty", a "cano").
    "A": words_of("airbus airbuses bus canoes magpies minibus minibuses ties"),
    # WordNet lacks the singular, knows the plural as a word, or has a shorter one ("vas").
    "C": words_of(
        "bikers bluejays brindles coworkers firetrucks hairdryers lenovos longboards macbooks men netbooks paddleboats "
        "pitbulls riverboats sailboards shortboards skimboards smartphones soliders stovetops teddybears televisons "
        "vases"
    ),
}


def singular(token: str, variant: Variant) -> str:
    """Return the word of the vocabulary that a token is a form of; empty if it is none.

    >>> singular("knives", "A"), singular("canoes", "A"), singular("canoes", "C")
    ('knife', '', 'canoe')
    """
    if token in (table := _singulars(variant)):
        return table[token]
    return next((word for ending, word in _ENDINGS[variant].items() if token.endswith(ending)), "")


@cache
def classes(variant: Variant) -> dict[str, str]:
    """Return the class of each word or phrase."""
    lost = words.LOST if variant == "A" else ()
    return {word: name for word, name in _all_classes(variant).items() if word not in lost}


@cache
def phrases(variant: Variant) -> dict[tuple[str, ...], str]:
    """Return two words, in the singular, with the word that they count as; what is not in `classes` is no mention."""
    table = {phrase: phrase for phrase in (*_all_classes(variant), *words.NO_OBJECTS) if " " in phrase}
    table |= {f"{age} {animal}": animal for age in ("baby", "adult") for animal in words.ANIMALS}
    table |= {f"passenger {carrier}": carrier for carrier in words.CARRIERS}
    table |= {"bow tie": "tie", "toilet seat": "toilet"}
    return {tuple(phrase.split()): word for phrase, word in table.items()}


@cache
def _singulars(variant: Variant) -> dict[str, str]:
    """Return the word of each form, for all words of the vocabulary and those that its phrases consist of."""
    known = set(_all_classes(variant)) | {part for phrase in phrases(variant) for part in phrase}
    table = {form: word for word in sorted(known) for form in (word + "s", plural(word))}
    table |= {form: word for form, word in IRREGULAR_PLURALS.items() if word in known}
    table |= _MISTAKEN[variant] | {word: word for word in known}
    return {form: word for form, word in table.items() if form not in _LOST[variant]}


def _all_classes(variant: Variant) -> dict[str, str]:
    """Return the class of each word or phrase, the lost ones included."""
    table = {name: name for name in words.PLAIN}
    for more in (words.OTHERS, words.REFINED if variant == "C" else {}):
        table |= {word: name for name, listed in more.items() for word in listed.split()}
    return table | {phrase: name for name, listed in words.PHRASES.items() for phrase in listed}
