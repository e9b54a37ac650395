"""Faults of a model's directory, through the command line: one line before anything is generated or trained."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from rlaifv_pl.cli import commands
from rlaifv_pl.cli.commands import main
from tests.training.tiny import dpo_config, write_config, write_pairs

ENGINE = "rlaifv_pl.feedback.engines.transformers_engine.TransformersEngine"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "shards", 4)


@pytest.fixture
def broken(family_dir, tmp_path: Path) -> Path:
    model = shutil.copytree(family_dir("llava"), tmp_path / "broken")
    weights = load_file(model / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "projector" not in name}
    save_file(kept, model / "model.safetensors", {"format": "pt"})
    return model


def refused(*arguments: str) -> str:
    """The line that a command ends with."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    line = str(stopped.value.code)
    assert line.startswith("error: cannot load the model") and "\n" not in line
    return line


def config(model: Path, shards: Path, tmp_path: Path) -> str:
    settings = dpo_config(model, shards)
    settings["trainer"] |= {"default_root_dir": str(tmp_path / "run"), "max_epochs": 1}
    return str(write_config(tmp_path / "config.yaml", settings))


def test_fit(broken: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["train.py", "fit", "--config", config(broken, shards, tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        commands.main()
    assert "multi_modal_projector" in str(stopped.value.code)


def test_preflight(broken: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    line = refused("preflight", "--config", config(broken, shards, tmp_path), "--trial", "0")
    assert "multi_modal_projector" in line and "stands in the way" not in capsys.readouterr().out


def test_a_labeler_is_refused_before_the_policy_answers(
    broken: Path, family_dir, shards: Path, tmp_path: Path
):
    policy, labeler = (
        {"class_path": ENGINE, "init_args": {"path": str(path)}} for path in (family_dir("llava"), broken)
    )
    settings = {
        "prompts": str(shards),
        "out": str(tmp_path / "out"),
        "policy": policy,
        "feedback": {
            "sampling": {"n": 2, "max_new_tokens": 4},
            "splitter": "rlaifv_pl.feedback.claims.splitter.RuleSplitter",
            "labeler": {
                "class_path": "rlaifv_pl.feedback.judges.labeler.ModelLabeler",
                "init_args": {"engine": labeler},
            },
        },
    }
    (tmp_path / "feedback.yaml").write_text(yaml.safe_dump(settings))
    assert str(broken) in refused("feedback", "--config", str(tmp_path / "feedback.yaml"))
    assert not list(tmp_path.glob("out/stages/**/*.jsonl"))


def test_answer(broken: Path):
    assert "multi_modal_projector" in refused("answer", str(broken), "what is there?")


def test_a_run_is_exported_from_any_folder(
    family_dir, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its config names the model by a path that holds where the run was started."""
    shutil.copytree(family_dir("llava"), tmp_path / "models" / "base")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["train.py", "fit", "--config", config(Path("models/base"), shards, tmp_path)]
    )
    commands.main()
    other = tmp_path / "elsewhere"
    other.mkdir()
    monkeypatch.chdir(other)
    main(["export", "../run", "exported"])
    assert json.loads((other / "exported" / "config.json").read_text())["model_type"] == "llava"
