"""Divide by a model: one structured call for each answer, and nothing taken on trust that can be checked."""

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic import BaseModel

from rlaifv_pl.feedback import prompt_templates
from rlaifv_pl.feedback.claims.splitter import PromptedAnswer, Undivided
from rlaifv_pl.feedback.engines.engine import Engine, Request
from rlaifv_pl.feedback.reasons import MISQUOTED, NO_FORM
from rlaifv_pl.records import Claim

VERSION = 1
"""Of the alignment of quotes: another number, another division."""
LONGEST_FUZZY = 4000
"""Characters of an answer up to which a quote that is nowhere as it stands is looked for with difflib."""


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
        threshold: share of a quote's characters that a stretch of the answer must match, in order, to be
            taken for what it quotes; 1 for exact quotes only, blanks and case aside.
    """

    engine: Engine
    threshold: float = 0.8
    dropped: Counter[str] = field(default_factory=Counter)
    """How many claims were left out so far, by reason, and under `no form` and `nothing aligned` how many
    answers could not be divided."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(
                f"threshold = {self.threshold}: give the share of a quote that must match, above 0, at most 1"
            )

    def recipe(self) -> dict[str, Any]:
        """The model, the prompt's hash, the threshold and the version."""
        prompt = hashlib.sha256(prompt_templates.DIVIDE.encode()).hexdigest()[:16]
        return {
            "splitter": "model",
            "version": VERSION,
            "model": self.engine.identity,
            "prompt": prompt,
            "threshold": self.threshold,
        }

    def split(self, answered: Sequence[PromptedAnswer]) -> list[list[Claim] | Undivided]:
        """The claims of each answer; `no_form` where the model gave none, also when asked again, and `misquoted` where
        the answer has nothing of what it quotes."""
        requests = [
            Request(
                prompt_templates.DIVIDE.format(prompt=one.prompt, answer=one.text),
                where=f"answer {number}",
                accepts=partial(self._aligns, one.text),
            )
            for number, one in enumerate(answered)
        ]
        forms = self.engine.fill(requests, SplitResult)
        return [self._checked(one.text, form) for one, form in zip(answered, forms, strict=True)]

    def release(self) -> None:
        """Drop the model's weights."""
        self.engine.release()

    def _aligns(self, text: str, form: SplitResult) -> bool:
        return not form.claims or any(self._aligned(text, written)[1] for written in form.claims)

    def _checked(self, text: str, form: SplitResult | None) -> list[Claim] | Undivided:
        if form is None:
            self.dropped["no form"] += 1
            return Undivided(NO_FORM)
        found: dict[str, Claim] = {}
        for written in form.claims:
            reason, claim = self._aligned(text, written)
            if claim is None:
                self.dropped[reason] += 1
            else:
                found.setdefault(claim.text.lower(), claim)
        if form.claims and not found:
            self.dropped["nothing aligned"] += 1
            return Undivided(MISQUOTED)
        return list(found.values())

    def _aligned(self, text: str, written: QuotedClaim) -> tuple[str, Claim | None]:
        """(why it is left out, the claim otherwise)."""
        claim, question = written.claim.strip(), written.question.strip()
        if not claim or not question:
            return "empty", None
        if not question.endswith("?"):
            return "no question", None
        span = locate(text, written.quote, self.threshold)
        if span is None:
            return "quote not found", None
        return "", Claim(text=claim, question=question, spans=(span,))


def locate(text: str, quote: str, threshold: float) -> tuple[int, int] | None:
    """(start, end) of what is quoted: as it stands, else whatever the case and the blanks, else the
    stretch between the outermost matches if they cover `threshold` of the quote.

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
    """The window of the quote's length around its longest match that shares most with it."""
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
