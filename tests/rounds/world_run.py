"""A run of rounds small enough for a test: the shipped models, a few scenes, every stage in several parts.

As a program it is `train.py` that kills itself: `python -m tests.rounds.world_run MOMENT train.py's arguments`.
"""

import os
import re
import signal
import sys
from pathlib import Path

import yaml

PROMPTS, PART = 24, 4


def config(directory: Path, **changes) -> dict:
    """Settings of a run of two rounds; `changes` replace keys of top-level groups."""
    scenes = directory.parent / "world"
    settings = {
        "seed_everything": 3,
        "threads": 1,
        "model": {
            "class_path": "rlaifv_pl.objectives.DPOModule",
            "init_args": {
                "policy": {"path": "${shipped:base}"},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-4}},
            },
        },
        "data": {
            "sources": [
                {
                    "class_path": "rlaifv_pl.world.shards.Scenes",
                    "init_args": {"out": str(scenes / "prompts"), "split": "tune", "count": PROMPTS},
                },
                {
                    "class_path": "rlaifv_pl.world.shards.Scenes",
                    "init_args": {"out": str(scenes / "held_out"), "split": "tune", "count": 8, "seed": 5},
                },
                {
                    "class_path": "rlaifv_pl.world.shards.Lessons",
                    "init_args": {
                        "out": str(scenes / "known"),
                        "split": "tune",
                        "answer": 40,
                        "questions": 1,
                    },
                },
            ],
            "batch_size": 4,
            "num_workers": 0,
        },
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 4,
            "enable_progress_bar": False,
            "default_root_dir": str(directory),
        },
        "checkpoint": {"every_n_train_steps": 2},
        "rounds": {
            "prompts": str(scenes / "prompts"),
            "epochs": 2,
            "batch_size": 16,
            "feedback": {
                "generate": {"n": 4, "temperature": 1.0, "max_new_tokens": 60},
                "divide": "rlaifv_pl.world.claims.SceneSplitter",
                "conquer": {
                    "class_path": "rlaifv_pl.feedback.conquer.ModelLabeler",
                    "init_args": {
                        "engine": {
                            "class_path": "rlaifv_pl.feedback.engines.transformers.TransformersEngine",
                            "init_args": {"path": "${shipped:labeler}"},
                        },
                        "question": "{question}",
                        "memory": str(directory / "verdicts.sqlite"),
                    },
                },
                "gate": {"shards": str(scenes / "known"), "min_accuracy": 0.8},
                "prompts_per_part": PART,
            },
            "probe": {
                "class_path": "rlaifv_pl.world.probe.WorldProbe",
                "init_args": {"scenes": str(scenes / "held_out")},
            },
        },
    }
    for group, values in changes.items():
        settings[group] = {**settings.get(group, {}), **values}
    return settings


def write(path: Path, settings: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings))
    return path


def outcome(directory: Path) -> dict[str, bytes]:
    """Everything that must not depend on whether the run was killed, by name."""
    files = [
        *sorted((directory / "rounds").rglob("shard-*.tar")),
        *sorted(directory.glob("rounds/*/manifest.json")),
    ]
    files += [directory / "metrics.csv", directory / "export" / "model.safetensors"]
    files += sorted(directory.glob("rounds/*/reference.safetensors"))
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def die(*_args, **_options) -> None:
    """As `kill -9` from outside: nothing is flushed, nothing cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_when_written(pattern: str, *, after: bool) -> None:
    """Die just before, or just after, a file whose path matches takes its name."""
    replace = os.replace

    def watched(source, target, **options):
        hit = re.search(pattern, str(target))
        if hit and not after:
            die()
        replace(source, target, **options)
        if hit:
            die()

    os.replace = watched


def die_at_step(step: int) -> None:
    """Die in a training step, counted over all of the run."""
    from rlaifv_pl.objectives.base import AlignmentModule

    train = AlignmentModule.training_step

    def watched(self, batch, index):
        return die() if self.global_step == step else train(self, batch, index)

    AlignmentModule.training_step = watched


if __name__ == "__main__":
    kind, _, where = sys.argv[1].partition(":")
    {
        "before": lambda: die_when_written(where, after=False),
        "after": lambda: die_when_written(where, after=True),
        "step": lambda: die_at_step(int(where)),
        "never": lambda: None,
    }[kind]()
    sys.argv = ["train.py", *sys.argv[2:]]
    from rlaifv_pl.cli import run

    run()
