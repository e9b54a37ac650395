"""Where a claim stands in its sentence: the words that it alone is made of."""

import re
from collections import Counter
from collections.abc import Sequence

from rlaifv_pl.feedback.claims.english import lexicon
from rlaifv_pl.feedback.claims.english.sentences import Token

Place = tuple[int, int]
"""First character of a stretch of a text, and one past its last."""

_WORD = re.compile(r"[^\W_]+")
_PAUSE = re.compile(r"[,;:()]")
LONGEST_GAP = 2
"""Words that no claim has, such as praise, which do not cut a stretch in two."""


def own_places(text: str, statements: Sequence[Sequence[Token]]) -> list[tuple[Place, ...]]:
    """Stretches of each statement of a sentence, without the words that it shares with others of them.

    Of "a dog and a red cat" in a list, the dog's is "a dog" and the cat's "a red cat", not what stands around both.
    Where a statement has no word of its own, all of its words count. Empty where none of its words is in the text.
    """
    known = [_places(tokens) for tokens in statements]
    uses = Counter(place for places in known for place in places)
    taken = sorted(uses)
    found = []
    for tokens, places in zip(statements, known, strict=True):
        own = [place for place in places if uses[place] == 1] or places
        own = own or sorted({(token.start, token.end) for token in tokens if token.start >= 0})
        found.append(_joined(text, own, taken))
    return found


def _places(tokens: Sequence[Token]) -> list[Place]:
    return sorted({(token.start, token.end) for token in tokens if token.start >= 0 and not token.refers})


def _joined(text: str, places: Sequence[Place], taken: Sequence[Place]) -> tuple[Place, ...]:
    """The places, those with no word of any statement and no pause between them as one."""
    stretches: list[Place] = []
    for start, end in places:
        if stretches and _is_one(text, stretches[-1][1], start, taken):
            stretches[-1] = (stretches[-1][0], end)
        else:
            stretches.append((start, end))
    return tuple(stretches)


def _is_one(text: str, start: int, end: int, taken: Sequence[Place]) -> bool:
    gap = text[start:end]
    words = _WORD.findall(gap.lower())
    if not words or any(first < end and last > start for first, last in taken):
        return not words
    return lexicon.EVALUATIONS.issuperset(words) or (len(words) <= LONGEST_GAP and not _PAUSE.search(gap))
