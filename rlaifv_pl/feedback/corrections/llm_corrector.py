"""The corrector that asks a model: it names the errors of the rejected answer, then writes turns about them.

The model reads texts only, like nSFT's (Zhu et al., CVPR 2025): the chosen answer is its one source of truth, so that
corrections are as good as that. What it writes is checked, not trusted.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.feedback.corrections.codebook import Codebook
from rlaifv_pl.feedback.corrections.dialogue_rules import (
    UNANSWERED,
    UNUSABLE,
    CorrectionResult,
    TurnRule,
    normalize_text,
    prompt_turns,
)
from rlaifv_pl.feedback.corrections.pipeline import Corrector
from rlaifv_pl.feedback.engines.engine import Engine, Form, Request
from rlaifv_pl.feedback.prompt_templates import DIAGNOSE, DIAGNOSE_AND_WRITE, WRITE
from rlaifv_pl.records import Correction, Sample


# Names and docstrings of the forms are part of the schema that the model reads, and of the recipe's hash.
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


class _CheckedErrors(NamedTuple):
    """Errors that hold, and the number of others by reason."""

    errors: list[FoundError]
    removed: Counter[str]


@dataclass(kw_only=True)
class LLMCorrector(Corrector):
    """Has a model diagnose and write, in structured calls.

    An error counts only with words that do stand in the answer it is said to be in, and with an id of the codebook;
    turns about errors that do not count are left out.

    Args:
        engine: the model; it needs no eyes.
        codebook: YAML list of error types; the shipped one unless given.
        calls: 2 to diagnose first and write about the errors that hold, 1 for both at once, which is cheaper, and loses
            the turns about errors that do not hold.
        rule: selection of turns; `rule.turns` is also how many are asked for.
    """

    engine: Engine
    codebook: str | None = None
    calls: Literal[1, 2] = 2
    rule: TurnRule = field(default_factory=TurnRule)

    def __post_init__(self) -> None:
        self._codebook = Codebook.load(self.codebook)

    def recipe(self) -> dict[str, Any]:
        stages: list[tuple[str, type[BaseModel]]]
        stages = [(DIAGNOSE, LLMDiagnosis), (WRITE, DialogueDraft)]
        if self.calls == 1:
            stages = [(DIAGNOSE_AND_WRITE, DiagnosisAndScript)]
        return {
            "corrector": "LLMCorrector",
            "engine": self.engine.identity,
            "codebook": self._codebook.hash,
            "prompts": hash_json([(text, form.model_json_schema()) for text, form in stages]),
            "rule": asdict(self.rule),
        }

    def correct(self, samples: Sequence[Sample], seed: int) -> list[CorrectionResult]:
        """Write corrections, see `Corrector.correct`; the engine's own settings decide its draws, not the seed."""
        if self.calls == 1:
            both = self._fill(DIAGNOSE_AND_WRITE, DiagnosisAndScript, samples, self._accepts_both)
            return [
                self._result(sample, None if form is None else self._check_errors(form, sample), form)
                for sample, form in zip(samples, both, strict=True)
            ]
        forms = self._fill(DIAGNOSE, LLMDiagnosis, samples, self._accepts_diagnosis)
        checked = [
            None if form is None else self._check_errors(form, sample)
            for form, sample in zip(forms, samples, strict=True)
        ]
        drafts = self._write_turns(samples, checked)
        return [self._result(*each) for each in zip(samples, checked, drafts, strict=True)]

    def _write_turns(
        self, samples: Sequence[Sample], checked: Sequence[_CheckedErrors | None]
    ) -> list[DialogueDraft | None]:
        """Have turns written for each sample with errors that hold."""
        wrong = {number: one for number, one in enumerate(checked) if one and one.errors}
        by_key = {samples[number].key: one for number, one in wrong.items()}

        def accepts(sample: Sample, draft: DialogueDraft) -> bool:
            return self._result(sample, by_key[sample.key], draft).drop is None

        lists = ["\n".join(map(_line, one.errors)) for one in wrong.values()]
        drafts = self._fill(WRITE, DialogueDraft, [samples[number] for number in wrong], accepts, lists)
        by_number = dict(zip(wrong, drafts, strict=True))
        return [by_number.get(number) for number in range(len(samples))]

    def _accepts_diagnosis(self, sample: Sample, form: LLMDiagnosis) -> bool:
        """Whether it names no error, or one that holds."""
        return not form.errors or bool(self._check_errors(form, sample).errors)

    def _accepts_both(self, sample: Sample, form: DiagnosisAndScript) -> bool:
        return not form.errors or self._result(sample, self._check_errors(form, sample), form).drop is None

    def _fill(
        self,
        template: str,
        form: type[Form],
        samples: Sequence[Sample],
        accepts: Callable[[Sample, Form], bool],
        errors: Sequence[str] | None = None,
    ) -> list[Form | None]:
        requests = [
            Request(
                template.format(
                    prompt=_prompt_text(sample),
                    chosen=sample.chosen,
                    rejected=sample.rejected,
                    codebook=self._codebook.text(),
                    turns=self.rule.turns,
                    errors=listed,
                ),
                where=f"sample {sample.key}",
                accepts=partial(accepts, sample),
            )
            for sample, listed in zip(samples, errors or [""] * len(samples), strict=True)
        ]
        return self.engine.fill(requests, form) if requests else []

    def _check_errors(self, form: LLMDiagnosis, sample: Sample) -> _CheckedErrors:
        faults = [self._fault(error, sample) for error in form.errors]
        held = [error for error, fault in zip(form.errors, faults, strict=True) if fault is None]
        return _CheckedErrors(held, Counter(fault for fault in faults if fault))

    def _fault(self, error: FoundError, sample: Sample) -> str | None:
        """Return why an error does not count: `unknown_code`, or words that are `unquoted`."""
        kind = self._codebook.by_id.get(error.code)
        if kind is None:
            return "unknown_code"
        quoted, source = normalize_text(error.words), sample.chosen if kind.omission else sample.rejected
        return None if quoted and f" {quoted} " in f" {normalize_text(source or '')} " else "unquoted"

    def _result(
        self, sample: Sample, checked: _CheckedErrors | None, draft: DialogueDraft | None
    ) -> CorrectionResult:
        if checked is None:
            return CorrectionResult(drop=UNANSWERED)
        if not checked.errors:
            return CorrectionResult(
                drop=UNUSABLE if checked.removed else "no_error", removed=dict(checked.removed)
            )
        if draft is None:
            return CorrectionResult(drop=UNANSWERED, removed=dict(checked.removed))
        codes = {error.code for error in checked.errors}
        # A turn about no error is welcome, one about an error that does not count is not.
        held = [turn for turn in draft.turns if not turn.codes or codes.intersection(turn.codes)]
        result = self.rule.check([_correction(turn, codes) for turn in held], sample)
        removed = checked.removed + Counter(result.removed)
        removed += Counter(undiagnosed=len(draft.turns) - len(held))
        return replace(result, removed=dict(sorted(removed.items())))


def _correction(turn: DraftTurn, diagnosed: set[str]) -> Correction:
    codes = tuple(code for code in dict.fromkeys(turn.codes) if code in diagnosed)
    return Correction(question=turn.question.strip(), answer=turn.answer.strip(), codes=codes)


def _line(error: FoundError) -> str:
    return f'- "{error.words}" ({error.code}): {error.truth}'


def _prompt_text(sample: Sample) -> str:
    """Return the prompt, with earlier turns if there are any."""
    turns = prompt_turns(sample)
    return turns[0][1] if len(turns) == 1 else "\n".join(f"{role}: {text}" for role, text in turns)
