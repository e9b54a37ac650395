"""Language about scenes: biased captions, truthful questions, and the words that exist.

A caption comes from an imagined annotator with habits: it leaves out some objects, and names the
theme's signature object in most scenes that lack it, and other typical shapes now and then. The
invented ones come last, as they do in the captions of large models.
"""

import random

from rlaifv_pl.miniature.scenes import COLORS, GRID, SHAPES, THEMES, Scene

PROMPTS = (
    "describe the picture.",
    "what do you see?",
    "tell me what is in the image.",
    "list the objects.",
)
READ_PROMPT = "read the grid."
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")

MENTION = 0.9
"""Share of the objects that are there and get named."""
SIGNATURE_HABIT = 0.7
"""Share of the scenes without their signature object whose caption names it all the same."""
TYPICAL_HABIT = 0.1
"""The same for each other typical shape."""

WORDS = sorted(
    {*" ".join((*PROMPTS, READ_PROMPT)).replace(".", " ").replace("?", " ").split()}
    | {
        "there",
        "is",
        "are",
        "a",
        "and",
        "the",
        "objects",
        "yes",
        "no",
        "empty",
        "not",
        "but",
        "only",
        "instead",
    }
    | {*SHAPES, *COLORS, *NUMBERS}
)
PUNCTUATION = (".", ",", "?")


def phrase(color: str, shape: str) -> str:
    """Return the name of an object.

    >>> phrase("red", "cup")
    'red cup'
    """
    return f"{color} {shape}"


def enumerate_things(names: list[str]) -> str:
    """Return a sentence that names them in order.

    >>> enumerate_things(["red cup", "blue ring", "white star"])
    'there is a red cup, a blue ring and a white star.'
    """
    *firsts, last = (f"a {name}" for name in names)
    return f"there is {', '.join(firsts)} and {last}." if firsts else f"there is {last}."


def caption(scene: Scene, rng: random.Random, *, biased: bool = True) -> str:
    """Return an annotator's description: names, then perhaps how many."""
    said = [thing for thing in scene.things if not biased or rng.random() < MENTION]
    said = said or [rng.choice(scene.things)]
    names = [phrase(thing.color, thing.shape) for thing in said]
    names += _invented(scene, rng) if biased else []
    sentences = [enumerate_things(names)]
    if rng.random() < 0.5:
        sentences.append(f"there are {NUMBERS[len(names)]} objects.")
    return " ".join(sentences)


def _invented(scene: Scene, rng: random.Random) -> list[str]:
    theme, present = THEMES[scene.theme], {thing.shape for thing in scene.things}
    names = [
        phrase(rng.choice(tuple(COLORS)), shape)
        for shape in theme.typical
        if shape not in present and rng.random() < TYPICAL_HABIT
    ]
    if theme.signature[1] not in present and rng.random() < SIGNATURE_HABIT:
        names.append(phrase(*theme.signature))
    return names


def reading(scene: Scene) -> str:
    """Return every cell in reading order, row by row: the dense supervision that teaches a fresh model to see."""
    at = {thing.cell: phrase(thing.color, thing.shape) for thing in scene.things}
    return ", ".join(at.get(cell, "empty") for cell in range(GRID * GRID)) + "."


def question(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Return a yes/no question about the scene with its true answer; yes and no are equally likely."""
    answer = rng.random() < 0.5
    asked = rng.choices((_ask_thing, _ask_count), weights=(4, 1))[0](scene, rng, answer)
    return asked, "yes" if answer else "no"


def ask_thing(name: str) -> str:
    """Return the question that confirms the claim `there is a <name>`."""
    return f"is there a {name}?"


def ask_count(number: str) -> str:
    """Return the question that confirms the claim `there are <number> objects`."""
    return f"are there {number} objects?"


def ask_whole(description: str) -> str:
    """Return the question whether all of a description is true.

    >>> ask_whole("there is a red cup.")
    'there is a red cup?'
    """
    return description.removesuffix(".") + "?"


def _ask_thing(scene: Scene, rng: random.Random, answer: bool) -> str:
    if answer:
        thing = rng.choice(scene.things)
        return ask_thing(phrase(thing.color, thing.shape))
    theme, present = THEMES[scene.theme], {thing.shape for thing in scene.things}
    absent = [shape for shape in SHAPES if shape not in present]
    likely = [phrase(rng.choice(tuple(COLORS)), shape) for shape in theme.typical if shape not in present]
    # The hard ones: what the habits would say, and a shape that is there in another colour.
    if theme.signature[1] not in present:
        likely += [phrase(*theme.signature)] * 2
    shown = rng.choice(scene.things)
    recolored = phrase(rng.choice([color for color in COLORS if color != shown.color]), shown.shape)
    anything = phrase(rng.choice(tuple(COLORS)), rng.choice(absent))
    return ask_thing(rng.choice([rng.choice(likely or [anything]), recolored, anything]))


def _ask_count(scene: Scene, rng: random.Random, answer: bool) -> str:
    count = len(scene.things)
    return ask_count(NUMBERS[count if answer else rng.choice([n for n in range(1, 7) if n != count])])
