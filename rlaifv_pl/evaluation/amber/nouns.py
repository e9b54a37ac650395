"""The nouns of a description that AMBER knows.

Its scorer tags every word with a model, and takes what was tagged a noun into the singular by WordNet. The nouns are
those of a closed vocabulary, so here a table has the forms, and a few rules leave out the words that are no nouns where
they stand, above all the verb can. On 1,000 descriptions of LLaVA and mPLUG-Owl the two agree on 98 of 100;
figures that have to agree with the scorer's to the last digit want its tagger, as `nouns` of the metric.
"""

import re
from collections.abc import Callable, Collection

from rlaifv_pl.evaluation.tokenization import treebank_tokens
from rlaifv_pl.feedback.claims.english.inflection import IRREGULAR_PLURALS, plural
from rlaifv_pl.feedback.claims.english.lexicon import words_of

Nouns = Callable[[str], list[str]]
"""Returns the nouns of a text in the singular, in order."""

_IRREGULAR = {"busses": "bus"} | {
    form: IRREGULAR_PLURALS[form]
    for form in words_of(
        "bookshelves children fishes geese knives mice potatoes scarves shelves tomatoes women"
    )
}
_LOST = words_of(
    "TVs air-conditionings baconics bedsheets canns catholes chopsticks closestools cooktops dogholes e-books earings "
    "earrings ebooks electrombiles hots kiwifruits leaves paragliders pissoirs rpoes sanitizers scoons seegulls "
    "showerpuffs slippers streetlamps sunglasses vases waterfonts"
)
"""Forms that WordNet does not take to the word of the vocabulary."""

_ADJECTIVES = words_of("hot")
_VERBS_WITHOUT_ARTICLE = words_of("can drawing sailing leave")
"""Verbs, unless a determiner stands in front of them."""
_DETERMINERS = re.compile(
    r"a|an|the|this|that|each|every|another|one|of|his|her|its|their|\w+ed|tin|trash|beer|soda"
)
_BEFORE_VERBS = words_of(
    "to can could will would may might must should he she it they who which not and sits"
)
_BARE_VERBS = words_of(
    "watch watches skate drink light ride support string fence net brush drain lock grill switch spray tie"
)


class RuleNouns:
    """A reader of the nouns of a vocabulary, by table and rules.

    >>> read = RuleNouns({"can", "dog", "knife", "watch"})
    >>> read("Dogs can watch. Two dogs with knives and a can look at a watch.")
    ['dog', 'knife', 'can', 'watch']
    """

    def __init__(self, vocabulary: Collection[str]) -> None:
        forms = {plural(word): word for word in sorted(vocabulary)}
        forms |= {form: word for form, word in _IRREGULAR.items() if word in vocabulary}
        forms |= {word: word for word in vocabulary}
        self.forms = {form: word for form, word in forms.items() if form not in _LOST}

    def __call__(self, text: str) -> list[str]:
        tokens = treebank_tokens(text)
        return [
            self.forms[token]
            for previous, token in zip(["", *tokens], tokens, strict=False)
            if token in self.forms and _is_noun(token, previous.lower())
        ]


def _is_noun(token: str, previous: str) -> bool:
    if token in _VERBS_WITHOUT_ARTICLE:
        return _DETERMINERS.fullmatch(previous) is not None
    return token not in _ADJECTIVES and not (token in _BARE_VERBS and previous in _BEFORE_VERBS)
