"""Divide: a free-text answer about an image into claims that can be checked one by one."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from rlaifv_pl.feedback.claims.english import lexicon
from rlaifv_pl.feedback.claims.english.clauses import finite
from rlaifv_pl.feedback.claims.english.questions import question_of, sentence_of
from rlaifv_pl.feedback.claims.english.sentences import LONGEST_SENTENCE, Token, sentences, tokenize
from rlaifv_pl.feedback.claims.english.spans import own_places
from rlaifv_pl.feedback.claims.english.statements import Reader
from rlaifv_pl.feedback.claims.english.wording import judged, unwrapped
from rlaifv_pl.records import Claim

VERSION = 3
"""Of the rules: another number, another division."""


class PromptedAnswer(NamedTuple):
    """What was asked, as text, and what a candidate says."""

    prompt: str
    text: str


class Undivided(NamedTuple):
    """An answer that could not be divided."""

    reason: str
    """In a word, for the counts."""


class Splitter(Protocol):
    """Divides answers into claims."""

    def recipe(self) -> dict[str, Any]:
        """All that decides the result, as JSON."""

    def split(self, answered: Sequence[PromptedAnswer]) -> Sequence[list[Claim] | Undivided]:
        """The claims of each answer, or why it could not be divided; an empty list where nothing in it can be checked
        by looking."""

    def release(self) -> None:
        """Free what it holds in memory."""


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
"""Words of an answer without a verb that are read in the light of the question."""


@dataclass(frozen=True, kw_only=True)
class RuleSplitter:
    """Divides by rules of English, without a model: the same text always gives the same claims.

    It knows long descriptions best: sentences, lists and clauses come apart, things of an enumeration become
    one claim each, remarks and guesses are left out. What it cannot take apart stays one claim.

    Args:
        most_words: of a claim; longer ones were not understood and are left out.
    """

    most_words: int = 40

    def recipe(self) -> dict[str, Any]:
        """Its version and options."""
        return {"splitter": "rules", "version": VERSION, "most_words": self.most_words}

    def split(self, answered: Sequence[PromptedAnswer]) -> list[list[Claim]]:
        """The claims of each answer; rules always come to an end.

        >>> two = PromptedAnswer("Describe the image.", "The image shows a cat and two dogs. It is a lovely day.")
        >>> [claim.question for claim in RuleSplitter().split([two])[0]]
        ['Is there a cat?', 'Are there two dogs?']
        """
        return [self._claims(one) for one in answered]

    def release(self) -> None:
        """Nothing."""

    def _claims(self, answered: PromptedAnswer) -> list[Claim]:
        found: dict[str, Claim] = {}
        phrase = _phrase(answered)
        for claim in _claims(answered.text, phrase.spans[-1][1] if phrase else 0):
            if len(claim.text.split()) <= self.most_words:
                found.setdefault(claim.text.lower(), claim)
        return [phrase, *found.values()] if phrase else list(found.values())


def _phrase(answered: PromptedAnswer) -> Claim | None:
    """The claim of an answer's first sentence, where it is one only in the light of what was asked."""
    question = _asked(answered.prompt)
    first = next(sentences(answered.text), None)
    if not question or not first:
        return None
    start, end = first
    said = answered.text[start:end].rstrip(" .!,")
    decided = _YES_NO.fullmatch(said)
    if not decided and (_DESCRIBES.search(question) or not _is_phrase(tokenize(answered.text, start, end))):
        return None
    said = decided[1].lower() if decided else said.replace('"', "'")
    quoted = question.replace('"', "'")
    affirmed = said in ("yes", "yeah", "yep") and question.split()[0].lower() in lexicon.AUXILIARIES
    weighed = f'Is "{said}" the right answer to the question "{quoted}"?'
    return Claim(
        text=f'The answer to the question "{quoted}" is "{said}".',
        question=question[:1].upper() + question[1:] if affirmed else weighed,
        spans=((start, end),),
    )


def _asked(prompt: str) -> str:
    """The last question of a prompt; empty where there is none, or none of sane length."""
    questions = [prompt[start:end] for start, end in sentences(prompt[-4 * LONGEST_SENTENCE :])]
    return next((one for one in reversed(questions) if one.endswith("?")), "")


def _is_phrase(words: Sequence[Token]) -> bool:
    said = unwrapped(list(words))
    return 0 < len(said) <= LONGEST_PHRASE and finite(said) is None


def _claims(text: str, begin: int) -> Iterator[Claim]:
    """The claims of the sentences from `begin` on, in order, equal ones too."""
    reader = Reader()
    for start, end in sentences(text):
        if start < begin:
            continue
        stated = map(judged, reader.statements(unwrapped(tokenize(text, start, end))))
        found = {sentence_of(one): one for one in stated if one is not None}
        places = own_places(text, [one.tokens for one in found.values()])
        for (said, statement), spans in zip(found.items(), places, strict=True):
            yield Claim(text=said, question=question_of(statement), spans=spans or ((start, end),))
