"""The quickstart as it stands: alignment makes the tiny model say less that is false, and no less that is true."""

import json
from pathlib import Path

import pytest

from rlaifv_pl.cli.fit import main

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_two_rounds_lower_hallucination_and_keep_recall(tmp_path, monkeypatch):
    """One seed of five; it falls to about a fifth. The bars leave room for other machines' rounding."""
    monkeypatch.chdir(ROOT)
    main(["fit", "--config", "configs/quickstart.yaml", f"--trainer.default_root_dir={tmp_path}"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    start, first, last = summary["rounds"]
    assert start["instance"] > 0.08, "a base that makes nothing up has nothing to unlearn"
    assert last["instance"] < 0.5 * start["instance"] and first["instance"] < 0.7 * start["instance"]
    assert last["sentence"] < start["sentence"] and last["sampled_instance"] < first["sampled_instance"]
    assert last["recall"] > 0.97 * start["recall"]
    assert min(first["agreement"], last["agreement"]) > 0.95 and min(first["pairs"], last["pairs"]) > 100
    assert summary["seed"] == 0 and (tmp_path / "rounds.png").read_bytes().startswith(b"\x89PNG")
    card = (tmp_path / "export" / "README.md").read_text()
    assert f"| 2 | {100 * last['instance']:.1f} % |" in card, "the card waits for the last round's figures"
