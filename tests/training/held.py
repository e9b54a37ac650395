"""Held-out items for a tiny run: noise images, questions about them, and their objects."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from rlaifv_pl.evaluation.pope import PopeBenchmark, PopeQuestion
from tests.training.tiny import dpo_config, write_config

IMAGES = 5


def write_items(directory: Path) -> Path:
    """`images`, `objects.json` and `questions.jsonl` in a directory."""
    (directory / "images").mkdir(parents=True)
    rng = np.random.default_rng(9)
    names = [f"{number}.png" for number in range(1, IMAGES + 1)]
    for name in names:
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(file, "PNG")
        (directory / "images" / name).write_bytes(file.getvalue())
    (directory / "objects.json").write_text(json.dumps({name: ["cat", "dog"] for name in names}))
    questions = [
        PopeQuestion(
            question_id=number + 1,
            image=names[number // 2],
            text=f"is there a {'cat' if number % 2 else 'circle'}?",
            label="yes" if number % 2 else "no",
        )
        for number in range(2 * IMAGES)
    ]
    PopeBenchmark(questions).save(directory / "questions.jsonl")
    return directory


def held_out(items: Path, **changes) -> dict:
    """Settings: described and asked every 4 steps."""
    settings = {
        "every_n_steps": 4,
        "images": str(items / "images"),
        "max_new_tokens": 6,
        "batch_size": 2,
        "benchmarks": {
            "chair": {"metric": "chair", "ground_truth": str(items / "objects.json"), "variant": "A"},
            "asked": {"metric": "pope", "ground_truth": str(items / "questions.jsonl"), "limit": 5},
        },
    }
    return settings | changes


def measured_config(policy: Path, shards: Path, directory: Path, **changes) -> Path:
    """The config file of a run in `directory`: two epochs of 5 steps each for 10 pairs."""
    settings = dpo_config(policy, shards, **changes)
    settings["trainer"]["default_root_dir"] = str(directory)
    return write_config(directory.with_suffix(".yaml"), settings)


def figures(directory: Path) -> dict[str, dict[int, dict]]:
    """Figures by benchmark and step, as a run has left them."""
    entries = json.loads((directory / "held_out" / "figures.json").read_text())
    return {name: {one["step"]: one["figures"] for one in entry["steps"]} for name, entry in entries.items()}
