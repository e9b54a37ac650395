"""`rlaifv miniature ...`: begin a fresh model, measure one, and ship one with the package."""

import hashlib
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.feedback.engines.engine import Engine
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.feedback.judges.labeler import ModelLabeler
from rlaifv_pl.miniature.claims import scene_of
from rlaifv_pl.miniature.evaluator import measure as figures_of
from rlaifv_pl.miniature.language import question
from rlaifv_pl.miniature.model import save_fresh
from rlaifv_pl.miniature.shards import Scenes, Split
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor, unwrap_model
from rlaifv_pl.records import Sample

QUESTIONS_A_SCENE = 8


def new(out: str, seed: int = 0) -> None:
    """Write a fresh tiny VLM with random weights and its processor.

    Args:
        out: directory.
        seed: of the weights.
    """
    save_fresh(Path(out), seed)
    print(f"A model that knows nothing yet is in {out}.")


def measure(path: str, split: Split = "tune", count: int = 500) -> dict[str, Any]:
    """Measure how much a model makes up about held-out scenes, and how well it answers yes or no.

    Args:
        path: directory of the model.
        split: of the world; `test` is for final figures.
        count: scenes.
    """
    figures = _figures(path, split, count)
    Console().print_json(json.dumps(figures))
    return figures


def ship(path: str, out: str, command: str) -> None:
    """Write a trained model in half precision, with its figures on the test split, its hash and its origin.

    Args:
        path: directory of the trained model.
        out: directory to write, such as `rlaifv_pl/world/weights/base`.
        command: what makes this model, for its card.
    """
    spec = PolicySpec(path=path, freeze_vision=False)
    unwrap_model(load_model(spec)).half().save_pretrained(out)
    load_processor(spec).save_pretrained(out)
    weights = Path(out) / "model.safetensors"
    card = {
        "command": command,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "figures": _figures(out, "test", 500),
    }
    with atomic_file(Path(out) / "card.json") as file:
        file.write((json.dumps(card, indent=2) + "\n").encode())
    Console().print_json(json.dumps(card))


def _figures(path: str, split: Split, count: int) -> dict[str, Any]:
    engine = TransformersEngine(path=path, batch_size=128)
    prompts = list(Scenes(out="", split=split, count=count, seed=0).samples())
    return {
        "split": split,
        "scenes": count,
        "descriptions": figures_of(engine, prompts).to_json(),
        "answers": _answers(engine, prompts),
    }


def _answers(engine: Engine, prompts: list[Sample]) -> dict[str, float]:
    """Share of right answers among the questions whose answer is yes, is no, and their mean."""
    rng = random.Random(0)
    labeler = ModelLabeler(engine=engine, question="{question}")
    right = defaultdict(list)
    for prompt in prompts:
        asked = [question(scene_of(prompt), rng) for _ in range(QUESTIONS_A_SCENE)]
        verdicts = labeler.verdicts([prompt] * len(asked), [text for text, _ in asked], engine)
        for (_, answer), verdict in zip(asked, verdicts, strict=True):
            right[answer].append((not verdict.rejected) == (answer == "yes"))
    shares = {answer: sum(hits) / len(hits) for answer, hits in sorted(right.items())}
    return {**shares, "balanced_accuracy": sum(shares.values()) / len(shares)}
