"""The corrector that asks no model: turns written by rule from claims and their verdicts."""

import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rlaifv_pl.feedback.corrections.codebook import Codebook
from rlaifv_pl.feedback.corrections.diagnosis import (
    COLOR,
    COLORS,
    COUNT,
    NUMBERS,
    Diagnosis,
    Finding,
    JudgedClaim,
    diagnose,
)
from rlaifv_pl.feedback.corrections.dialogue_rules import Corrected, TurnRule
from rlaifv_pl.feedback.corrections.pipeline import Corrector
from rlaifv_pl.records import Correction, Sample
from rlaifv_pl.seeds import derive

_WORD = r"(?!(?:and|or|of|with|in|on|at|by|to|is|are)\b)\w+"
_THING = rf"(?P<thing>{_WORD}(?: {_WORD})?)"
_COLOR, _NUMBER = ("|".join(sorted(words)) for words in (COLORS, NUMBERS))
_PLURAL = "(?:(?<=s)|(?<=people)|(?<=men)|(?<=children))"
_STATED = (
    (COLOR, re.compile(rf"(?:there is )?an? (?P<value>{_COLOR}) {_THING}")),
    (COLOR, re.compile(rf"the {_THING} is (?P<value>{_COLOR})")),
    (COUNT, re.compile(rf"(?:there are )?(?P<value>{_NUMBER}|\d+) {_THING}{_PLURAL}")),
)
"""The claims that are sure to read well as an open question: short, and about one thing or one count."""


@dataclass(kw_only=True)
class Wording:
    """How turns are put. Their yes/no questions are the claims' own.

    The answers are a word by default, as in the paper's dialogues for short answers. More cannot be
    written by rule without a risk to grammar and truth: "No, there is a red cup." says the opposite of
    what it should. The miniature world's models know small letters and no sentence of one word:
    `yes: "yes"`, `no: "no"`, `color: null`, `count: null`.

    Args:
        yes: the answer that affirms.
        no: the answer that denies.
        color: the open question about a colour, with `{thing}` in it; null for none.
        count: the open question about a number, with `{thing}` (a plural) in it; null for none.
        explain: add to an answer the accepted claim that it rests on, as a sentence: to yes the claim
            itself, to no the claim of the chosen answer that contradicts what was asked, if there is
            one. For splitters whose claims are whole sentences.
    """

    yes: str = "Yes."
    no: str = "No."
    color: str | None = "What color is the {thing}?"
    count: str | None = "How many {thing} are there?"
    explain: bool = False

    def affirm(self, finding: Finding) -> Correction:
        """Its claim asked, and affirmed."""
        return _turn(finding, finding.claim.question, self._explained(self.yes, finding.claim))

    def deny(self, finding: Finding) -> Correction:
        """Its claim asked, and denied."""
        return _turn(finding, finding.claim.question, self._explained(self.no, finding.counterpart))

    def ask(self, finding: Finding) -> Correction | None:
        """Colour or number asked for, as the claim states it; None where no rule does this safely."""
        templates = {COLOR: self.color, COUNT: self.count}
        text = " ".join(finding.claim.words)
        for code, pattern in _STATED:
            if templates[code] is not None and (match := pattern.fullmatch(text)):
                question = templates[code].format(thing=match["thing"])
                return _turn(finding, question, f"{match['value'].capitalize()}.")
        return None

    def _explained(self, answer: str, ground: JudgedClaim | None) -> str:
        if not self.explain or ground is None:
            return answer
        text = ground.text.strip()
        return f"{answer} {text[:1].upper()}{text[1:].rstrip('.')}."


@dataclass(kw_only=True)
class RuleCorrector(Corrector):
    """Turns the differing claims of a pair into questions, their verdicts into answers.

    What the rejected answer got wrong is denied, what it missed is affirmed or asked for, and what it
    got right fills up the yes answers. With `rule.balanced` there are exactly as many yes as no, so
    that a model learns neither word by itself; only a pair that gives one kind of answer has a single
    turn of it. Otherwise there are as many turns as fit, denials first.

    Args:
        wording: of the turns.
        rule: which turns are kept.
    """

    wording: Wording = field(default_factory=Wording)
    rule: TurnRule = field(default_factory=TurnRule)

    def recipe(self) -> dict[str, Any]:
        options = {"wording": asdict(self.wording), "rule": asdict(self.rule)}
        return {"corrector": "RuleCorrector", "codebook": Codebook.load().hash, **options}

    def correct(self, samples: Sequence[Sample], seed: int) -> list[Corrected]:
        """As `Corrector.correct`.

        Raises:
            BadSample: `missing_evidence`.
        """
        return [self._correct(sample, derive(seed, "correct", sample.key)) for sample in samples]

    def _correct(self, sample: Sample, seed: int) -> Corrected:
        found, rng = diagnose(sample), random.Random(seed)
        if not found.wrong and not found.missed:
            return Corrected(drop="no_error")
        turns = self._write(found, rng)
        rng.shuffle(turns)
        return self.rule.check(turns, sample)

    def _write(self, found: Diagnosis, rng: random.Random) -> list[Correction]:
        wrong, missed, right = (
            rng.sample(some, len(some)) for some in (found.wrong, found.missed, found.right)
        )
        true, most = missed + right, self.rule.turns
        if not self.rule.balanced:
            return [*map(self.wording.deny, wrong), *map(self.wording.affirm, true)][:most]
        even = min(len(wrong), len(true), most // 2)
        # Where it is 0 there is one kind of answer only.
        each, closed = max(even, 1), 2 * even or 1
        # An open question gives away what its claim says: that claim is asked about once only.
        room = max(0, min(most - closed, len(true) - each))
        asked = [one for one in missed if self._is_clear(one, found)][:room]
        affirmed = [one for one in true if one not in asked]
        return [
            *map(self.wording.deny, wrong[:each]),
            *map(self.wording.affirm, affirmed[:each]),
            *map(self.wording.ask, asked),
        ]

    def _is_clear(self, finding: Finding, found: Diagnosis) -> bool:
        """Whether it can be asked openly and no other accepted claim would give another answer."""
        others = (other.claim for other in found.missed + found.right)
        return self.wording.ask(finding) is not None and not any(map(finding.claim.contradicts, others))


def _turn(finding: Finding, question: str, answer: str) -> Correction:
    codes = () if finding.code is None else (finding.code,)
    return Correction(question=question, answer=answer, codes=codes)
