"""The splitter that asks a language model: one structured call for each answer, and each quote is checked."""

import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel

from rlaifv_pl.feedback import prompt_templates
from rlaifv_pl.feedback.claims.splitter import ClaimList, PromptedAnswer, Undivided
from rlaifv_pl.feedback.engines.engine import Engine, Request
from rlaifv_pl.feedback.reasons import INCOMPLETE, MISQUOTED, NO_FORM, NO_QUESTION
from rlaifv_pl.records import Claim

VERSION = 1
"""Version of the alignment of quotes; another number, other claims."""
LONGEST_FUZZY = 4000
"""Most characters of an answer that is searched by difflib for a quote that is not verbatim."""


class QuotedClaim(BaseModel):
    """One claim as a model writes it down."""

    quote: str
    claim: str
    question: str


class SplitResult(BaseModel):
    """The form that a model fills in for an answer."""

    claims: list[QuotedClaim]


@dataclass(kw_only=True)
class LLMSplitter:
    """Divides answers with a language model.

    Args:
        engine: the model.
        threshold: share of a quote's characters that a stretch of the answer must match, in order, to be taken for what
            it quotes; 1 for exact quotes only, blanks and case aside.
    """

    engine: Engine
    threshold: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(
                f"threshold = {self.threshold}: give the share of a quote that must match, above 0, at most 1"
            )

    def recipe(self) -> dict[str, Any]:
        """Return the model, the prompt's hash, the threshold and the version."""
        prompt = hashlib.sha256(prompt_templates.DIVIDE.encode()).hexdigest()[:16]
        return {
            "splitter": "model",
            "version": VERSION,
            "model": self.engine.identity,
            "prompt": prompt,
            "threshold": self.threshold,
        }

    def split(self, answered: Sequence[PromptedAnswer]) -> list[ClaimList | Undivided]:
        """Return the claims of each answer; `no_form` where the model filled in none, also when asked again, and
        `misquoted` where no claim can be used. Single claims are left out as `incomplete`, `no_question` or
        `misquoted`.
        """
        requests = [
            Request(
                prompt_templates.DIVIDE.format(prompt=one.prompt, answer=one.text),
                where=f"answer {number}",
                accepts=partial(self._accepts, one.text),
            )
            for number, one in enumerate(answered)
        ]
        forms = self.engine.fill(requests, SplitResult)
        return [self._check_form(one.text, form) for one, form in zip(answered, forms, strict=True)]

    def release(self) -> None:
        """Drop the model's weights."""
        self.engine.release()

    def _accepts(self, text: str, form: SplitResult) -> bool:
        """Whether it has a claim that can be used, or none at all."""
        return not form.claims or not isinstance(self._check_form(text, form), Undivided)

    def _check_form(self, text: str, form: SplitResult | None) -> ClaimList | Undivided:
        if form is None:
            return Undivided(NO_FORM)
        results = [self._check_claim(text, written) for written in form.claims]
        dropped = tuple(result for result in results if isinstance(result, str))
        claims: dict[str, Claim] = {}
        for result in results:
            if isinstance(result, Claim):
                claims.setdefault(result.text.lower(), result)
        return (
            Undivided(MISQUOTED, dropped) if dropped and not claims else ClaimList(claims.values(), dropped)
        )

    def _check_claim(self, text: str, written: QuotedClaim) -> Claim | str:
        """Return the claim with its place, or the reason why it is left out."""
        claim, question = written.claim.strip(), written.question.strip()
        if not claim or not question:
            return INCOMPLETE
        if not question.endswith("?"):
            return NO_QUESTION
        span = locate(text, written.quote, self.threshold)
        return MISQUOTED if span is None else Claim(text=claim, question=question, spans=(span,))


def locate(text: str, quote: str, threshold: float) -> tuple[int, int] | None:
    """Return (start, end) of a quote: verbatim, else up to case and blanks, else the stretch between the outermost
    matches if they cover `threshold` of the quote.

    >>> locate("A  Dog runs.", "a dog", 1.0), locate("A brown dog runs.", "brown dgo runs", 0.8)
    ((0, 6), (2, 16))
    """
    words = quote.split()
    if not words:
        return None
    if (start := text.find(quote.strip())) >= 0:
        return start, start + len(quote.strip())
    if match := re.search(r"\s+".join(map(re.escape, words)), text, re.IGNORECASE):
        return match.span()
    return _nearest(text, quote.strip(), threshold) if len(text) <= LONGEST_FUZZY else None


def _nearest(text: str, quote: str, threshold: float) -> tuple[int, int] | None:
    """Return the stretch of the quote's length around its longest match that shares most with it."""
    low, wanted = text.lower(), quote.lower()
    matcher = difflib.SequenceMatcher(None, low, wanted, autojunk=False)
    longest = matcher.find_longest_match()
    slack = len(wanted) // 5
    first = max(0, longest.a - longest.b - slack)
    last = min(len(low), longest.a - longest.b + len(wanted) + slack)
    matcher.set_seq1(low[first:last])
    blocks = [block for block in matcher.get_matching_blocks() if block.size]
    if sum(block.size for block in blocks) < threshold * len(wanted):
        return None
    return first + blocks[0].a, first + blocks[-1].a + blocks[-1].size
