"""Exact counts of what a model makes up about the world.

Instance hallucination, sentence hallucination and recall are CHAIR's three figures (Rohrbach et al.
2018, "Object Hallucination in Image Captioning") over the objects of the scenes.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rlaifv_pl.miniature.claims import divide, is_true, named_things
from rlaifv_pl.miniature.scenes import Scene


@dataclass(frozen=True, kw_only=True)
class MiniatureFigures:
    """Figures of a set of descriptions; shares of one."""

    instance: float
    """Mentions of objects that are not there, of all mentions."""
    sentence: float
    """Descriptions that mention at least one object that is not there."""
    claim: float
    """False claims of all claims: objects and counts."""
    recall: float
    """Objects that are there and are named."""
    length: float
    """Words a description."""

    def to_json(self) -> dict[str, float | None]:
        """Return the figures by name; None where there was nothing to count."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


def miniature_figures(texts: Sequence[str], scenes: Sequence[Scene]) -> MiniatureFigures:
    """Count what descriptions say about their scenes; a figure without cases is nan.

    >>> from rlaifv_pl.miniature.scenes import Scene, Thing
    >>> thing = Thing(color="red", shape="cup", cell=0, size=12, dx=0, dy=0)
    >>> miniature_figures(["there is a red cup and a blue ring."], [Scene(theme="room", things=(thing,))])
    MiniatureFigures(instance=0.5, sentence=1.0, claim=0.5, recall=1.0, length=9.0)
    """
    mentions = [named_things(text) for text in texts]
    invented = [
        [name for name in names if name not in scene.contents]
        for names, scene in zip(mentions, scenes, strict=True)
    ]
    truths = [
        is_true(scene, claim.question)
        for text, scene in zip(texts, scenes, strict=True)
        for claim in divide(text)
    ]
    found = [set(names) & scene.contents for names, scene in zip(mentions, scenes, strict=True)]
    return MiniatureFigures(
        instance=_share(sum(map(len, invented)), sum(map(len, mentions))),
        sentence=_share(sum(map(bool, invented)), len(texts)),
        claim=_share(len(truths) - sum(truths), len(truths)),
        recall=_share(sum(map(len, found)), sum(len(scene.contents) for scene in scenes)),
        length=_share(sum(len(text.split()) for text in texts), len(texts)),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
