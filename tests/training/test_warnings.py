"""No warning of a dependency's next release comes out of our own calls."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from rlaifv_pl.cli.commands import main
from rlaifv_pl.cli.fit import main as train
from tests.training.tiny import dpo_config, write_config, write_pairs

ENGINE = "rlaifv_pl.feedback.engines.transformers_engine.TransformersEngine"


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """What will be removed or mean something else is an error; what is known to be libraries' own business is not."""
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
            warnings.simplefilter("error", kind)
        yield


def settings(model: Path, tmp_path: Path) -> dict:
    shards = write_pairs(tmp_path / "shards", 4)
    config = dpo_config(model, shards, data={"val": str(shards), "max_tokens": 400})
    config["trainer"] |= {"default_root_dir": str(tmp_path / "run"), "max_epochs": 1}
    return config


@pytest.mark.parametrize("family", ["llava", "gemma3", "qwen2_5_vl"])
def test_a_run_and_its_export(family_dir, tmp_path: Path, family: str):
    config = settings(family_dir(family), tmp_path)
    del config["model"]["init_args"]["policy"]["freeze"]
    train(["fit", "--config", str(write_config(tmp_path / "config.yaml", config))])


def test_adapters_a_cached_reference_and_a_cached_tower(family_dir, tmp_path: Path):
    config = settings(family_dir("llava"), tmp_path)
    config["model"]["init_args"] |= {
        "policy": {"path": str(family_dir("llava")), "lora": {"rank": 2}, "gradient_checkpointing": True},
        "reference": "cached",
    }
    config["data"]["cache_vision"] = True
    path = str(write_config(tmp_path / "config.yaml", config))
    train(["fit", "--config", path])
    main(["export", str(tmp_path / "run"), str(tmp_path / "adapter"), "--adapter", "true"])
    main(["answer", str(tmp_path / "run"), "what is there?", "--max_new_tokens", "4"])
    main(["report", str(tmp_path / "run")])


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_feedback(family_dir, tmp_path: Path, family: str):
    """Candidates that share a prompt's cache, and claims that share an image."""
    engine = {"class_path": ENGINE, "init_args": {"path": str(family_dir(family)), "batch_size": 4}}
    config = {
        "prompts": str(write_pairs(tmp_path / "shards", 3)),
        "out": str(tmp_path / "out"),
        "policy": engine,
        "feedback": {
            "sampling": {"n": 3, "max_new_tokens": 8},
            "truncated": "keep",
            "splitter": "rlaifv_pl.feedback.claims.splitter.RuleSplitter",
            "labeler": {
                "class_path": "rlaifv_pl.feedback.judges.labeler.ModelLabeler",
                "init_args": {"engine": engine},
            },
        },
    }
    (tmp_path / "feedback.yaml").write_text(yaml.safe_dump(config))
    try:
        main(["feedback", "--config", str(tmp_path / "feedback.yaml")])
    except SystemExit as ended:  # A random model may make no pair, at the very end.
        assert "No pair was made" in str(ended.code)
