"""The tokens of a sentence cut where a clause, an item of a list, a remark or a guess begins."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rlaifv_pl.feedback.claims.english import lexicon
from rlaifv_pl.feedback.claims.english.inflection import is_plural
from rlaifv_pl.feedback.claims.english.sentences import Token

REMARKS = {"remark", "guess"}
STRONG = REMARKS | {"while", "rel", "with", "list", ";"}
"""Links that open a clause whatever follows."""
PARTITIVES = [
    set(words.split())
    for words in (
        "one", "two", "several", "some", "another", "others", "two others", "the other", "the others", "the first",
        "a second", "the second", "a third", "the third", "a fourth", "the other one", "another one",
        "the first one", "the second one", "the third one",
    )
]  # fmt: skip
"""What stands for some of the things just named, when no noun follows."""


OPENING_KINDS = {"det", "pron", "aux", "verb", "ing", "prep", "sub", "rel", "list"}


class Segment(NamedTuple):
    """A stretch without inner cuts."""

    link: str
    """What it is tied on with: nothing, `,`, `and`, or one of STRONG."""
    tokens: list[Token]


def finite(words: Sequence[Token]) -> int | None:
    """Place of the verb that makes a sentence of the words, past those of relative clauses."""
    inside = False
    for place, token in enumerate(words):
        if token.kind == "rel" and place:
            inside = True
        elif token.kind in ("aux", "verb"):
            if not inside:
                return place
            inside = False
    return None


def first_content(words: Sequence[Token]) -> Token | None:
    """The first token that is neither an adverb nor "both", "each" or "all"."""
    return next((token for token in words if token.kind != "adv" and token.low not in lexicon.WHOLE), None)


def clauses(words: Sequence[Token]) -> list[list[Segment]]:
    """Segments of a sentence by the clause that they belong to, in order.

    Nothing is lost but commas, conjunctions and other links.
    """
    found: list[list[Segment]] = []
    for segment in _segments(words):
        if not found or _opens(segment, found[-1]):
            found.append([segment])
        else:
            found[-1].append(segment)
    return found


def _segments(words: Sequence[Token]) -> Iterator[Segment]:
    link, run = "", []
    for place, token in enumerate(words):
        cut, consumed = _cut(words, place)
        if cut is None:
            run.append(token)
            continue
        if run:
            yield Segment(link, run)
            link, run = cut, []
        elif link not in STRONG or cut in STRONG:
            link = cut
        if not consumed:
            run.append(token)
    if run:
        yield Segment(link, run)


def _cut(words: Sequence[Token], place: int) -> tuple[str | None, bool]:
    """(link of what begins at this token, whether the token is nothing but the link)."""
    token, before, after = words[place], words[:place], words[place + 1 :]
    previous = before[-1] if before else None
    if token.kind == "comma":
        return (None, False) if _between_adjectives(before, after) else (",", True)
    if token.kind == "mark":
        return ";", True
    if token.low in lexicon.ADDING and _coordinates(before, after):
        return "plus", True
    if token.kind == "conj":
        return (
            ("and", True) if token.low not in ("or", "nor") and _coordinates(before, after) else (None, False)
        )
    if token.kind == "list":
        return "list", True
    if token.kind == "sub" or (
        token.low in ("as", "before", "after", "until", "where") and _clause_follows(after)
    ):
        return "while", True
    if token.kind == "rel" and previous and previous.kind == "comma":
        return "rel", False
    if token.low == "with" and previous and previous.kind == "comma":
        return "with", True
    if token.low == "as" and after and after[0].low in ("indicated", "evidenced", "suggested", "if"):
        return "remark", False
    if (
        token.low in lexicon.COMMENTS
        and token.kind in ("ing", "word")
        and previous
        and previous.kind != "aux"
    ):
        return (
            ("remark", False)
            if previous.kind not in ("det", "adv") or previous.low == "also"
            else (None, False)
        )
    chosen = token.low == "either" and previous and previous.kind == "prep"
    if token.low in lexicon.HEDGES and token.kind != "aux" and not chosen:
        return "guess", False
    return None, False


def _clause_follows(after: Sequence[Token]) -> bool:
    window = []
    for token in after[:8]:
        if token.kind in ("comma", "mark", "conj", "sub"):
            break
        window.append(token)
    verb = finite(window)
    return bool(verb) and window[0].kind in ("det", "pron", "word")


def _between_adjectives(before: Sequence[Token], after: Sequence[Token]) -> bool:
    """Whether a comma is that of "a dry, arid landscape"."""
    if (
        not before
        or not after
        or before[-1].kind not in ("word", "part", "det")
        or after[0].kind not in ("word", "adv")
    ):
        return False
    if after[0].low in lexicon.COMMENTS | lexicon.HEDGES:
        return False
    run = next(
        (number for number, token in enumerate(after) if token.kind not in ("word", "conj", "adv")),
        len(after),
    )
    describes = (
        before[-1].kind == "det"
        or before[-1].low in lexicon.ADJECTIVES
        or "-" in before[-1].text
        or after[0].low in lexicon.ADJECTIVES
    )
    return describes and run >= 2 and not is_plural(before[-1].low)


def _coordinates(before: Sequence[Token], after: Sequence[Token]) -> bool:
    """Whether "and" ties on a thing or clause that can stand alone, and not half of a phrase."""
    following = first_content(after)
    if not before or following is None:
        return False
    previous = before[-1]
    if previous.kind == "comma":
        return not _between_adjectives(before[:-1], after)
    if any(token.low in ("between", "both") for token in before[-6:]):
        return False
    half = previous.low in lexicon.ADJECTIVES and following.kind in ("ing", "part")
    if half and any(token.kind == "word" for token in after[1:3]):
        return False
    if following.low == "others" or following.kind in OPENING_KINDS:
        return True
    if following.kind == "part":
        return len(after) < 2 or after[1].kind != "word"
    return following.kind == "word" and previous.kind == "word" and _bare_pair(before, after)


def _bare_pair(before: Sequence[Token], after: Sequence[Token]) -> bool:
    """Of "X and Y" without determiner on Y: whether X stands without one as well, or is several things."""
    phrase = last_phrase(before)
    if len(phrase) < len(before) and before[-len(phrase) - 1].low == "of":
        acts = after[0].low in lexicon.VERBS and after[1:2] and after[1].kind in ("adv", "det", "prep")
        return bool(acts)
    if phrase and phrase[0].kind == "det":
        if phrase[0].low in lexicon.SINGULAR:
            return phrase[-1].low not in lexicon.ADJECTIVES and _is_second_thing(phrase[0], before, after)
        return phrase[0].low not in lexicon.NUMBERS and is_plural(phrase[-1].low)
    if len(phrase) < len(before) and before[-len(phrase) - 1].low == "to":
        return False
    predicative = len(phrase) < len(before) and before[-len(phrase) - 1].kind == "aux"
    return predicative or (
        phrase[-1].low not in lexicon.ADJECTIVES and after[0].low not in lexicon.ADJECTIVES
    )


def _is_second_thing(determiner: Token, before: Sequence[Token], after: Sequence[Token]) -> bool:
    """Whether bare things behind "and" do not belong to the phrase of one thing in front of it."""
    end = next((number for number, token in enumerate(after) if token.kind != "word"), len(after))
    is_last = end == len(after) or after[end].kind in ("comma", "mark")
    states = finite(before) is not None and not any(token.low == "there" for token in before)
    # "either side and cars" is none; "a white top and black pants" is one where it only says who somebody is.
    apart = determiner.low not in lexicon.ARTICLES or (is_last and states)
    return end > 0 and is_plural(after[end - 1].low) and apart


def last_phrase(words: Sequence[Token]) -> list[Token]:
    """The nouns and adjectives that the words end with, and their determiner."""
    phrase: list[Token] = []
    for token in reversed(words):
        if token.kind not in ("word", "det"):
            break
        phrase.insert(0, token)
        if token.kind == "det":
            break
    return phrase


def is_partitive(words: Sequence[Token]) -> int:
    """How many tokens of "one", "the other", "a third" open the words, where no noun follows; else 0."""
    for length in (3, 2, 1):
        head = {token.low for token in words[:length]}
        if (
            len(words) > length
            and head in PARTITIVES
            and words[length].kind not in ("word", "det", "comma")
            and words[length].low != "of"
        ):
            return length
    return 0


def is_lead(clause: Sequence[Segment]) -> bool:
    """Whether a clause only says where or how the next one holds."""
    opening = first_content(clause[0].tokens)
    alone = len(clause) == 1 and clause[0].link in ("", ";") and finite(clause[0].tokens) is None
    return alone and (opening is None or opening.kind in ("prep", "ing", "part"))


def _opens(segment: Segment, current: Sequence[Segment]) -> bool:
    if segment.link in STRONG or is_lead(current):
        return True
    complete = any(finite(other.tokens) is not None for other in current)
    opening = first_content(current[0].tokens)
    # The verb of "while a cup and a fork lie there" is still to come.
    waits = current[0].link == "while" and opening is not None and opening.kind in ("det", "word")
    complete = complete or (current[0].link in STRONG and not waits)
    complete = complete or bool(is_partitive(current[0].tokens))
    at = finite(segment.tokens)
    if at is not None:
        aside = first_content(current[0].tokens)
        return complete or (aside is not None and aside.kind in ("ing", "part"))
    opening = first_content(segment.tokens)
    if opening and opening.kind in ("ing", "part"):
        return True
    if segment.tokens[0].low == "each" and segment.tokens[1:2] and segment.tokens[1].low == "with":
        return True
    if (length := is_partitive(segment.tokens)) and segment.tokens[length].kind in ("ing", "part"):
        return True
    moves = any(token.kind in ("ing", "part", "prep", "adv") for token in segment.tokens)
    return (
        complete
        and moves
        and bool(is_partitive(segment.tokens) or _new_thing(segment.tokens, current[0].tokens))
    )


def _new_thing(words: Sequence[Token], before: Sequence[Token]) -> bool:
    """Whether it is the next of "one near a bus, another person near a car, a third on a bench"."""
    if before[0].low == "one" or before[0].low == "another":
        return words[0].low == "another" or words[0].low in lexicon.ARTICLES | lexicon.NUMBERS
    return words[0].low in ("one", "another") and any(token.kind in ("ing", "part") for token in words)
