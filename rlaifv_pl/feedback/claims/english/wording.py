"""What an answer wraps around its statements, taken off: openers, frames, hedges, praise."""

from collections.abc import Sequence

from rlaifv_pl.feedback.claims.english import lexicon
from rlaifv_pl.feedback.claims.english.clauses import finite
from rlaifv_pl.feedback.claims.english.questions import Statement
from rlaifv_pl.feedback.claims.english.sentences import Token

IMAGES = {
    "image",
    "picture",
    "photo",
    "photograph",
    "scene",
    "shot",
    "view",
    "snapshot",
    "painting",
    "close-up",
}
FRAMES = {"presents", "feature", "show", "depict", "portray", "capture", "display", "contain", "include", "present",
          "showcase", "illustrate"}  # fmt: skip
MOMENTS = {"moment", "glimpse", "instance"}
SHOWING = {"of", "with", "where", "featuring", "showing", "depicting"}
LONGEST_LABEL = 3
DANGLING = {
    "of",
    "with",
    "to",
    "from",
    "for",
    "at",
    "like",
    "as",
    "than",
    "among",
    "between",
    "a",
    "an",
    "the",
    "his",
    "its",
    "their",
}
THERE_IS = [Token("There", "pron"), Token("is", "aux")]


def unwrapped(words: list[Token]) -> list[Token]:
    """A sentence without what opens it, without "the image shows", and with "is" for "appears to be"."""
    words = _without_openers(_without_label(words))
    words = _settled(_without_image(words))
    return _unframed(_without_openers(words))


def _without_label(words: list[Token]) -> list[Token]:
    """The words behind "Caption:"."""
    at = next((number for number, token in enumerate(words[: LONGEST_LABEL + 1]) if token.text == ":"), None)
    return words[at + 1 :] if at is not None and finite(words[:at]) is None else words


def _without_openers(words: list[Token]) -> list[Token]:
    while words and (
        words[0].kind in ("comma", "conj", "mark")
        or (words[0].low in lexicon.CONNECTIVES and words[0].low != "no" and len(words) > 1)
        or (words[0].kind in ("adv", "det") and len(words) > 2 and words[1].text == ",")
    ):
        words = words[1:]
    for lead in ("it", "that"), ("it", "like"), ("it", "as"):
        if [token.low for token in words[:3:2]] == list(lead) and words[1].low in lexicon.LINKING:
            return words[3:]
    return words


def _without_image(words: list[Token]) -> list[Token]:
    """The sentence without "in the image" and the like, which every claim is about anyway."""
    kept, place = [], 0
    while place < len(words):
        window = [token.low for token in words[place : place + 3]]
        if (
            len(window) > 2
            and not _placed(kept)
            and window[0] == "in"
            and window[1] in ("the", "this")
            and window[2] in IMAGES
        ):
            place += 3
            continue
        kept.append(words[place])
        place += 1
    return kept


def _placed(words: Sequence[Token]) -> bool:
    return bool(words) and words[-1].low in ("located", "placed", "positioned", "situated")


def _settled(words: list[Token]) -> list[Token]:
    """ "appears to be" as "is", "seem to have" as "have", "appears tired" as "is tired"."""
    kept, place = [], 0
    while place < len(words):
        token, after = words[place], words[place + 1 : place + 3]
        if token.low not in lexicon.LINKING or not after or token.low.startswith("look"):
            kept.append(token)
            place += 1
            continue
        single = token.low.endswith("s")
        goes_on = [one.low for one in after]
        if goes_on == ["to", "be"] and kept and kept[-1].low == "what":  # "what appears to be a dog" is one.
            kept.pop()
            place += 3
        elif goes_on[0] == "to" and len(after) > 1:
            kept.append(_plain(goes_on[1], single)._replace(start=token.start, end=after[1].end))
            place += 3
        else:
            kept.append(token._replace(text="is" if single else "are", kind="aux"))
            place += 1
    return kept


def _plain(base: str, single: bool) -> Token:
    if base == "be":
        return Token("is" if single else "are", "aux")
    if base == "have":
        return Token("has" if single else "have", "aux")
    return Token(lexicon.VERBS.get(base, base + "s") if single else base, "verb")


