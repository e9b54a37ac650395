"""Clauses into statements: who does what, one thing at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rlaifv_pl.feedback.claims.english import lexicon
from rlaifv_pl.feedback.claims.english.clauses import (
    REMARKS,
    Segment,
    clauses,
    finite,
    first_content,
    is_lead,
    is_partitive,
)
from rlaifv_pl.feedback.claims.english.inflection import is_plural, singular
from rlaifv_pl.feedback.claims.english.phrases import (
    THE,
    core,
    definite,
    joined,
    lowered,
    person_with,
    shared_tail,
    slot,
    with_article,
    without_adverbs,
)
from rlaifv_pl.feedback.claims.english.questions import Statement, agreeing, is_plural_subject
from rlaifv_pl.feedback.claims.english.references import (
    antecedent,
    fits_pronoun,
    instead,
    owned,
    relatives_apart,
)
from rlaifv_pl.feedback.claims.english.sentences import Token

THERE = Token("there", "pron")
IS = Token("is", "aux")
HAS = Token("has", "aux")
SUBJECTS = {"det", "word", "pron", "conj", "prep"}
"""Kinds of tokens that a subject begins with."""
IMAGE = {"image", "picture", "photo", "photograph", "scene", "overall", "addition", "total", "caption"}


@dataclass
class Reader:
    """Reads the sentences of one text in order and remembers whom pronouns stand for."""

    subject: list[Token] = field(default_factory=list)
    """Who the last clause was about."""
    thing: list[Token] = field(default_factory=list)
    """What the last clause named beside its subject, if it is one thing."""
    many: str = ""
    """The last noun for more than one thing: what "one" and "another" are one of."""

    def statements(self, words: Sequence[Token]) -> Iterator[Statement]:
        """What the sentence states, remarks and guesses left out; neither spelled nor judged yet."""
        lead: list[Token] = []
        waiting: list[list[Segment]] = []
        before: list[Token] = []
        topic: list[Token] = []
        remarks = False
        for clause in (found := clauses(words)):
            link = clause[0].link
            remarks = link in REMARKS or (remarks and link == "while" and finite(clause[0].tokens) is None)
            if remarks and link not in REMARKS:
                continue
            if is_lead(clause):
                kind = (first_content(clause[0].tokens) or IS).kind
                if kind == "prep":
                    lead = _place(clause[0].tokens)
                elif kind in ("ing", "part"):
                    waiting.append(clause)
                continue
            if clause is not found[-1] and _only_names(clause):
                self.subject = list(clause[0].tokens)
            else:
                yield from self._clause(clause, before, lead)
            lead = []
            for late in waiting:
                yield from self._clause(late, before, [])
            waiting = []
            before = clause[-1].tokens if clause[0].link not in REMARKS else []
            topic = topic or self.subject
        self.subject = topic

    def _clause(self, clause: list[Segment], before: list[Token], lead: list[Token]) -> Iterator[Statement]:
        link, words = clause[0]
        if link in REMARKS or not words:
            return
        if not is_partitive(words):
            self._remember_many(words)
        if link == "rel":
            clause, words = self._with_antecedent(clause, before)
            if not words:
                return
        words = self._of_them(words)
        clause = [Segment(link, words), *clause[1:]]
        opening = first_content(words)
        place = next((n for n, one in enumerate(clause) if finite(one.tokens) is not None), None)
        if place is not None and link not in ("list", "with"):
            yield from self._finite(clause, place, lead)
        elif opening and (opening.kind in ("ing", "part") or words[0].low == "each") and self.subject:
            yield from self._of_all(clause, lead)
        elif length := is_partitive(words):
            self_subject = self._one_of(words[:length])
            yield from self._predicates(self_subject, agreeing(IS, self_subject), _tail(clause, length), lead)
        elif opening and opening.kind in ("det", "word") and link != "while":
            yield from self._existential(clause, IS, lead)

    def _with_antecedent(
        self, clause: list[Segment], before: list[Token]
    ) -> tuple[list[Segment], list[Token]]:
        link, words = clause[0]
        rest = words[1:]
        if words[0].low == "where" or finite(rest) != 0:
            keep = rest if words[0].low == "where" else []
        else:
            keep = [*whom, *rest] if (whom := antecedent(before, words[0].low)) else []
        return [Segment(link, keep), *clause[1:]], keep

    def _finite(self, clause: list[Segment], place: int, lead: list[Token]) -> Iterator[Statement]:
        words = clause[place].tokens
        if (at := finite(words)) is None:
            return
        verb, rest = words[at], list(words[at + 1 :])
        tail = [Segment("", rest), *clause[place + 1 :]]
        there = next((n for n, token in enumerate(words[:at]) if token.low == "there"), None)
        inverted = at and words[0].kind == "prep" and verb.low in lexicon.COPULAS and not clause[:place]
        if inverted and not any(token.kind in ("ing", "part") for token in rest[:2]):
            yield from self._existential(tail, verb, lowered(list(words[:at])))
            return
        if there is not None and verb.kind == "aux":
            yield from self._existential(tail, verb, [*lead, *_place(words[:there])])
            return
        subjects = [one.tokens for one in clause[:place]] + ([list(words[:at])] if at else [])
        said = [subject for subject in subjects if subject]
        subjects = [self._resolved(subject) for subject in said] or [self.subject]
        if not subjects[0] or (first_content(subjects[0]) or IS).kind not in SUBJECTS:
            return
        together = verb.kind != "aux" or any(token.low in lexicon.TOGETHER for token in rest)
        whole = joined(subjects)
        split = [whole] if together or len(subjects) == 1 else owned(subjects)
        for subject in split:
            # The author's own number stands where the subject is the author's own.
            own = [whole] == split == said and not verb.low.startswith("'")
            form = verb if own else agreeing(verb, subject)
            yield from self._predicates(subject, form, tail, lead)
        self.subject = definite(core(whole))

    def _predicates(
        self, subject: list[Token], verb: Token, tail: list[Segment], lead: list[Token]
    ) -> Iterator[Statement]:
        first = tail[0].tokens
        yield from relatives_apart(Statement(tuple(subject), verb, (*first, *lead)))
        for link, item in tail[1:]:
            prefix = first[: slot(first, item)]
            if link == "plus" and prefix and prefix[-1].kind == "prep":
                yield from self._existential([Segment("", item)], IS, [])
            else:
                yield Statement(tuple(subject), verb, (*prefix, *item))
        self._remember_thing(first)

    def _existential(self, tail: list[Segment], verb: Token, lead: list[Token]) -> Iterator[Statement]:
        things = [without_adverbs(one.tokens) for one in tail]
        things = [thing for thing in things if thing and not _is_place(thing)]
        if not things:
            return
        shared = shared_tail(things)
        for number, thing in enumerate(things):
            self._remember_many(thing)
            thing = with_article(lowered(thing) if thing[0].kind == "det" else thing, things[0])
            verb = verb._replace(refers=True)
            around = [*(shared if number < len(things) - 1 else []), *lead]
            if thing[0].low in lexicon.DEFINITE - {"both", "these", "each", "every", "all"}:
                yield _about_definite(thing)
            else:
                yield Statement((THERE,), agreeing(verb, core(thing)), (*thing, *around))
        heads = [definite(core(thing)) for thing in things]
        alone = len(heads) == 1 or any(token.low == "with" for token in things[0])
        if alone and (person := person_with(things[0])):
            heads = [person]
        self.subject = heads[0] if alone else joined(heads) if len(heads) == 2 and all(heads) else []

    def _resolved(self, subject: list[Token]) -> list[Token]:
        """The subject with a pronoun, or a noun left out, replaced by what it stands for if that is plain."""
        if len(subject) == 1 and (wanted := lexicon.PRONOUNS.get(subject[0].low)):
            candidates = (self.subject, self.thing) if wanted == "thing" else (self.subject,)
            fitting = (one for one in candidates if 0 < len(one) <= 5 and fits_pronoun(one, wanted))
            return instead(one, subject) if (one := next(fitting, None)) else subject
        if (
            subject[0].low in ("his", "her", "its")
            and 0 < len(self.subject) <= 4
            and not is_plural_subject(self.subject)
        ):
            return owned([self.subject, subject])[1]
        if is_partitive([*subject, IS]) == len(subject):
            return self._one_of(subject)
        return subject

    def _of_all(self, clause: list[Segment], lead: list[Token]) -> Iterator[Statement]:
        """What the subject does by a participle, or each of its things."""
        words = clause[0].tokens
        whole = words[0].low in lexicon.WHOLE
        if whole and not is_plural_subject(self.subject):
            return
        if words[0].low == "each":
            if self.many:
                one = Token(singular(self.many), "word", refers=True)
                has = len(words) > 2 and words[1].low == "with"
                yield from self._predicates([words[0], one], HAS if has else IS, _tail(clause, 1 + has), lead)
            return
        if words[0].low in lexicon.SPREAD and not is_plural_subject(self.subject):
            return
        yield from self._predicates(self.subject, agreeing(IS, self.subject), _tail(clause, int(whole)), lead)

    def _of_them(self, words: list[Token]) -> list[Token]:
        """ "one of the chairs" for "one of which"."""
        for place, token in enumerate(words[1:4], start=1):
            if token.kind == "rel" and words[place - 1].low == "of":
                return [*words[:place], *instead(self.subject, [token]), *words[place + 1 :]]
        return words

    def _one_of(self, words: Sequence[Token]) -> list[Token]:
        if not self.many:
            return list(words)
        if len(words) > 1 and words[-1].low == "one":
            words = words[:-1]
        last = words[-1]
        if last.low == "others":
            return [*words[:-1], last._replace(text="other"), Token(self.many, "word", last.start, last.end)]
        many = last.low in lexicon.PLURAL
        noun = self.many if many else singular(self.many)
        return [*words, Token(noun, "word", last.start, last.end)]

    def _remember_thing(self, words: Sequence[Token]) -> None:
        start = next((number for number, token in enumerate(words) if token.low in lexicon.ARTICLES), None)
        thing = definite(core(words[start:])) if start is not None else []
        self.thing = thing if thing and thing[-1].low not in lexicon.PERSONS else []

    def _remember_many(self, words: Sequence[Token]) -> None:
        for token, after in zip(words, [*words[1:], IS], strict=True):
            if (
                token.kind == "word"
                and is_plural(token.low)
                and after.kind != "word"
                and token.low != "others"
            ):
                self.many = token.low
                return


def _only_names(clause: Sequence[Segment]) -> bool:
    """Whether it is "The ball," in front of an aside."""
    words = clause[0].tokens
    return (
        len(clause) == 1
        and words[0].low in lexicon.DEFINITE
        and finite(words) is None
        and core(words) == words
    )


def _about_definite(thing: list[Token]) -> Statement:
    """What "there is the ..." would say in English."""
    head = core(thing)
    if 0 < len(head) < len(thing) and (
        thing[len(head)].kind in ("ing", "part")
        or (
            thing[len(head)].kind == "prep"
            and thing[len(head)].low not in lexicon.ATTACHING
            and finite(thing) is None
        )
    ):
        return Statement(tuple(head), agreeing(IS, head), tuple(thing[len(head) :]))
    return Statement((THE, Token("image", "word")), Token("shows", "verb"), tuple(thing))


def _tail(clause: Sequence[Segment], length: int) -> list[Segment]:
    return [Segment("", clause[0].tokens[length:]), *clause[1:]]


def _place(words: Sequence[Token]) -> list[Token]:
    """An opening phrase, unless it only says that this is an image or opens the sentence."""
    known = words and words[0].kind == "prep" and words[-1].low not in IMAGE
    return lowered(list(words)) if known else []


def _is_place(words: Sequence[Token]) -> bool:
    first = first_content(words)
    return first is None or first.kind == "prep"
