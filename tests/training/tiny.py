"""A tiny real run: preference shards of noise images, and a config of DPO on a tiny LLaVA."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.records import Sample

REPOSITORY = Path(__file__).parents[2]
WORDS = ["there", "is", "a", "red", "circle", "left", "of", "the", "blue", "square", "two", "cats"]


def noise_pairs(count: int, seed: int = 0) -> list[Sample]:
    """Preference samples, no two alike."""
    rng = np.random.default_rng(seed)

    def text() -> str:
        return " ".join(rng.choice(WORDS, size=rng.integers(3, 9))) + "."

    samples = []
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(file, "PNG")
        answers = {"chosen": f"yes, {text()}", "rejected": f"no, {text()}"}
        samples.append(Sample(key=f"n{number}", prompt=text(), images=(file.getvalue(),), **answers))
    return samples


def write_pairs(directory: Path, count: int, seed: int = 0) -> Path:
    with ShardWriter(directory, recipe={"count": count, "seed": seed}, samples_per_shard=5) as writer:
        for sample in noise_pairs(count, seed):
            writer.write(sample)
    return directory


def dpo_config(policy: Path, shards: Path, **changes) -> dict:
    """Settings of a run of DPO; `changes` replace whole top-level groups key by key."""
    config = {
        "seed_everything": 7,
        "model": {
            "class_path": "rlaifv_pl.objectives.DPOModule",
            "init_args": {
                "policy": {"path": str(policy), "freeze": ["*.post_layernorm.*", "*.encoder.layers.1.*"]},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
            },
        },
        "data": {"train": str(shards), "batch_size": 2, "num_workers": 0},
        "trainer": {"accelerator": "cpu", "max_epochs": 2, "enable_progress_bar": False},
        "checkpoint": {"every_n_train_steps": 2},
    }
    for group, values in changes.items():
        config[group] = {**config.get(group, {}), **values}
    return config


def write_config(path: Path, config: dict) -> Path:
    path.write_text(yaml.safe_dump(config))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(REPOSITORY / "train.py"), *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    } | more


def run(*arguments: object, timeout: float = 120, **more: str) -> subprocess.CompletedProcess:
    """`python train.py ...` to its end."""
    return subprocess.run(
        command(*arguments),
        env=environment(**more),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def table(directory: Path, column: str) -> dict[int, str]:
    """A column of metrics.csv by step, as written; a step that comes twice fails."""
    with open(directory / "metrics.csv", newline="") as file:
        rows = [(int(row["step"]), row[column]) for row in csv.DictReader(file) if row[column]]
    steps = [step for step, _ in rows]
    assert len(steps) == len(set(steps)), f"steps written twice: {steps}"
    return dict(rows)
