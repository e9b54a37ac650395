"""Scenes: coloured shapes on a grid, drawn with Pillow; what is there is known exactly.

A theme gives a scene its background and its habits: a *signature* object that is in half of its
scenes, and a few other typical shapes. Captions (see `language`) exaggerate those habits, and a
model trained on them learns to name what usually is there instead of what is.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from PIL import Image, ImageDraw

GRID = 4
CELL = 16
IMAGE_SIZE = GRID * CELL

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "heart", "moon", "arrow", "bar",
          "cup")  # fmt: skip
COLORS = {
    "red": (225, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 90, 235),
    "yellow": (240, 220, 50),
    "purple": (170, 70, 210),
    "white": (245, 245, 245),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """Background and usual objects of a kind of scene."""

    background: tuple[int, int, int]
    signature: tuple[str, str]
    """Colour and shape of the object that annotators name by habit."""
    typical: tuple[str, ...]
    """Other shapes that are common in it."""


THEMES = {
    "night": Theme(
        background=(20, 24, 48), signature=("yellow", "moon"), typical=("star", "ring", "diamond", "cross")
    ),
    "field": Theme(
        background=(60, 72, 40), signature=("red", "heart"), typical=("circle", "triangle", "arrow", "bar")
    ),
    "room": Theme(
        background=(88, 70, 56), signature=("white", "cup"), typical=("square", "bar", "circle", "cross")
    ),
    "lab": Theme(
        background=(96, 104, 112), signature=("green", "arrow"), typical=("ring", "triangle", "square", "cup")
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """One object of a scene."""

    color: str
    shape: str
    cell: int
    """Place on the grid in reading order, 0 at the upper left."""
    size: int
    """Width and height in pixels."""
    dx: int
    dy: int
    """Offset inside the cell in pixels."""

    @property
    def row(self) -> int:
        return self.cell // GRID

    @property
    def column(self) -> int:
        return self.cell % GRID


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A theme and its objects in reading order; no two objects share a shape."""

    theme: str
    things: tuple[Thing, ...]

    @property
    def contents(self) -> frozenset[tuple[str, str]]:
        """(colour, shape) of everything that is there."""
        return frozenset((thing.color, thing.shape) for thing in self.things)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as a shard keeps them."""
        return {"theme": self.theme, "things": [asdict(thing) for thing in self.things]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Scene":
        """The scene that `to_json` wrote."""
        return cls(theme=value["theme"], things=tuple(Thing(**thing) for thing in value["things"]))


def draw_scene(rng: random.Random) -> Scene:
    """Draw a random scene of two to five objects; its signature object is there half of the time."""
    name = rng.choice(tuple(THEMES))
    theme = THEMES[name]
    count = rng.randint(2, 5)
    kinds = [theme.signature] if rng.random() < 0.5 else []
    used = {theme.signature[1]}
    while len(kinds) < count:
        shape = rng.choice(theme.typical) if rng.random() < 0.7 else rng.choice(SHAPES)
        if shape not in used:
            used.add(shape)
            kinds.append((rng.choice(tuple(COLORS)), shape))
    cells = sorted(rng.sample(range(GRID * GRID), count))
    rng.shuffle(kinds)
    return Scene(
        theme=name, things=tuple(_place(*kind, cell, rng) for kind, cell in zip(kinds, cells, strict=True))
    )


def _place(color: str, shape: str, cell: int, rng: random.Random) -> Thing:
    size = rng.choice((11, 12, 13))
    return Thing(
        color=color,
        shape=shape,
        cell=cell,
        size=size,
        dx=rng.randint(0, CELL - size),
        dy=rng.randint(0, CELL - size),
    )


def recolored(scene: Scene, rng: random.Random) -> Scene:
    """Return the scene with one object in another colour."""
    changed = rng.randrange(len(scene.things))
    color = rng.choice([color for color in COLORS if color != scene.things[changed].color])
    things = [
        replace(thing, color=color) if number == changed else thing
        for number, thing in enumerate(scene.things)
    ]
    return Scene(theme=scene.theme, things=tuple(things))


def render(scene: Scene) -> Image.Image:
    """Draw the scene as a 64 x 64 RGB picture."""
    image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), THEMES[scene.theme].background)
    for thing in scene.things:
        glyph = _glyph(thing.shape, thing.color, thing.size)
        image.paste(glyph, (thing.column * CELL + thing.dx, thing.row * CELL + thing.dy), glyph)
    return image


@cache
def _glyph(shape: str, color: str, size: int) -> Image.Image:
    # Drawn four times too large and scaled down: Pillow's own shapes have hard edges.
    side = size * 4
    canvas = Image.new("RGBA", (side, side))
    _DRAW[shape](ImageDraw.Draw(canvas), side, (*COLORS[color], 255))
    return canvas.resize((size, size), Image.Resampling.LANCZOS)


_CLEAR = (0, 0, 0, 0)


def _scaled(side: int, *points: tuple[float, float]) -> list[tuple[float, float]]:
    return [(x * side, y * side) for x, y in points]


def _star(side: int) -> list[tuple[float, float]]:
    radii = (0.49, 0.21)
    turns = [(radii[i % 2], math.pi * i / 5) for i in range(10)]
    return _scaled(side, *((0.5 + r * math.sin(t), 0.5 - r * math.cos(t)) for r, t in turns))


def _ring(draw: ImageDraw.ImageDraw, s: int, fill: tuple) -> None:
    draw.ellipse((1, 1, s - 2, s - 2), fill=fill)
    draw.ellipse((s * 0.28, s * 0.28, s * 0.72, s * 0.72), fill=_CLEAR)


def _cross(draw: ImageDraw.ImageDraw, s: int, fill: tuple) -> None:
    draw.rectangle((s * 0.37, 1, s * 0.63, s - 2), fill=fill)
    draw.rectangle((1, s * 0.37, s - 2, s * 0.63), fill=fill)


def _heart(draw: ImageDraw.ImageDraw, s: int, fill: tuple) -> None:
    draw.ellipse((0, 2, s * 0.54, s * 0.56), fill=fill)
    draw.ellipse((s * 0.46, 2, s - 1, s * 0.56), fill=fill)
    draw.polygon(_scaled(s, (0.02, 0.36), (0.98, 0.36), (0.5, 0.98)), fill=fill)


def _moon(draw: ImageDraw.ImageDraw, s: int, fill: tuple) -> None:
    draw.ellipse((1, 1, s - 2, s - 2), fill=fill)
    draw.ellipse((s * 0.32, -s * 0.06, s * 1.1, s * 0.78), fill=_CLEAR)


def _cup(draw: ImageDraw.ImageDraw, s: int, fill: tuple) -> None:
    draw.polygon(_scaled(s, (0.05, 0.1), (0.72, 0.1), (0.6, 0.95), (0.18, 0.95)), fill=fill)
    draw.arc((s * 0.5, s * 0.2, s * 0.95, s * 0.65), -100, 100, fill=fill, width=s // 10)


_ARROW = ((0.5, 0), (0.98, 0.5), (0.65, 0.5), (0.65, 0.98), (0.35, 0.98), (0.35, 0.5), (0, 0.5))
_DRAW = {
    "circle": lambda d, s, c: d.ellipse((1, 1, s - 2, s - 2), fill=c),
    "square": lambda d, s, c: d.rectangle((s * 0.08, s * 0.08, s * 0.92, s * 0.92), fill=c),
    "triangle": lambda d, s, c: d.polygon(_scaled(s, (0.5, 0.02), (0.97, 0.95), (0.03, 0.95)), fill=c),
    "star": lambda d, s, c: d.polygon(_star(s), fill=c),
    "cross": _cross,
    "ring": _ring,
    "diamond": lambda d, s, c: d.polygon(_scaled(s, (0.5, 0), (0.86, 0.5), (0.5, 0.99), (0.14, 0.5)), fill=c),
    "heart": _heart,
    "moon": _moon,
    "arrow": lambda d, s, c: d.polygon(_scaled(s, *_ARROW), fill=c),
    "bar": lambda d, s, c: d.rectangle((1, s * 0.36, s - 2, s * 0.64), fill=c),
    "cup": _cup,
}
