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
from rlaifv_pl.feedback.corrections.dialogue_rules import CorrectionResult, TurnRule
from rlaifv_pl.feedback.corrections.pipeline import Corrector
from rlaifv_pl.records import Correction, Sample
from rlaifv_pl.seeds import derive

_WORD = r"(?!(?:and|or|of|with|in|on|at|by|to|is|are)\b)\w+"
_OBJECT = rf"(?P<thing>{_WORD}(?: {_WORD})?)"
_COLOR, _NUMBER = ("|".join(sorted(words)) for words in (COLORS, NUMBERS))
_PLURAL = "(?:(?<=s)|(?<=people)|(?<=men)|(?<=children))"
_STATEMENTS = (
    (COLOR, re.compile(rf"(?:there is )?an? (?P<value>{_COLOR}) {_OBJECT}")),
    (COLOR, re.compile(rf"the {_OBJECT} is (?P<value>{_COLOR})")),
    (COUNT, re.compile(rf"(?:there are )?(?P<value>{_NUMBER}|\d+) {_OBJECT}{_PLURAL}")),
)
"""Claims that are sure to read well as an open question: short, and about one object or one count."""


@dataclass(kw_only=True)
class TurnTemplates:
    """Text of the turns. Yes/no questions are the claims' own.

    The answers are a word by default, as in the paper's dialogues for short answers. More cannot be written by rule
    without a risk to grammar and truth: "No, there is a red cup." says the opposite of what it should. The miniature
    world's models know small letters and no sentence of one word: `yes: "yes"`, `no: "no"`, `color: null`,
    `count: null`.

    Args:
        yes: answer that affirms.
        no: answer that denies.
        color: open question about a colour, with `{thing}` in it; null for none.
        count: open question about a number, with `{thing}` (a plural) in it; null for none.
        explain: add to an answer the accepted claim that it rests on, as a sentence: to yes the claim itself, to no the
            claim of the chosen answer that contradicts what was asked, if there is one. For splitters whose claims are
            whole sentences.
    """

    yes: str = "Yes."
    no: str = "No."
    color: str | None = "What color is the {thing}?"
    count: str | None = "How many {thing} are there?"
    explain: bool = False

    def affirm(self, finding: Finding) -> Correction:
        """Return the turn that asks its claim and affirms it."""
        return _turn(finding, finding.claim.question, self._explained(self.yes, finding.claim))

    def deny(self, finding: Finding) -> Correction:
        """Return the turn that asks its claim and denies it."""
        return _turn(finding, finding.claim.question, self._explained(self.no, finding.counterpart))

    def ask_openly(self, finding: Finding) -> Correction | None:
        """Return the turn that asks for the colour or number that the claim states; None if no template is safe."""
        templates = {COLOR: self.color, COUNT: self.count}
        text = " ".join(finding.claim.words)
        for code, pattern in _STATEMENTS:
            template = templates[code]
            if template is not None and (match := pattern.fullmatch(text)):
                question = template.format(thing=match["thing"])
                return _turn(finding, question, f"{match['value'].capitalize()}.")
        return None

    def _explained(self, answer: str, claim: JudgedClaim | None) -> str:
        if not self.explain or claim is None:
            return answer
        text = claim.text.strip()
        return f"{answer} {text[:1].upper()}{text[1:].rstrip('.')}."


@dataclass(kw_only=True)
class RuleCorrector(Corrector):
    """Turns the differing claims of a pair into questions, and their verdicts into answers.

    Mistakes of the rejected answer are denied, what it missed is affirmed or asked for, and what it got right fills up
    the yes answers. With `rule.balanced` there are exactly as many yes as no, so that a model learns neither word by
    itself; only a pair that gives one kind of answer has a single turn of it. Otherwise there are as many turns as fit,
    denials first.

    Args:
        templates: text of the turns.
        rule: selection of turns.
    """

    templates: TurnTemplates = field(default_factory=TurnTemplates)
    rule: TurnRule = field(default_factory=TurnRule)

    def recipe(self) -> dict[str, Any]:
        options = {"wording": asdict(self.templates), "rule": asdict(self.rule)}
        return {"corrector": "RuleCorrector", "codebook": Codebook.load().hash, **options}

    def correct(self, samples: Sequence[Sample], seed: int) -> list[CorrectionResult]:
        """Write corrections, see `Corrector.correct`.

        Raises:
            BadSample: `missing_evidence`.
        """
        return [self._correct(sample, derive(seed, "correct", sample.key)) for sample in samples]

    def _correct(self, sample: Sample, seed: int) -> CorrectionResult:
        diagnosis, rng = diagnose(sample), random.Random(seed)
        if not diagnosis.wrong and not diagnosis.missed:
            return CorrectionResult(drop="no_error")
        turns = self._write(diagnosis, rng)
        rng.shuffle(turns)
        return self.rule.check(turns, sample)

    def _write(self, diagnosis: Diagnosis, rng: random.Random) -> list[Correction]:
        wrong, missed, right = (
            rng.sample(findings, len(findings))
            for findings in (diagnosis.wrong, diagnosis.missed, diagnosis.right)
        )
        true, limit = missed + right, self.rule.turns
        if not self.rule.balanced:
            return [*map(self.templates.deny, wrong), *map(self.templates.affirm, true)][:limit]
        even = min(len(wrong), len(true), limit // 2)
        # Where it is 0 there is one kind of answer only.
        per_side, closed = max(even, 1), 2 * even or 1
        # An open question gives away what its claim says: that claim is asked about once only.
        room = max(0, min(limit - closed, len(true) - per_side))
        clear = [one for one in missed if not self._is_ambiguous(one, diagnosis)]
        questions = [(one, turn) for one in clear if (turn := self.templates.ask_openly(one))][:room]
        open_findings = [one for one, _ in questions]
        affirmed = [one for one in true if one not in open_findings]
        return [
            *map(self.templates.deny, wrong[:per_side]),
            *map(self.templates.affirm, affirmed[:per_side]),
            *(turn for _, turn in questions),
        ]

    def _is_ambiguous(self, finding: Finding, diagnosis: Diagnosis) -> bool:
        """Whether another accepted claim would give an open question another answer."""
        others = (other.claim for other in diagnosis.missed + diagnosis.right)
        return any(map(finding.claim.contradiction, others))


def _turn(finding: Finding, question: str, answer: str) -> Correction:
    codes = () if finding.code is None else (finding.code,)
    return Correction(question=question, answer=answer, codes=codes)
