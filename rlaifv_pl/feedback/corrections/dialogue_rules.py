"""Requirements of a corrective dialogue, whoever wrote it.

The papers are silent on this. Without such rules a dialogue that only denies teaches to say no, and one that talks
about answers instead of the image teaches words that no user asks for.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from rlaifv_pl.models.chat import prompt_messages
from rlaifv_pl.models.special_tokens import markup_in, without_end
from rlaifv_pl.records import Correction, Sample

LEAKS = (
    "reference*", "error*", "mistake*", "hallucinat*", "model answer", "model's answer", "the rejected",
    "rejected answer", "chosen answer", "description a", "description b",
)  # fmt: skip
"""Words that give away that the dialogue is about an answer and not about the image."""

UNANSWERED, UNUSABLE = "unanswered", "unusable"


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrectionResult:
    """Corrections of one sample, or the reason why there are none."""

    corrections: tuple[Correction, ...] = ()
    drop: str | None = None
    """`no_error`: nothing to correct was found. `no_turns`: no turn passes the rules. Of a model only: `unanswered`: it
    filled in no form. `unusable`: no error that it names holds."""
    removed: Mapping[str, int] = field(default_factory=dict)
    """Number of removed turns and errors by reason."""


@dataclass(kw_only=True)
class TurnRule:
    """Selection of the turns of a dialogue.

    Args:
        turns: most turns of a dialogue, two or more: a yes needs a no beside it. The paper asks for 5.
        balanced: numbers of yes and no differ by one at most; the last turns of the larger side are removed.
        leaks: words that remove their turn, whole and in either case; with `*` at the end, whatever begins so.
    """

    turns: int = 5
    balanced: bool = True
    leaks: tuple[str, ...] = LEAKS

    def __post_init__(self) -> None:
        if self.turns < 2:
            raise ValueError(f"turns is {self.turns}. Use 2 or more: a yes needs a no beside it.")

    def check(self, turns: Sequence[Correction], sample: Sample) -> CorrectionResult:
        """Select the turns that can be trained on.

        Removed are, in this order, turns that are `empty`, hold a `special_token`, `leak` words, ask what the sample's
        `prompt` asks or are a `duplicate` question; then, from the end, those that are `too_many`, and the `surplus`
        of yes or no.
        """
        faults = self._faults(sample)
        removed: Counter[str] = Counter()
        kept: dict[str, Correction] = {}
        for turn in turns:
            key = normalize_text(turn.question)
            reasons = (name for name, holds in faults.items() if holds(turn))
            if reason := next(reasons, "duplicate" if key in kept else None):
                removed[reason] += 1
            else:
                kept[key] = turn
        limited = list(kept.values())[: self.turns]
        final = _balance_answers(limited) if self.balanced else limited
        removed += Counter(too_many=len(kept) - len(limited), surplus=len(limited) - len(final))
        return CorrectionResult(
            corrections=tuple(final),
            drop=None if final else "no_turns",
            removed=dict(sorted(removed.items())),
        )

    def _faults(self, sample: Sample) -> dict[str, Callable[[Correction], bool]]:
        asked = {normalize_text(text) for role, text in prompt_turns(sample) if role == "user"}
        return {
            "empty": lambda turn: not (turn.question.strip() and without_end(turn.answer).strip()),
            "special_token": lambda turn: bool(
                markup_in(turn.question) or markup_in(without_end(turn.answer))
            ),
            "leak": lambda turn: bool(self._leak_pattern.search(f"{turn.question}\n{turn.answer}")),
            "prompt": lambda turn: normalize_text(turn.question) in asked,
        }

    @cached_property
    def _leak_pattern(self) -> re.Pattern[str]:
        words = (re.escape(word.removesuffix("*")) + r"\w*" * word.endswith("*") for word in self.leaks)
        # Without any word the pattern must match nothing, and (?!) never does.
        return re.compile(rf"\b(?:{'|'.join(words) or '(?!)'})\b", re.IGNORECASE)


def polarity(answer: str) -> Literal["yes", "no"] | None:
    """Return whether an answer affirms or denies, by its first word; None for an open one.

    >>> polarity("Yes. There is a cup."), polarity("no"), polarity("Nothing but snow.")
    ('yes', 'no', None)
    """
    polarities: dict[str, Literal["yes", "no"]] = {"yes": "yes", "no": "no"}
    return polarities.get(normalize_text(answer).partition(" ")[0])


def normalize_text(text: str) -> str:
    """Return a text in small letters with single blanks and without marks.

    >>> normalize_text(" Is there  a Cup, too?")
    'is there a cup too'
    """
    return " ".join(re.findall(r"[\w'-]+", text.casefold()))


def prompt_turns(sample: Sample) -> list[tuple[str, str]]:
    """Return role and text of each turn of a sample's prompt."""
    return [
        (message["role"], " ".join(block["text"] for block in message["content"] if block["type"] == "text"))
        for message in prompt_messages(sample)
    ]


def _balance_answers(turns: Sequence[Correction]) -> list[Correction]:
    answers = [polarity(turn.answer) for turn in turns]
    allowed = min(answers.count("yes"), answers.count("no")) + 1
    return [
        turn
        for number, (turn, answer) in enumerate(zip(turns, answers, strict=True))
        if answer is None or answers[:number].count(answer) < allowed
    ]
