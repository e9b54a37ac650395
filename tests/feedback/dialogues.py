"""Preference samples with evidence: by hand, and of the miniature world with its exact truth."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.miniature.claims import divide, is_true
from rlaifv_pl.miniature.language import PROMPTS, caption
from rlaifv_pl.miniature.scenes import Scene
from rlaifv_pl.miniature.shards import draw_scenes
from rlaifv_pl.records import Sample
from tests.data.samples import picture


def claims(*marked: str) -> dict:
    """Evidence of one side; a claim begins with + where it was accepted, with - where it was rejected."""
    return {
        "claims": [
            {
                "text": text[1:],
                "question": f"Is it true: {text[1:]}?",
                "yes": float(text[0] == "+"),
                "no": float(text[0] == "-"),
            }
            for text in marked
        ]
    }


def judged(chosen: Sequence[str], rejected: Sequence[str], key: str = "a") -> Sample:
    """A pair whose answers are these claims."""
    return Sample(
        key=key,
        prompt="Describe it.",
        images=(picture(),),
        chosen="; ".join(chosen) or "nothing",
        rejected="; ".join(rejected) or "nothing at all",
        evidence={"chosen": claims(*chosen), "rejected": claims(*rejected)},
    )


def world_pairs(count: int) -> Iterator[Sample]:
    """Two annotators' descriptions of each scene, the one with fewer false claims chosen."""
    for number, (scene, rng) in enumerate(draw_scenes("tune", 5, count)):
        sides = sorted({caption(scene, rng) for _ in range(2)}, key=lambda text: _score(scene, text))
        if len({_score(scene, text) for text in sides}) == 2:
            yield _world_pair(scene, rng, number, *sides)


def _world_pair(scene: Scene, rng: random.Random, number: int, rejected: str, chosen: str) -> Sample:
    return Sample(
        key=f"w_{number:04d}",
        prompt=rng.choice(PROMPTS),
        images=(picture("PNG", number),),
        chosen=chosen,
        rejected=rejected,
        evidence={"chosen": _evidence(scene, chosen), "rejected": _evidence(scene, rejected)},
        provenance={"source": "world"},
        extra={"scene": scene.to_json()},
    )


def _score(scene: Scene, text: str) -> int:
    return -sum(not is_true(scene, claim.question) for claim in divide(text))


def _evidence(scene: Scene, text: str) -> dict:
    found = [(claim, float(is_true(scene, claim.question))) for claim in divide(text)]
    return {
        "score": _score(scene, text),
        "claims": [
            {"text": claim.text, "question": claim.question, "yes": yes, "no": 1 - yes}
            for claim, yes in found
        ],
    }


def write(directory: Path, samples: Sequence[Sample]) -> str:
    """Shards of them."""
    with ShardWriter(directory, recipe={"samples": directory.name}) as writer:
        for sample in samples:
            writer.write(sample)
    return str(directory)
