"""Descriptions of the world back into claims, and the labeler that cannot be wrong.

The grammar of captions is known, so the split is exact; text outside of it makes no claim.
"""

import re
from collections.abc import Sequence
from typing import Any

from rlaifv_pl.feedback.claims.splitter import PromptedAnswer
from rlaifv_pl.feedback.engines.engine import Engine
from rlaifv_pl.miniature.language import NUMBERS, ask_count, ask_thing
from rlaifv_pl.miniature.scenes import COLORS, SHAPES, Scene
from rlaifv_pl.records import Claim, Sample, Verdict

_NAME = rf"(?:{'|'.join(COLORS)}) (?:{'|'.join(SHAPES)})"
_THING = re.compile(rf"\ba ({_NAME})\b")
_COUNT = re.compile(rf"\bthere are ({'|'.join(NUMBERS)}) objects\b")

TRUE, FALSE = Verdict(yes=1.0, no=0.0), Verdict(yes=0.0, no=1.0)


def mentions(text: str) -> list[Claim]:
    """Return every claim of a description as often as it is made, in its order."""
    found = [
        Claim(text=match[0], question=ask(*match.groups()), spans=(match.span(),))
        for pattern, ask in ((_THING, ask_thing), (_COUNT, ask_count))
        for match in pattern.finditer(text)
    ]
    return sorted(found, key=lambda claim: claim.spans)


def divide(text: str) -> list[Claim]:
    """Return every claim of a description, in its order; an object named twice is claimed once.

    >>> [claim.question for claim in divide("there is a red cup and a blue ring. there are two objects.")]
    ['is there a red cup?', 'is there a blue ring?', 'are there two objects?']
    """
    first = {}
    for claim in mentions(text):
        first.setdefault(claim.question, claim)
    return list(first.values())


def named_things(text: str) -> list[tuple[str, str]]:
    """(colour, shape) of every mention of an object in the enumeration, repeats included."""
    return [tuple(match[1].split()) for match in _THING.finditer(text)]


class SceneSplitter:
    """Divides descriptions of the world, of whose grammar it knows all."""

    def recipe(self) -> dict[str, Any]:
        """A name: nothing can be set."""
        return {"splitter": "scene"}

    def split(self, answered: Sequence[PromptedAnswer]) -> list[list[Claim]]:
        """The claims of each description."""
        return [divide(text) for _, text in answered]

    def release(self) -> None:
        """Nothing."""


class ExactLabeler:
    """Answers questions about a scene from the scene itself, which its sample carries."""

    def recipe(self, policy: str) -> dict[str, Any]:
        """A name: nothing can be set."""
        return {"labeler": "exact"}

    def verdicts(self, samples: Sequence[Sample], questions: Sequence[str], policy: Engine) -> list[Verdict]:
        """One verdict for each question, certain and true.

        Raises:
            ValueError: the sample is not of the world, or the question is not of its grammar.
        """
        return [
            TRUE if is_true(scene_of(sample), question) else FALSE
            for sample, question in zip(samples, questions, strict=True)
        ]

    def release(self) -> None:
        """Nothing."""


def scene_of(sample: Sample) -> Scene:
    """Return the scene of a sample of the world.

    Raises:
        ValueError: it is none.
    """
    if "scene" not in sample.extra:
        raise ValueError(
            f"sample {sample.key} carries no scene, so nobody knows what it shows. Use a labeler model."
        )
    return Scene.from_json(sample.extra["scene"])


def is_true(scene: Scene, question: str) -> bool:
    """Answer a question in the words of `language`; of a whole description, whether all of it is true.

    Raises:
        ValueError: the question is none of the world's.
    """
    answer = truth(scene, question)
    if answer is None:
        raise ValueError(
            f"{question!r} is no question of the miniature world: see miniature/language.py for its grammar."
        )
    return answer


def truth(scene: Scene, question: str) -> bool | None:
    """Return the answer as `is_true`; None if the question is not of the world's grammar."""
    if match := re.fullmatch(rf"is there a ({_NAME})\?", question):
        return tuple(match[1].split()) in scene.contents
    if match := re.fullmatch(rf"are there ({'|'.join(NUMBERS)}) objects\?", question):
        return NUMBERS.index(match[1]) == len(scene.things)
    claims = divide(question.replace("?", "."))
    return all(is_true(scene, claim.question) for claim in claims) if claims else None