def _unframed(words: list[Token]) -> list[Token]:
    """ "There is a dog" for "the image shows a dog" and "this is a photo of a dog"."""
    at = finite(words)
    if not at or at + 2 >= len(words):
        return words
    verb, after = words[at], list(words[at + 1 :])
    subject = [token.low for token in words[:at]]
    base = lexicon.BASES.get(verb.low, verb.low)
    shows = base in FRAMES and (subject[-1] in IMAGES or any(word in IMAGES for word in subject[:3]))
    sees = subject[0] in ("i", "we", "you") and "see" in (verb.low, after[0].low)
    names = subject in (["this"], ["it"]) and verb.low in ("is", "'s") and after[0].low in ("a", "an")
    of = subject[-1] in IMAGES and verb.low in ("is", "consists") and after[0].low == "of"
    if not (shows or sees or names or of):
        return words
    after = after[1:] if of or (sees and after[0].low == "see") else after
    after = _content_of_image(after)
    if after and after[0].low == "where":
        return after[1:]
    if not after or after[0].low in lexicon.DEFINITE - {"these", "both", "each", "every", "all"}:
        return words if shows else [*words[: at + 1], *after]
    return [*THERE_IS, *after]


def _content_of_image(words: list[Token]) -> list[Token]:
    """What follows "a close-up view of"."""
    for number, token in enumerate(words[:6]):
        if token.kind not in ("det", "word", "part", "adv", "conj"):
            return words
        tied = words[number + 1].low if number + 1 < len(words) else ""
        if token.low in IMAGES | MOMENTS and tied in SHOWING:
            return words[number + 1 + (tied != "where") :]
    return words


def judged(statement: Statement) -> Statement | None:
    """The statement without praise, or None where that, a guess or a fragment is all there is."""
    subject, rest = _sober(statement.subject), _sober(statement.rest)
    words = (*subject, statement.verb, *rest)
    unresolved = [token.low for token in subject] in (["it"], ["this"], ["that"], ["these"], [])
    if unresolved or _is_opinion(statement._replace(subject=subject, rest=rest)):
        return None
    if subject[0].low == "there" and len(rest) <= 2 and rest and rest[-1].low in lexicon.VAGUE:
        return None
    says_nothing = statement.verb.kind == "aux" or statement.verb.low in lexicon.LINKING
    if subject[0].low == "there" and _names_nothing(rest):
        return None
    if not rest and (says_nothing or subject[0].low == "there"):
        return None
    last = words[-1]
    if last.kind in ("aux", "conj", "rel") or last.low in DANGLING:
        return None
    return statement._replace(subject=subject, rest=rest)


def _names_nothing(rest: Sequence[Token]) -> bool:
    """Whether a thing that is said to be there, without an article of the author's, is but an adjective."""
    named = [token for token in rest if token.kind != "det" or token.start >= 0]
    end = next((number for number, token in enumerate(named) if token.kind == "prep"), len(named))
    return end > 0 and all(token.low in lexicon.ADJECTIVES for token in named[:end])


def _is_opinion(statement: Statement) -> bool:
    """Whether it judges: by a word that always does, by one as a noun, or by nothing but an adjective of praise."""
    words = statement.tokens
    for before, token in zip((None, *words), words, strict=False):
        is_noun = token.kind == "word" and (before is None or before.low != "to")
        if token.low in lexicon.OPINIONS or (is_noun and token.low in lexicon.OPINION_NOUNS):
            return True
    said = [token for token in statement.rest if token.kind != "adv"]
    if not said or not (statement.verb.kind == "aux" or statement.verb.low in lexicon.LINKING):
        return False
    acts = said[0].low.endswith("ing") and len(said) > 1 and said[1].kind in ("prep", "det")
    of_scene = bool({token.low for token in statement.subject} & lexicon.SETTINGS)
    return not acts and said[0].low in (lexicon.EVALUATIONS | (lexicon.MOODS if of_scene else frozenset()))


def _sober(words: Sequence[Token]) -> tuple[Token, ...]:
    """Words without praise in front of a noun, and without "also"."""
    kept: list[Token] = []
    dropped = False
    for place, token in enumerate(words):
        follows = words[place + 1].kind if place + 1 < len(words) else ""
        praise = token.low in lexicon.EVALUATIONS and (follows in ("word", "conj", "comma", "part"))
        if praise and kept and kept[-1].kind in ("comma", "conj"):
            kept.pop()
        if token.low in lexicon.PRAISING or praise or (dropped and token.kind in ("conj", "comma")):
            dropped = praise or dropped
            continue
        if dropped and kept and kept[-1].low in lexicon.ARTICLES:
            kept[-1] = kept[-1]._replace(text="an" if token.low[0] in "aeiou" else "a")
        dropped = False
        kept.append(token)
    while kept and kept[-1].kind == "comma":
        kept.pop()
    return tuple(kept)
