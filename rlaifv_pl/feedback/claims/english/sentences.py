"""A text into sentences, and a sentence into tokens; both keep where in the text they were."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rlaifv_pl.feedback.claims.english import lexicon
from rlaifv_pl.feedback.claims.english.inflection import is_plural

_MARK = re.compile(r"[ \t]*(?:(?:[-*+\u2022\u2023\u25aa]|#{1,6}|>|\(?\d{1,3}[.)]|[a-z]\))[ \t]+)*")
"""What opens a line of a list, a heading or a quote; a minus sign or number glued to a word is text."""
_LINE = re.compile(r"[^\r\n]+")
_END = re.compile(r"(?<![.!?])[.!?]++[\"')\]*_\u201d\u2019]*+(?=\s|$)")
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|st|jr|sr|vs|no|fig|approx|etc|e\.g|i\.e|inc|ltd|co|a\.m|p\.m|u\.s|ft|lbs)|\b[A-Z])$",
    re.IGNORECASE,
)
_LONGEST_ABBREVIATION = 8
_LETTER = re.compile(r"[^\W_]")
LONGEST_SENTENCE = 1000
"""Characters; what has no end until then is cut, so that the work on a sentence is bounded."""


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each sentence, without list marks, headings' hashes and surrounding blanks.

    Lines end sentences; so do `.`, `!` and `?` in front of a blank, unless they close an abbreviation.

    >>> [text[start:end] for text in ["Dr. Lee has 2.5 cups.\\n- A dog."] for start, end in sentences(text)]
    ['Dr. Lee has 2.5 cups.', 'A dog.']
    """
    for line in _LINE.finditer(text):
        mark = _MARK.match(text, line.start(), line.end())
        start = mark.end() if mark else line.start()
        for end in _END.finditer(text, start, line.end()):
            if not _abbreviates(text, end, line.end()):
                yield from _trimmed(text, start, end.end())
                start = end.end()
        yield from _trimmed(text, start, line.end())


def _abbreviates(text: str, end: re.Match[str], line_end: int) -> bool:
    if end[0] != "." or end.end() == line_end:
        return False
    before = text[max(0, end.start() - _LONGEST_ABBREVIATION) : end.start()]
    following = text[end.end() : end.end() + 2].strip()
    known = _ABBREVIATION.search(before)
    return known is not None and (
        following.islower() or following.isdigit() or before[known.start()].isupper()
    )


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        stop = end
        if end - start > LONGEST_SENTENCE:
            blank = text.rfind(" ", start, start + LONGEST_SENTENCE)
            stop = blank if blank > start else start + LONGEST_SENTENCE
        piece = text[start:stop]
        if _LETTER.search(piece):
            first = start + len(piece) - len(piece.lstrip())
            yield first, first + len(piece.strip())
        start = stop


class Token(NamedTuple):
    """A word or mark of a sentence, or a word that a rule put in."""

    text: str
    kind: str
    """det, prep, aux, verb, ing, part (participle), conj, sub, rel, pron, adv, word, comma, or mark."""
    start: int = -1
    """In the text; -1 for a word that was put in."""
    end: int = -1
    refers: bool = False
    """Whether it only speaks of what was said elsewhere, so that its place is not the claim's own."""

    @property
    def low(self) -> str:
        """The word as the lexicon spells it."""
        return self.text.lower().replace("\u2019", "'")


_PHRASES = sorted(lexicon.QUANTITIES | lexicon.COMPOUND_PREPOSITIONS, key=len, reverse=True)
_TOKEN = re.compile(
    r"\"[^\"\n]{1,80}\"|\u201c[^\u201d\n]{1,80}\u201d"
    rf"|\b(?:{'|'.join(_PHRASES)})\b"
    r"|\b(?:mr|mrs|ms|dr|st)\.(?=\s+\w)"
    r"|(?:there|it|he|she|that|who)(?=['\u2019]s\b)|they(?=['\u2019]re\b)|['\u2019](?:s|re)\b"
    r"|\d+(?:[.,:/]\d+)*[\w%]*(?:-\w+)*|[^\W_]+(?:['\u2019/&.-][^\W_]+)*(?:(?<=s)['\u2019](?!\w))?|[^\w\s*_`]",
    re.IGNORECASE,
)
_CLOSED = [
    ("det", lexicon.DETERMINERS | lexicon.QUANTITIES),
    ("aux", lexicon.AUXILIARIES | lexicon.CONTRACTIONS),
    ("list", {"such as", "including"}),
    ("conj", {"and", "or", "&", "nor", "as well as", "along with", "in addition to"}),
    ("adv", {"as well", "most likely"}),
    ("word", {"each other", "one another"}),
    ("sub", lexicon.SUBORDINATORS),
    ("rel", lexicon.RELATIVES),
    ("pron", {*lexicon.PRONOUNS, "there", "we"}),
    ("prep", lexicon.PREPOSITIONS | lexicon.COMPOUND_PREPOSITIONS),
    ("comma", {",", "(", ")"}),
]
"""Kinds of the closed classes; a word in two of them is of the first."""
_KINDS = {word: kind for kind, words in reversed(_CLOSED) for word in words}
_CONTRACTED = {"there", "it", "he", "she", "that", "who", "they"}
"""Before "'s" as a verb; behind other words it says whose something is."""
_NOT_ADVERBS = {
    "only",
    "family",
    "fly",
    "assembly",
    "jelly",
    "belly",
    "lovely",
    "friendly",
    "curly",
    "early",
    "ugly",
}
_ADVERBS = {"also", "not", "out", "too", "even", "just", "still", "currently", "together", "away", "nearby", "very",
            "quite", "further", "closer", "farther", "almost", "as well"}  # fmt: skip


