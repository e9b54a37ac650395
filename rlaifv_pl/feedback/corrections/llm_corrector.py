"""The corrector that asks a model: it names the errors of the rejected answer, then writes turns about them.

As in nSFT (Zhu et al., CVPR 2025) the model reads texts only: the chosen answer is its one source of
truth, so that corrections are as good as that. What it writes is checked, not trusted.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel

from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.feedback.corrections.codebook import Codebook
from rlaifv_pl.feedback.corrections.dialogue_rules import (
    UNANSWERED,
    UNUSABLE,
    Corrected,
    TurnRule,
    conversation,
    normalize_text,
)
from rlaifv_pl.feedback.corrections.pipeline import Corrector
from rlaifv_pl.feedback.engines.engine import Engine, Form, Request
from rlaifv_pl.feedback.prompt_templates import DIAGNOSE, DIAGNOSE_AND_WRITE, WRITE
from rlaifv_pl.records import Correction, Sample


class FoundError(BaseModel):
    """One error of the rejected answer."""

    words: str
    """Quoted from it; for an omission, from the chosen answer."""
    code: str
    """Id of the codebook's error type."""
    truth: str
    """What the chosen answer says about it."""


class LLMDiagnosis(BaseModel):
    """The form of the first call."""

    errors: list[FoundError]


class DraftTurn(BaseModel):
    """One question with its answer."""

    question: str
    answer: str
    codes: list[str]
    """Ids of the error types that it is about."""


class DialogueDraft(BaseModel):
    """The form of the second call."""

    turns: list[DraftTurn]


class DiagnosisAndScript(LLMDiagnosis, DialogueDraft):
    """The form of a single call."""


@dataclass(frozen=True, slots=True)
class _Found:
    """The errors that hold, and how many do not, by reason."""

    errors: list[FoundError]
    removed: Counter[str]


