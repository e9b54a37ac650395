"""A run of rounds small enough for a test: the shipped models, a few scenes, every stage in several parts."""

from pathlib import Path

import yaml

PROMPTS, PART = 24, 4
OUTCOME = (
    "rounds/**/shard-*.tar",
    "rounds/*/manifest.json",
    "rounds/*/left_out.jsonl",
    "rounds/answers/*.jsonl",
    "rounds/answers/images/*",
    "metrics.csv",
    "export/model.safetensors",
    "rounds/*/reference.safetensors",
)
"""Files of a run that must not depend on whether it was killed."""


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
                    "class_path": "rlaifv_pl.miniature.shards.Scenes",
                    "init_args": {"out": str(scenes / "prompts"), "split": "tune", "count": PROMPTS},
                },
                {
                    "class_path": "rlaifv_pl.miniature.shards.Scenes",
                    "init_args": {"out": str(scenes / "held_out"), "split": "tune", "count": 8, "seed": 5},
                },
                {
                    "class_path": "rlaifv_pl.miniature.shards.Lessons",
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
                "sampling": {"n": 4, "temperature": 1.0, "max_new_tokens": 60},
                "splitter": "rlaifv_pl.miniature.claims.SceneSplitter",
                "labeler": {
                    "class_path": "rlaifv_pl.feedback.judges.labeler.ModelLabeler",
                    "init_args": {
                        "engine": {
                            "class_path": "rlaifv_pl.feedback.engines.transformers_engine.TransformersEngine",
                            "init_args": {"path": "${shipped:labeler}"},
                        },
                        "question": "{question}",
                        "cache": str(directory / "verdicts.sqlite"),
                    },
                },
                "gate": {"shards": str(scenes / "known"), "min_accuracy": 0.8},
                "prompts_per_part": PART,
            },
            "evaluator": {
                "class_path": "rlaifv_pl.miniature.evaluator.MiniatureEvaluator",
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
    files = [path for pattern in OUTCOME for path in sorted(directory.glob(pattern))]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}