def tokenize(text: str, start: int, end: int) -> list[Token]:
    """Words and marks of a sentence, each with its kind as far as the words around it tell."""
    found: list[Token] = []
    matches = list(_TOKEN.finditer(text, start, end))
    for number, match in enumerate(matches):
        following = matches[number + 1][0].lower() if number + 1 < len(matches) else ""
        kind = _kind(match[0].lower().replace("\u2019", "'"), found[-1] if found else None, following)
        found.append(Token(match[0], kind, match.start(), match.end()))
    return _with_verbs(found)


def _with_verbs(words: list[Token]) -> list[Token]:
    """The words with a verb that the lexicon does not know in each stretch that has none: "a dog leaps over a log"."""
    kept: list[Token] = []
    for token in [*words, _BREAK]:
        kept.append(token)
        if token.kind in ("comma", "mark", "conj", "sub", "list"):
            stretch = kept[_stretch_start(kept) :]
            if not any(one.kind in ("aux", "verb", "rel") for one in stretch):
                at = next((n for n in range(2, len(stretch)) if _must_act(stretch, n, kept)), None)
                if at is not None:
                    place = len(kept) - len(stretch) + at
                    kept[place] = kept[place]._replace(kind="verb")
    return kept[:-1]


_BREAK = Token(".", "mark")


def _stretch_start(words: Sequence[Token]) -> int:
    ends = ("comma", "mark", "conj", "sub", "list")
    return next((n + 1 for n in range(len(words) - 2, -1, -1) if words[n].kind in ends), 0)


def _must_act(stretch: Sequence[Token], at: int, before: Sequence[Token]) -> bool:
    """Whether a word between a noun and what no noun stands before can only be a verb, by number and place."""
    word, noun, after = stretch[at], stretch[at - 1], stretch[at + 1 :]
    start = next((n for n in range(at - 1, -1, -1) if stretch[n].kind != "word"), -1)
    if word.kind != "word" or noun.kind != "word" or noun.low.endswith("'s") or start < 0:
        return False
    if not after or after[0].kind not in ("prep", "det", "adv", "pron"):
        return False
    determiner = stretch[start]
    if word.low in lexicon.VERBS and not is_plural(word.low):
        # "a man, a woman and a child stand in front of a car": they are several.
        earlier = before[: -len(stretch)]
        several = any(one.low == "and" for one in earlier) and not any(
            one.kind in ("aux", "verb") for one in earlier
        )
        return determiner.kind == "det" and several
    if is_plural(noun.low):
        opens = determiner.low in ("the", *lexicon.POSSESSIVES) and (
            not start or stretch[start - 1].low == "with"
        )
        return not is_plural(word.low) and (determiner.low in lexicon.PLURAL or opens)
    single = determiner.low in lexicon.SINGULAR or (
        determiner.low in ("the", *lexicon.POSSESSIVES) and not start
    )
    return single and is_plural(word.low)


def _kind(word: str, before: Token | None, following: str) -> str:
    previous = before.kind if before else ""
    if word == "that" and previous in ("", "conj", "comma", "prep"):
        return "det"
    if word == "that" and previous == "word":
        return "rel"
    if word in ("'s", "'re"):
        return "aux" if before and before.low in _CONTRACTED else "word"
    if word in ("can", "might", "will") and previous == "det":
        return "word"
    if word in _KINDS:
        return _KINDS[word]
    if not word[0].isalnum():
        return "word" if word[0] in '"\u201c#$' else "mark"
    if word[0].isdigit():
        return "det" if word.replace(".", "").replace(",", "").isdigit() else "word"
    if word in _ADVERBS or _like_an_adverb(word):
        return "adv"
    return _open_class(word, before, following)


def _like_an_adverb(word: str) -> bool:
    return word.endswith("ly") and word not in _NOT_ADVERBS


def _open_class(word: str, before: Token | None, following: str) -> str:
    previous = before.kind if before else ""
    closed = following in _KINDS or following in _ADVERBS or _like_an_adverb(following)
    acted = following.endswith("ing") and following not in lexicon.NOT_GERUNDS
    noun_follows = not closed and not acted and following[:1].isalpha() and word != "being"
    if word in lexicon.BASES:
        return "word" if previous in ("det", "prep") or before is None else "verb"
    if word in lexicon.VERBS and _acts(word, before, noun_follows):
        return "verb"
    if word in lexicon.ADJECTIVES and not (word.endswith("ing") and following in lexicon.PREPOSITIONS):
        return "word"
    specified = (
        before and (previous == "det" or before.low in lexicon.ADJECTIVES) and before.low not in lexicon.WHOLE
    )
    described = specified and noun_follows
    if word.endswith("ing") and "-" not in word and word not in lexicon.NOT_GERUNDS and not described:
        return "ing"
    ends_like = (word.endswith("ed") and word not in lexicon.NOT_PARTICIPLES) or word in lexicon.PARTICIPLES
    return "part" if ends_like and not described and not (noun_follows and previous != "word") else "word"


def _acts(word: str, before: Token | None, noun_follows: bool) -> bool:
    """Whether a base form is a verb here: after plural nouns, with no noun right behind it."""
    if before is None or before.kind not in ("word", "rel", "pron", "adv") or before.low == "to":
        return False
    if word in lexicon.CLEAR_BASES or before.kind == "pron":
        return True
    return before.low in lexicon.PEOPLE or (is_plural(before.low) and not noun_follows)
