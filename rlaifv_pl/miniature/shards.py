"""Shards of the world: scenes to describe, and dialogues that teach a fresh model to see and to speak.

Three splits that share no scene: `train`, `tune` for choosing settings, and `test`, which only final
figures touch. A scene is fixed by split, seed and number.
"""

import io
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rlaifv_pl.data.manifest import MANIFEST_NAME, hash_json, read_manifest
from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.miniature.claims import divide, is_true
from rlaifv_pl.miniature.language import PROMPTS, READ_PROMPT, ask_whole, caption, question, reading
from rlaifv_pl.miniature.scenes import Scene, draw_scene, recolored, render
from rlaifv_pl.models.chat import text_message
from rlaifv_pl.records import Sample
from rlaifv_pl.seeds import derive, run_seed

Split = Literal["train", "tune", "test"]
Task = Literal["describe", "answer", "read"]


def draw_scenes(split: Split, seed: int, count: int) -> Iterator[tuple[Scene, random.Random]]:
    """Scenes of a split with the random source that goes on from each."""
    for number in range(count):
        rng = random.Random(derive("world", split, seed, number))
        yield draw_scene(rng), rng


def picture(scene: Scene) -> bytes:
    """The rendered scene as PNG."""
    file = io.BytesIO()
    render(scene).save(file, "PNG")
    return file.getvalue()


@dataclass(kw_only=True)
class Scenes:
    """Prompts about scenes, for a policy to describe; each sample carries its scene.

    Args:
        out: directory of the shards.
        split: of the world.
        count: scenes.
        seed: another seed, other scenes; that of the run unless given.
    """

    out: str
    split: Split
    count: int
    seed: int | None = None

    def __post_init__(self) -> None:
        self.seed = run_seed() if self.seed is None else self.seed

    def ensure(self) -> Path:
        """Write the shards unless they are there."""
        return _ensure(self.out, {"scenes": asdict(self)}, self.samples)

    def samples(self) -> Iterator[Sample]:
        """One prompt for each scene."""
        for number, (scene, rng) in enumerate(draw_scenes(self.split, self.seed or 0, self.count)):
            yield Sample(
                key=f"{self.split}_{number:06d}",
                prompt=rng.choice(PROMPTS),
                images=(picture(scene),),
                provenance={"source": "world", "seed": self.seed},
                extra={"scene": scene.to_json()},
            )


@dataclass(kw_only=True)
class Lessons:
    """Dialogues for SFT: each task's own number of scenes, in proportion to how much it is to be learned.

    Args:
        out: directory of the shards.
        describe: scenes with a biased caption.
        answer: scenes with truthful yes/no questions.
        read: scenes read out cell by cell.
        judge: scenes with a whole description put as a question: yes if all of it is true.
        questions: asked about a scene in one dialogue.
        split: of the world.
        seed: another seed, other scenes.
    """

    out: str
    describe: int = 0
    answer: int = 0
    read: int = 0
    judge: int = 0
    questions: int = 6
    split: Split = "train"
    seed: int = 0

    def ensure(self) -> Path:
        """Write the shards unless they are there."""
        return _ensure(self.out, {"lessons": asdict(self)}, self.samples)

    def samples(self) -> Iterator[Sample]:
        """The dialogues, task by task."""
        counts = {
            "describe": self.describe,
            "answer": self.answer,
            "read": self.read,
            "judge": self.judge,
        }
        tasks = [task for task, count in counts.items() for _ in range(count)]
        for number, (scene, rng) in enumerate(draw_scenes(self.split, self.seed, len(tasks))):
            *earlier, completion = self._dialogue(tasks[number], scene, rng)
            yield Sample(
                key=f"{tasks[number]}_{number:06d}",
                prompt=[text_message(("user", "assistant")[at % 2], text) for at, text in enumerate(earlier)],
                images=(picture(scene),),
                completion=completion,
                provenance={"source": "world", "seed": self.seed},
            )

    def _dialogue(self, task: str, scene: Scene, rng: random.Random) -> list[str]:
        """User and assistant in turn."""
        if task == "describe":
            return [rng.choice(PROMPTS), caption(scene, rng)]
        if task == "read":
            return [READ_PROMPT, reading(scene)]
        if task == "judge":
            said = caption(
                scene if rng.random() < 0.5 else recolored(scene, rng), rng, biased=rng.random() < 0.5
            )
            is_right = all(is_true(scene, claim.question) for claim in divide(said))
            return [ask_whole(said), "yes" if is_right else "no"]
        return [text for _ in range(self.questions) for text in question(scene, rng)]


def _ensure(out: str, recipe: dict, samples: Callable[[], Iterator[Sample]]) -> Path:
    path = Path(out)
    recipe = {
        name: {key: value for key, value in options.items() if key != "out"}
        for name, options in recipe.items()
    }
    if (path / MANIFEST_NAME).is_file() and read_manifest(path).recipe_hash == hash_json(recipe):
        return path
    with ShardWriter(path, recipe=recipe, overwrite=True) as writer:
        for sample in samples():
            writer.write(sample)
    return path
