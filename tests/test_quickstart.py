"""The quickstart as it stands: alignment makes the tiny model say less that is false, and no less that is true."""

import json
from pathlib import Path

import pytest

from rlaifv_pl.cli import main

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_quickstart_lowers_hallucination_and_keeps_recall(tmp_path, monkeypatch):
    """One seed of three; they fall to about a quarter. The bar leaves room for other machines' rounding."""
    monkeypatch.chdir(ROOT)
    main(["fit", "--config", "configs/quickstart.yaml", f"--trainer.default_root_dir={tmp_path}"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    before, after = summary["before"], summary["after"]
    assert before["instance"] > 0.08, "a base that makes nothing up has nothing to unlearn"
    assert after["instance"] < 0.6 * before["instance"]
    assert after["sentence"] < before["sentence"]
    assert after["recall"] > 0.97 * before["recall"]
    assert summary["seed"] == 0 and summary["seconds"] > 0