@dataclass(kw_only=True)
class LLMCorrector(Corrector):
    """Has a model diagnose and write, in structured calls.

    An error counts only with words that do stand in the answer it is said to be in, and with an id of
    the codebook; turns about errors that do not count are left out.

    Args:
        engine: the model; it needs no eyes.
        codebook: YAML list of error types; the shipped one unless given.
        calls: 2 to diagnose first and write about the errors that hold, 1 for both at once, which is
            cheaper, and loses the turns about errors that do not hold.
        rule: which turns are kept; `rule.turns` is also how many are asked for.
    """

    engine: Engine
    codebook: str | None = None
    calls: Literal[1, 2] = 2
    rule: TurnRule = field(default_factory=TurnRule)

    def __post_init__(self) -> None:
        self._codebook = Codebook.load(self.codebook)

    def recipe(self) -> dict[str, Any]:
        stages: list[tuple[str, type[BaseModel]]]
        stages = [(DIAGNOSE, LLMDiagnosis), (WRITE, DialogueDraft)] if self.calls == 2 else [self._first]
        return {
            "corrector": "LLMCorrector",
            "engine": self.engine.identity,
            "codebook": self._codebook.hash,
            "prompts": hash_json([(text, form.model_json_schema()) for text, form in stages]),
            "rule": asdict(self.rule),
        }

    def correct(self, samples: Sequence[Sample], seed: int) -> list[Corrected]:
        """As `Corrector.correct`; the engine's own settings decide its draws, not the seed."""
        text, form = self._first
        # Of a single call they are scripts too.
        forms: Sequence[Any] = self._fill(text, form, samples, [""] * len(samples), self._accepts)
        found = [
            form and self._found(form.errors, sample) for form, sample in zip(forms, samples, strict=True)
        ]
        scripts = forms if self.calls == 1 else self._written(samples, found)
        return [self._outcome(*each) for each in zip(samples, found, scripts, strict=True)]

    @property
    def _first(self) -> tuple[str, type[LLMDiagnosis]]:
        return (DIAGNOSE, LLMDiagnosis) if self.calls == 2 else (DIAGNOSE_AND_WRITE, DiagnosisAndScript)

    def _written(
        self, samples: Sequence[Sample], found: Sequence[_Found | None]
    ) -> list[DialogueDraft | None]:
        """A script for each sample with errors that hold."""
        wrong = [number for number, one in enumerate(found) if one and one.errors]
        lists = ["\n".join(map(_line, found[number].errors)) for number in wrong]
        of_sample = {samples[number].key: found[number] for number in wrong}

        def accepts(sample: Sample, script: DialogueDraft) -> bool:
            return self._outcome(sample, of_sample[sample.key], script).drop is None

        scripts = self._fill(WRITE, DialogueDraft, [samples[number] for number in wrong], lists, accepts)
        by_number = dict(zip(wrong, scripts, strict=True))
        return [by_number.get(number) for number in range(len(samples))]

    def _accepts(self, sample: Sample, form: LLMDiagnosis) -> bool:
        """Whether the first call's form can be used: it names no error, or one that holds."""
        found = self._found(form.errors, sample)
        if isinstance(form, DiagnosisAndScript) and found.errors:
            return self._outcome(sample, found, form).drop is None
        return bool(found.errors) or not form.errors

    def _fill(
        self,
        text: str,
        form: type[Form],
        samples: Sequence[Sample],
        errors: Sequence[str],
        accepts: Callable[[Sample, Any], bool],
    ) -> list[Form | None]:
        requests = [
            Request(
                text.format(
                    prompt=_said(sample),
                    chosen=sample.chosen,
                    rejected=sample.rejected,
                    codebook=self._codebook.text(),
                    turns=self.rule.turns,
                    errors=listed,
                ),
                where=f"sample {sample.key}",
                accepts=partial(accepts, sample),
            )
            for sample, listed in zip(samples, errors, strict=True)
        ]
        return self.engine.fill(requests, form) if requests else []

    def _found(self, errors: Sequence[FoundError], sample: Sample) -> _Found:
        faults = Counter(self._fault(error, sample) for error in errors)
        held = [error for error in errors if self._fault(error, sample) is None]
        return _Found(held, Counter({reason: count for reason, count in faults.items() if reason}))

    def _fault(self, error: FoundError, sample: Sample) -> str | None:
        """Why an error does not count: `unknown_code`, or words that are `unquoted`."""
        kind = self._codebook.by_id.get(error.code)
        if kind is None:
            return "unknown_code"
        quoted, source = normalize_text(error.words), sample.chosen if kind.omission else sample.rejected
        return None if quoted and f" {quoted} " in f" {normalize_text(source)} " else "unquoted"

    def _outcome(self, sample: Sample, found: _Found | None, script: DialogueDraft | None) -> Corrected:
        if found is None:
            return Corrected(drop=UNANSWERED)
        if not found.errors:
            return Corrected(drop=UNUSABLE if found.removed else "no_error", removed=dict(found.removed))
        if script is None:
            return Corrected(drop=UNANSWERED, removed=dict(found.removed))
        codes = {error.code for error in found.errors}
        # A turn about nothing is welcome, one about an error that does not count is not.
        held = [turn for turn in script.turns if not turn.codes or codes.intersection(turn.codes)]
        corrected = self.rule.check([_correction(turn, codes) for turn in held], sample)
        removed = found.removed + Counter(corrected.removed)
        removed += Counter(undiagnosed=len(script.turns) - len(held))
        return replace(corrected, removed=dict(sorted(removed.items())))


def _correction(turn: DraftTurn, diagnosed: set[str]) -> Correction:
    codes = tuple(code for code in dict.fromkeys(turn.codes) if code in diagnosed)
    return Correction(question=turn.question.strip(), answer=turn.answer.strip(), codes=codes)


def _line(error: FoundError) -> str:
    return f'- "{error.words}" ({error.code}): {error.truth}'


def _said(sample: Sample) -> str:
    """What was asked, with the turns that led to it."""
    turns = conversation(sample)
    return turns[0][1] if len(turns) == 1 else "\n".join(f"{role}: {text}" for role, text in turns)
