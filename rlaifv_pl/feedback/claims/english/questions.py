"""A statement taken apart at its verb, written out as a sentence and as the question that confirms it."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from rlaifv_pl.feedback.claims.english import lexicon
from rlaifv_pl.feedback.claims.english.inflection import is_plural
from rlaifv_pl.feedback.claims.english.sentences import Token

_CLOSED = re.compile(r"[.!?][\"\u201d]?$")
LONGEST_SUBJECT = 8
"""Tokens of a subject that a question may put between the verb and the rest."""


class Statement(NamedTuple):
    """Subject, verb and what follows, as tokens of the text and tokens that a rule put in."""

    subject: tuple[Token, ...]
    verb: Token
    rest: tuple[Token, ...]

    @property
    def tokens(self) -> tuple[Token, ...]:
        """All of it, in order."""
        return (*self.subject, self.verb, *self.rest)


def sentence_of(statement: Statement) -> str:
    """The statement as a sentence.

    >>> dog = tuple(Token(word, "word") for word in ("a", "dog"))
    >>> sentence_of(Statement((Token("there", "pron"),), Token("is", "aux"), dog))
    'There is a dog.'
    """
    text = spelled(statement.tokens)
    return text[:1].upper() + text[1:] + ("" if _CLOSED.search(text) else ".")


def question_of(statement: Statement) -> str:
    """The question to which yes says that the statement is true.

    The verb goes to the front where that is sure to be English; a negation or a long subject stays
    behind "Is it true that".

    >>> cat = tuple(Token(word, "word") for word in ("The", "cat"))
    >>> question_of(Statement(cat, Token("sits", "verb"), (Token("here", "word"),)))
    'Does the cat sit here?'
    >>> question_of(Statement(cat, Token("is", "aux"), (Token("not", "adv"), Token("here", "word"))))
    'Is it true that the cat is not here?'
    """
    subject, verb, rest = statement.subject, statement.verb, statement.rest
    subject = (_uncapitalised(subject), *subject[1:])
    negated = any(token.low in lexicon.NEGATIONS for token in statement.tokens)
    simple = len(subject) <= LONGEST_SUBJECT and all(
        token.kind in ("det", "word", "pron", "conj", "prep") for token in subject
    )
    if negated or not simple:
        asked = ("Is it true that", spelled((*subject, verb, *rest)))
    elif verb.kind == "aux" and _inverts(verb, rest):
        asked = (verb.low.capitalize(), spelled((*subject, *rest)))
    elif verb.kind == "verb" or verb.low in ("has", "have"):
        base = verb._replace(text="have" if verb.low == "has" else lexicon.base_of(verb.low))
        asked = ("Do" if base.low == verb.low else "Does", spelled((*subject, base, *rest)))
    else:
        asked = ("Is it true that", spelled((*subject, verb, *rest)))
    return " ".join(asked).rstrip(" .!") + "?"


def _inverts(verb: Token, rest: Sequence[Token]) -> bool:
    perfect = bool(rest) and (rest[0].kind == "part" or rest[0].low == "been")
    return verb.low not in ("has", "have", "had") or perfect


def _uncapitalised(subject: Sequence[Token]) -> Token:
    """The first word in lower case, unless it looks like a name."""
    first = subject[0]
    name = first.kind == "word" and (
        not first.text[1:].islower() or (len(subject) > 1 and subject[1].text[:1].isupper())
    )
    return first if name else first._replace(text=first.text[:1].lower() + first.text[1:])


def spelled(words: Sequence[Token]) -> str:
    """Tokens in a row; those that touch in the text touch here."""
    text = words[0].text if words else ""
    for before, token in pairwise(words):
        touching = token.text in (",", ";", ":", ")") or before.text == "("
        if not touching and 0 <= token.start == before.end:
            touching = not (token.text[0].isalnum() and before.text[-1].isalnum())
        text += token.text if touching else f" {token.text}"
    return text


def is_plural_subject(words: Sequence[Token]) -> bool:
    """Whether a noun phrase takes "are".

    >>> is_plural_subject([Token("two", "det"), Token("dogs", "word")])
    True
    >>> is_plural_subject([Token("the", "det"), Token("bus", "word")])
    False
    """
    if not words:
        return False
    first = words[0].low
    words = _without_modifiers(words)
    low = [token.low for token in words]
    behind = words[low.index("and") :] if "and" in low else []
    # "a knife and fork" is one.
    if behind and (first not in lexicon.ARTICLES or any(token.kind == "det" for token in behind)):
        return True
    if first in lexicon.SINGULAR:
        return False
    counted = first.isdigit() and not {"old", "'s"}.intersection(low[1:])
    if counted or first in lexicon.PLURAL | lexicon.QUANTITIES | {"they", "all"}:
        return True
    end = next(
        (n for n, token in enumerate(words) if n and token.kind not in ("word", "det", "adv")), len(words)
    )
    nouns = [token.low for token in words[:end] if token.kind == "word"]
    return bool(nouns) and is_plural(nouns[-1])


def _without_modifiers(words: Sequence[Token]) -> list[Token]:
    """The phrase up to its first preposition, and without what is tied by "and" in front of its noun: "a black and"."""
    end = next((n for n, token in enumerate(words) if n and token.kind == "prep"), len(words))
    kept: list[Token] = []
    for token in words[:end]:
        if token.low == "and" and kept and kept[-1].low in lexicon.ADJECTIVES:
            kept.pop()
        else:
            kept.append(token)
    return kept


def agreeing(verb: Token, subject: Sequence[Token]) -> Token:
    """`is`, `was` or `has` in the number of the subject; other verbs as they are."""
    pairs = (("is", "are"), ("was", "were"), ("has", "have"))
    for pair in pairs:
        if verb.low in (*pair, "'s", "'re"):
            return verb._replace(text=pair[is_plural_subject(subject)])
    return verb
