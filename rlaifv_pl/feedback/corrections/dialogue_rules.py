"""What a corrective dialogue must fulfil, whoever wrote it.

The papers are silent on this. Without it a dialogue that only denies teaches to say no, and one that
talks about answers instead of the picture teaches words that no user asks for.
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
"""What gives away that the dialogue is about an answer and not about the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corrected:
    """What came of one sample: corrections, or the reason why there are none."""

    corrections: tuple[Correction, ...] = ()
    drop: str | None = None
    """`no_error`: nothing to correct was found. `no_turns`: no turn that was written holds. Of a model only:
    `unanswered`: it filled in no form. `unusable`: no error that it names holds."""
    removed: Mapping[str, int] = field(default_factory=dict)
    """Turns and findings that did not hold, by reason."""


UNANSWERED, UNUSABLE = "unanswered", "unusable"


@dataclass(kw_only=True)
class TurnRule:
    """Which turns of a dialogue are kept.

    Args:
        turns: of a dialogue at most, two or more: a yes needs a no beside it. The paper asks for 5.
        balanced: answers of yes and of no differ by one at most; the last ones of the larger side go.
        leaks: words that take their turn out, whole and in either case; with `*` at the end, whatever
            begins like this.
    """

    turns: int = 5
    balanced: bool = True
    leaks: tuple[str, ...] = LEAKS

    def __post_init__(self) -> None:
        if self.turns < 2:
            raise ValueError(f"turns is {self.turns}. Use 2 or more: a yes needs a no beside it.")

    def check(self, turns: Sequence[Correction], sample: Sample) -> Corrected:
        """Keep what holds. Removed are, in this order, turns that are `empty`, hold a `special_token`, `leak` words,
        ask what the sample's `prompt` asks or are a `duplicate` question; then, from the end, those that are
        `too_many`, and the `surplus` of yes or no."""
        faults = self._faults(sample)
        removed: Counter[str] = Counter()
        kept: dict[str, Correction] = {}
        for turn in turns:
            key = normalize_text(turn.question)
            found = (name for name, holds in faults.items() if holds(turn))
            if fault := next(found, "duplicate" if key in kept else None):
                removed[fault] += 1
            else:
                kept[key] = turn
        fitting = list(kept.values())[: self.turns]
        even = _even(fitting) if self.balanced else fitting
        removed += Counter(too_many=len(kept) - len(fitting), surplus=len(fitting) - len(even))
        return Corrected(
            corrections=tuple(even), drop=None if even else "no_turns", removed=dict(sorted(removed.items()))
        )

    def _faults(self, sample: Sample) -> dict[str, Callable[[Correction], bool]]:
        asked = {normalize_text(text) for role, text in conversation(sample) if role == "user"}
        return {
            "empty": lambda turn: not (turn.question.strip() and without_end(turn.answer).strip()),
            "special_token": lambda turn: bool(
                markup_in(turn.question) or markup_in(without_end(turn.answer))
            ),
            "leak": lambda turn: bool(self._leak.search(f"{turn.question}\n{turn.answer}")),
            "prompt": lambda turn: normalize_text(turn.question) in asked,
        }

    @cached_property
    def _leak(self) -> re.Pattern[str]:
        words = (re.escape(word.removesuffix("*")) + r"\w*" * word.endswith("*") for word in self.leaks)
        # Without any word the pattern must match nothing, and (?!) never does.
        return re.compile(rf"\b(?:{'|'.join(words) or '(?!)'})\b", re.IGNORECASE)


def polarity(answer: str) -> Literal["yes", "no"] | None:
    """Whether an answer affirms or denies, by its first word; None for an open one.

    >>> polarity("Yes. There is a cup."), polarity("no"), polarity("Nothing but snow.")
    ('yes', 'no', None)
    """
    sides: dict[str, Literal["yes", "no"]] = {"yes": "yes", "no": "no"}
    return sides.get(normalize_text(answer).partition(" ")[0])


def normalize_text(text: str) -> str:
    """A text in small letters with single blanks and without marks: what equal questions have in common.

    >>> normalize_text(" Is there  a Cup, too?")
    'is there a cup too'
    """
    return " ".join(re.findall(r"[\w'-]+", text.casefold()))


def conversation(sample: Sample) -> list[tuple[str, str]]:
    """Role and text of each turn of a sample's prompt."""
    return [
        (message["role"], " ".join(block["text"] for block in message["content"] if block["type"] == "text"))
        for message in prompt_messages(sample)
    ]


def _even(turns: Sequence[Correction]) -> list[Correction]:
    said = Counter(polarity(turn.answer) for turn in turns)
    allowed = min(said["yes"], said["no"]) + 1
    kept, counts = [], Counter()
    for turn in turns:
        side = polarity(turn.answer)
        counts[side] += 1
        if side is None or counts[side] <= allowed:
            kept.append(turn)
    return kept
