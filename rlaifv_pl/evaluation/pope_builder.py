"""POPE's questions for any images whose objects are known, by the rules of its authors.

Each image with enough objects gets as many questions about objects that are there as about objects that are not. The
absent ones are drawn at random, or are those that most images have (popular), or those that are most often together
with what the image has (adversarial): the last two tell what a model says by habit.
"""

import random
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import chain
from typing import Literal

from rlaifv_pl.evaluation.benchmark_files import BenchmarkError
from rlaifv_pl.evaluation.pope import PopeQuestion

Strategy = Literal["random", "popular", "adversarial"]

TEMPLATE = "Is there {article} {name} in the image?"


def can_ask(names: Collection[str], vocabulary: Collection[str], per_side: int) -> bool:
    """Return whether an image has objects enough, and lacks objects enough of all that are known, for questions."""
    return len(set(names)) >= per_side and len(set(vocabulary) - set(names)) >= per_side


def build_pope(
    objects: Mapping[str, Collection[str]], strategy: Strategy, *, per_side: int = 3, seed: int = 0
) -> list[PopeQuestion]:
    """Build questions about all images that have, and lack, at least `per_side` objects; yes and no in turns.

    Args:
        objects: names of the objects in each image, by the image's file name.
        strategy: how absent objects are chosen.
        per_side: questions of an image whose answer is yes, and as many whose answer is no.
        seed: of the draws.

    Raises:
        BenchmarkError: there is no such image.
    """
    there = {image: sorted(set(names)) for image, names in sorted(objects.items())}
    frequent = Counter(chain.from_iterable(there.values()))
    together = _together(there)
    questions: list[PopeQuestion] = []
    for image, names in there.items():
        if not can_ask(names, frequent, per_side):
            continue
        # Each image has its own draws, so that another image more or less changes no other's.
        draw = random.Random(f"{seed} {image}")
        absent = sorted(set(frequent) - set(names))
        present = draw.sample(names, per_side)
        draw.shuffle(absent)  # Decides between equals.
        near = sum((together[name] for name in names), Counter[str]())
        ranks = {"random": Counter[str](), "popular": frequent, "adversarial": near}
        chosen = sorted(absent, key=ranks[strategy].__getitem__, reverse=True)[:per_side]
        for yes, no in zip(present, chosen, strict=True):
            questions += [_question(len(questions) + 1, image, yes, "yes")]
            questions += [_question(len(questions) + 1, image, no, "no")]
    if not questions:
        raise BenchmarkError(
            f"none of {len(there)} images has {per_side} objects and lacks {per_side} others that are named: there is "
            "nothing to ask. Lower --per_side"
        )
    return questions


def _together(there: Mapping[str, list[str]]) -> dict[str, Counter[str]]:
    """Count how often each name is in an image with each other."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in chain.from_iterable(there.values())}
    for names in there.values():
        for name in names:
            counts[name].update(other for other in names if other != name)
    return counts


def _question(number: int, image: str, name: str, label: str) -> PopeQuestion:
    article = "an" if name[0] in "aeiou" else "a"
    text = TEMPLATE.format(article=article, name=name)
    return PopeQuestion(question_id=number, image=image, text=text, label=label)
