"""The end of a run: a model, and a card that tells of the run."""

import yaml

from rlaifv_pl.cli.export import export
from rlaifv_pl.cli.fit import AlignmentCLI, main
from rlaifv_pl.export.callback import ExportPolicy
from rlaifv_pl.export.model_directory import missing_files
from rlaifv_pl.rounds import Rounds
from tests.training.tiny import REPOSITORY, dpo_config, write_config, write_pairs


def test_a_run_ends_with_a_model_and_its_card(family_dir, tmp_path):
    config = dpo_config(family_dir("llava"), write_pairs(tmp_path / "pairs", 6))
    config["trainer"] |= {"default_root_dir": str(tmp_path / "run"), "max_epochs": 1}
    main(["fit", "--config", str(write_config(tmp_path / "config.yaml", config))])
    out = tmp_path / "run" / "export"
    card = (out / "README.md").read_text()
    assert missing_files(out) == [] and str(tmp_path) not in card
    for line in ("with DPOModule, 3 steps.", "| processes | 1 |", "| precision | 32-true |", "| seed | 7 |"):
        assert line in card
    assert "| train | pairs | 6 | preference 6 |" in card and "## Rounds" not in card
    settings = yaml.safe_load((out / "training_config.yaml").read_text())
    assert settings["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 1e-3
    export(str(tmp_path / "run"), str(tmp_path / "again"))
    said = {
        name: (tmp_path / "again" / name).read_bytes()
        for name in ("model.safetensors", "training_config.yaml")
    }
    assert said == {name: (out / name).read_bytes() for name in said}
    assert "| processes |" not in (tmp_path / "again" / "README.md").read_text(), "nobody knows any more"


def test_the_card_waits_for_the_rounds(tmp_path, monkeypatch):
    """Lightning sorts callbacks by their kind; the last round is measured when the run ends."""
    found = []
    monkeypatch.setattr(
        AlignmentCLI, "_run_subcommand", lambda cli, _name: found.extend(cli.trainer.callbacks)
    )
    main(
        [
            "fit",
            "--config",
            str(REPOSITORY / "configs/quickstart.yaml"),
            f"--trainer.default_root_dir={tmp_path}",
        ]
    )
    kinds = [type(callback) for callback in found]
    assert kinds.index(Rounds) < kinds.index(ExportPolicy)
