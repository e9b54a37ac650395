"""Whom and what pronouns and relatives stand for."""

from collections.abc import Iterator, Sequence

from rlaifv_pl.feedback.claims.english import lexicon
from rlaifv_pl.feedback.claims.english.clauses import finite
from rlaifv_pl.feedback.claims.english.phrases import core, definite
from rlaifv_pl.feedback.claims.english.questions import Statement, is_plural_subject
from rlaifv_pl.feedback.claims.english.sentences import Token


def antecedent(words: Sequence[Token], relative: str) -> list[Token]:
    """Whom or what "who" or "which" stands for: the last person named, or the last thing."""
    phrases = [core(words[n:]) for n in range(len(words) - 1, -1, -1) if words[n].kind == "det"]
    people = [one for one in phrases if one[-1].low in lexicon.PERSONS | lexicon.PEOPLE]
    found = phrases[:1] if relative != "who" else people[:1] or phrases[-1:]
    return definite(found[0]) if found else []


def owned(subjects: Sequence[Sequence[Token]]) -> list[list[Token]]:
    """Subjects with "the man's dog" for "his dog" behind a man."""
    owner = definite(core(subjects[0]))
    if not owner or is_plural_subject(owner) or len(owner) > 4 or any("'" in token.text for token in owner):
        return [list(one) for one in subjects]
    own = [*owner[:-1], owner[-1]._replace(text=f"{owner[-1].text}'s")]
    found = [list(subjects[0])]
    for subject in subjects[1:]:
        whose = lexicon.OWNERS.get(subject[0].low)
        fits = whose and fits_pronoun(owner, whose)
        found.append([*instead(own, subject[:1]), *subject[1:]] if fits else list(subject))
    return found


def instead(words: Sequence[Token], pronoun: Sequence[Token]) -> list[Token]:
    """The words at the place of the pronoun, so that the claim's source is where the pronoun is."""
    return [word._replace(start=pronoun[0].start, end=pronoun[0].end, refers=False) for word in words]


def fits_pronoun(subject: Sequence[Token], wanted: str) -> bool:
    """Whether a noun phrase is what a pronoun of a kind (`many`, `person` or `thing`) can stand for."""
    many = is_plural_subject(subject)
    person = subject[-1].low in lexicon.PERSONS
    return {"many": many, "person": person and not many, "thing": not person and not many}[wanted]


def relatives_apart(statement: Statement) -> Iterator[Statement]:
    """The statement and, by itself, what is said of its object: "a trunk that it uses to touch a branch"."""
    rest = statement.rest
    at = next((n for n, one in enumerate(rest) if n and one.kind == "rel"), len(rest))
    behind = list(rest[at + 1 :])
    verb = finite(behind)
    thing = antecedent(rest[:at], "which")
    if not verb or not thing or behind[0].kind not in ("pron", "det"):
        yield statement
        return
    yield statement._replace(rest=rest[:at])
    acts = verb + 1
    while acts < len(behind) and behind[acts].kind in ("adv", "ing", "part"):
        acts += 1
    if acts < len(behind) and behind[acts].kind not in ("prep", "adv"):
        return
    doer = behind[:verb]
    if len(doer) == 1 and doer[0].kind == "pron":
        doer = instead(definite(core(statement.subject)), doer)
    yield Statement(tuple(doer), behind[verb], (*behind[verb + 1 : acts], *thing, *behind[acts:]))
