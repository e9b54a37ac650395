"""Noun phrases: their head, how they are spoken of the second time, what the items of a list share."""

from collections.abc import Sequence

from rlaifv_pl.feedback.claims.english import lexicon
from rlaifv_pl.feedback.claims.english.clauses import last_phrase
from rlaifv_pl.feedback.claims.english.inflection import is_plural
from rlaifv_pl.feedback.claims.english.sentences import Token

THE = Token("the", "det")
AND = Token("and", "conj")


def core(words: Sequence[Token]) -> list[Token]:
    """A noun phrase up to the first phrase about where it is or what it does."""
    end = next(
        (
            number
            for number, token in enumerate(words)
            if token.kind in ("ing", "part", "rel", "aux", "verb")
            or (token.kind == "prep" and token.low != "of")
        ),
        len(words),
    )
    return list(words[:end])


def definite(words: Sequence[Token]) -> list[Token]:
    """The phrase as it is spoken of the second time."""
    words = [token._replace(refers=True) for token in words]
    if not words or words[0].low in lexicon.DEFINITE or words[0].kind == "pron":
        return words
    drop = words[0].low in lexicon.ARTICLES | lexicon.QUANTITIES | {
        "one",
        "some",
        "several",
        "another",
        "many",
    }
    kept = [token for token in words[drop:] if token.low != "more"]
    return [words[0]._replace(text="the", kind="det"), *lowered(kept)] if kept else []


def lowered(words: list[Token]) -> list[Token]:
    """The words with the first one in lower case."""
    return (
        [words[0]._replace(text=words[0].text[:1].lower() + words[0].text[1:]), *words[1:]] if words else []
    )


def with_article(thing: list[Token], first: Sequence[Token]) -> list[Token]:
    """An item of "a chair, table and lamp" with the article that it shares, and a bare "bald man" with its own."""
    phrase, first = core(thing), last_phrase(first)
    of = next((number for number, token in enumerate(phrase) if token.low == "of"), len(phrase))
    if thing[0].kind != "word" or not of or any(is_plural(token.low) for token in phrase[:of]):
        return thing
    names = any(token.text[0].isupper() for token in phrase[1:of]) or not thing[0].text[0].isalpha()
    counted = not names and not lexicon.MASS & {thing[0].low, phrase[of - 1].low}
    if (first and first[0].low in lexicon.ARTICLES) or counted:
        return [
            Token("an" if thing[0].low[0] in "aeiou" else "a", "det"),
            *(thing if names else lowered(thing)),
        ]
    return thing if names else lowered(thing)


def joined(phrases: Sequence[Sequence[Token]]) -> list[Token]:
    """Several phrases as one: "a, b and c"."""
    *others, last = phrases
    if not others:
        return list(last)
    comma = Token(",", "comma")
    inner = [
        token
        for number, phrase in enumerate(others)
        for token in (([comma] if number else []) + list(phrase))
    ]
    return [*inner, AND, *last]


def shared_tail(things: Sequence[Sequence[Token]]) -> list[Token]:
    """Where all things of a list are, said once behind the last one."""
    *others, last = things
    placed = [len(core(thing)) < len(thing) for thing in others]
    start = _first_place(last)
    inner = any(token.kind in ("ing", "part", "rel") for token in last[:start])
    return [] if start is None or inner or any(placed) else list(last[start:])


def _first_place(words: Sequence[Token]) -> int | None:
    kinds = ("prep", "ing", "part", "rel")
    place = next((n for n, t in enumerate(words) if t.kind in kinds and t.low not in lexicon.ATTACHING), None)
    placed = place is not None and (words[place].kind == "prep" or words[place].low in ("visible", "present"))
    return place if placed else None


def without_adverbs(words: Sequence[Token]) -> list[Token]:
    """The words behind the adverbs that they open with."""
    start = next((number for number, token in enumerate(words) if token.kind != "adv"), len(words))
    return list(words[start:])


def person_with(thing: Sequence[Token]) -> list[Token]:
    """The woman of "a room with a woman": what follows is about her."""
    at = next((number for number, token in enumerate(thing) if token.low == "with"), len(thing))
    person = core(thing[at + 1 :])
    own = {token.low for token in core(thing)[-1:]} & lexicon.PERSONS
    return definite(person) if person and person[-1].low in lexicon.PERSONS and not own else []


def slot(first: Sequence[Token], item: Sequence[Token]) -> int:
    """Where an item of a list takes the place of what `first` ends with."""
    governors = [
        number + 1
        for number, token in enumerate(first)
        if token.kind in ("ing", "part", "verb", "adv") or (token.kind == "prep" and token.low != "of")
    ]
    if item and item[0].kind == "prep":
        return next((n for n, token in enumerate(first) if token.kind == "prep"), len(first))
    placed = any(token.kind == "prep" and token.low != "of" for token in item)
    if first and first[0].kind in ("det", "word") and first[0].low not in ("both", "all"):
        governors.insert(0, 0)
    usable = [place for place in governors if place < len(first)]
    direct = placed and usable and (usable[0] == 0 or first[usable[0] - 1].kind != "prep")
    direct = direct and first[usable[0]].kind != "prep"
    if item[0].kind == "word" and usable == [0]:
        return max(number + 1 if token.low == "of" else 0 for number, token in enumerate(first))
    return (usable[0] if direct else usable[-1]) if usable else 0
