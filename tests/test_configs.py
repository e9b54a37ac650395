"""Every config builds what it says, and opens with the command that runs it."""

from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from rlaifv_pl.cli import main

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
LAYERS = {"lora.yaml": ["--config", "configs/dpo.yaml"]}
"""What a config that is no run by itself is stacked on."""


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_each_config_builds_its_module_data_and_trainer(config, monkeypatch, tmp_path):
    """Nothing is loaded or trained: a model of 7B is only named here."""
    monkeypatch.chdir(ROOT)
    started = []
    monkeypatch.setattr(Trainer, "fit", lambda self, model, **options: started.append((self, model, options)))
    main(
        [
            "fit",
            *LAYERS.get(config.name, []),
            "--config",
            str(config),
            f"--trainer.default_root_dir={tmp_path}",
        ]
    )
    ((trainer, module, options),) = started
    assert type(module).__module__.startswith("rlaifv_pl.objectives")
    assert options["datamodule"].train and str(trainer.default_root_dir) == str(tmp_path)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_each_config_opens_with_its_command(config):
    head = "".join(line for line in config.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert f"python train.py fit --config {config.relative_to(ROOT)}" in head or (
        config.name in LAYERS and config.name in head
    )


def test_the_three_objectives_differ_only_in_what_they_minimise_and_read():
    """Line by line, what is not common to dpo, sft and nsft names a loss, a rate, shards or the run."""
    own = (
        "class_path",
        "losses",
        "Sigmoid",
        "merge",
        "reduction",
        "optimizer",
        "train:",
        "default_root_dir",
        "#",
    )
    texts = [(ROOT / "configs" / f"{name}.yaml").read_text().splitlines() for name in ("dpo", "sft", "nsft")]
    common = set(texts[0]) & set(texts[1]) & set(texts[2])
    assert len(common) > 10
    for line in {line for text in texts for line in text} - common:
        assert any(mark in line for mark in own), line
