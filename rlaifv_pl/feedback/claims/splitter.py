"""Splitters, and the one by rules of English: from a free-text answer to claims that can be checked one by one."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from rlaifv_pl.feedback.claims.english import lexicon
from rlaifv_pl.feedback.claims.english.clauses import finite
from rlaifv_pl.feedback.claims.english.questions import question_of, sentence_of
from rlaifv_pl.feedback.claims.english.sentences import LONGEST_SENTENCE, Token, sentences, tokenize
from rlaifv_pl.feedback.claims.english.spans import own_places
from rlaifv_pl.feedback.claims.english.statements import Reader
from rlaifv_pl.feedback.claims.english.wording import judged, unwrapped
from rlaifv_pl.feedback.reasons import TOO_LONG
from rlaifv_pl.records import Claim

VERSION = 3
"""Version of the rules; another number, other claims."""


class PromptedAnswer(NamedTuple):
    """A prompt as text, and an answer to it."""

    prompt: str
    text: str


class Undivided(NamedTuple):
    """An answer that could not be divided."""

    reason: str
    """One of the faults in `feedback.reasons.REMEDIES`."""
    dropped: tuple[str, ...] = ()
    """Reason of each claim that was left out."""


class ClaimList(list[Claim]):
    """Claims of an answer, which also knows what was left out.

    Args:
        claims: the claims that are kept.
        dropped: reason of each claim that was left out, one of `feedback.reasons.CLAIM_REASONS`.
    """

    def __init__(self, claims: Iterable[Claim] = (), dropped: Iterable[str] = ()) -> None:
        super().__init__(claims)
        self.dropped = tuple(dropped)


class Splitter(Protocol):
    """Divides answers into claims."""

    def recipe(self) -> dict[str, Any]:
        """Return all settings that decide the result, as JSON."""

    def split(self, answered: Sequence[PromptedAnswer]) -> Sequence[list[Claim] | Undivided]:
        """Return the claims of each answer, or why it could not be divided; an empty list where nothing in it can be
        checked by looking. A `ClaimList` also counts the claims that were left out."""

    def release(self) -> None:
        """Free the memory that it holds."""


_DESCRIBES = re.compile(
    r"\bwhat(?:'s| is| are| do| does| can|) .*\b(?:see|show|shows|shown|image|picture|photo|scene|happening)\b",
    re.IGNORECASE,
)
_YES_NO = re.compile(
    r"\W*(yes|no|yeah|yep|nope)\b\W*(?:(?:it|he|she|they|there|i) (?:is|are|does|do|has|have|was|were|can)"
    r"(?: not|n't)?)?\W*",
    re.IGNORECASE,
)
LONGEST_PHRASE = 12
"""Most words of an answer without a verb that is read in the light of the question."""


@dataclass(frozen=True, kw_only=True)
class RuleSplitter:
    """Divides by rules of English, without a model: the same text always gives the same claims.

    It knows long descriptions best: sentences, lists and clauses come apart, items of an enumeration become one claim
    each, remarks and guesses are left out. A clause that it cannot take apart stays one claim.

    Args:
        most_words: most words of a claim; longer ones were not understood, and are left out as `claim/too_long`.
    """

    most_words: int = 40

    def recipe(self) -> dict[str, Any]:
        """Return the version and the options."""
        return {"splitter": "rules", "version": VERSION, "most_words": self.most_words}

    def split(self, answered: Sequence[PromptedAnswer]) -> list[ClaimList]:
        """Return the claims of each answer; rules always come to an end.

        >>> two = PromptedAnswer("Describe the image.", "The image shows a cat and two dogs. It is a lovely day.")
        >>> [claim.question for claim in RuleSplitter().split([two])[0]]
        ['Is there a cat?', 'Are there two dogs?']
        """
        return [self._split_answer(one) for one in answered]

    def release(self) -> None:
        """Do nothing: rules hold no memory."""

    def _split_answer(self, answered: PromptedAnswer) -> ClaimList:
        short_answer = _short_answer(answered)
        start = short_answer.spans[-1][1] if short_answer else 0
        claims: dict[str, Claim] = {}
        for claim in _claims(answered.text, start):
            claims.setdefault(claim.text.lower(), claim)
        kept = [claim for claim in claims.values() if len(claim.text.split()) <= self.most_words]
        dropped = [TOO_LONG] * (len(claims) - len(kept))
        return ClaimList([short_answer, *kept] if short_answer else kept, dropped)


def _short_answer(answered: PromptedAnswer) -> Claim | None:
    """Return the claim of an answer's first sentence, where it is one only in the light of the question."""
    question = _last_question(answered.prompt)
    first = next(sentences(answered.text), None)
    if not question or not first:
        return None
    start, end = first
    answer = answered.text[start:end].rstrip(" .!,")
    yes_no = _YES_NO.fullmatch(answer)
    if not yes_no and (_DESCRIBES.search(question) or not _is_phrase(tokenize(answered.text, start, end))):
        return None
    answer = yes_no[1].lower() if yes_no else answer.replace('"', "'")
    quoted = question.replace('"', "'")
    affirmed = answer in ("yes", "yeah", "yep") and question.split()[0].lower() in lexicon.AUXILIARIES
    return Claim(
        text=f'The answer to the question "{quoted}" is "{answer}".',
        question=question[:1].upper() + question[1:]
        if affirmed
        else f'Is "{answer}" the right answer to the question "{quoted}"?',
        spans=((start, end),),
    )


def _last_question(prompt: str) -> str:
    """Return the last question of a prompt; empty where there is none, or none of sane length."""
    questions = [prompt[start:end] for start, end in sentences(prompt[-4 * LONGEST_SENTENCE :])]
    return next((one for one in reversed(questions) if one.endswith("?")), "")


def _is_phrase(words: Sequence[Token]) -> bool:
    content = unwrapped(list(words))
    return 0 < len(content) <= LONGEST_PHRASE and finite(content) is None


def _claims(text: str, begin: int) -> Iterator[Claim]:
    """Yield the claims of the sentences from `begin` on, in order, equal ones too."""
    reader = Reader()
    for start, end in sentences(text):
        if start < begin:
            continue
        judged_statements = map(judged, reader.statements(unwrapped(tokenize(text, start, end))))
        statements = {sentence_of(one): one for one in judged_statements if one is not None}
        places = own_places(text, [one.tokens for one in statements.values()])
        for (sentence, statement), spans in zip(statements.items(), places, strict=True):
            yield Claim(text=sentence, question=question_of(statement), spans=spans or ((start, end),))
