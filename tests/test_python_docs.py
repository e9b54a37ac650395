"""The Python of the guides runs, block after block, and what it defines does what the guides say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rlaifv_pl
from rlaifv_pl.cli.fit import main
from rlaifv_pl.miniature.shards import draw_scenes, picture
from rlaifv_pl.objectives.losses import PairLogps, sigmoid_loss

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run_blocks(page: str) -> dict:
    """Run the blocks of a guide as one module; their names."""
    names: dict = {"__name__": "guide"}
    for number, block in enumerate(BLOCK.findall((ROOT / "docs" / page).read_text())):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    return names


def test_the_guide_of_the_api_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    names = run_blocks("python.md")
    assert names["trainer"].callback_metrics["train/loss"] == pytest.approx(0.693147, abs=1e-4)
    assert "nats" in capsys.readouterr().out


def test_a_loss_of_ones_own_weighs_pairs():
    """With gamma 0 it is DPO; pairs that are right weigh less otherwise."""
    focal = run_blocks("extending.md")["Focal"]
    policy, reference = (
        PairLogps(*(torch.tensor(values) for values in rows))
        for rows in (
            ([-1.0, -4.0], [-3.0, -2.0], [3, 3], [3, 3]),
            ([-2.0, -2.0], [-2.0, -2.0], [3, 3], [3, 3]),
        )
    )
    plain = sigmoid_loss(policy, reference, 0.1, 0.0)
    assert torch.allclose(focal(beta=0.1, gamma=0.0)(policy, reference), plain)
    right, wrong = focal(beta=0.1, gamma=2.0)(policy, reference) / plain
    assert right < wrong


def test_parts_of_ones_own_hold_to_their_protocols():
    names = run_blocks("extending.md")
    (claims,) = names["SentenceSplitter"]().split([rlaifv_pl.PromptedAnswer("?", "A dog. A cat.")])
    assert [claim.text for claim in claims] == ["A dog", "A cat."]
    verdicts = names["WordList"](["dog"]).verdicts([], [claim.question for claim in claims], None)
    assert [verdict.rejected for verdict in verdicts] == [False, True]


def test_a_config_names_a_loss_of_ones_own(tmp_path, monkeypatch):
    """The command of the guide, with the term beside DPO's own: at step 0 the two cost ln 2 and half of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (block,) = (one for one in BLOCK.findall((ROOT / "docs" / "extending.md").read_text()) if "Focal" in one)
    (tmp_path / "focal_terms.py").write_text(block)
    with rlaifv_pl.ShardWriter("pairs", recipe={"pairs": 1}) as writer:
        ((scene, _),) = draw_scenes("test", 0, 1)
        writer.write(
            rlaifv_pl.Sample(
                key="a", prompt="Look.", images=(picture(scene),), chosen="a cup", rejected="a dog"
            )
        )
    configs = [f"--config={ROOT / 'configs' / name}" for name in ("dpo.yaml", "miniature/tiny.yaml")]
    own = ["--trust-config", "focal_terms", "--model.losses+", "focal_terms.Focal"]
    run = main(
        [
            "fit",
            *configs,
            *own,
            "--data.train=pairs",
            "--trainer.max_steps=1",
            "--trainer.default_root_dir=run",
        ]
    )
    loss = run.trainer.callback_metrics["train/loss"]
    assert loss == pytest.approx(1.5 * 0.693147, abs=1e-4)


def test_the_api_is_imported_when_it_is_used():
    """`import rlaifv_pl` alone imports neither torch nor lightning, and every exported name is there."""
    code = "import sys, rlaifv_pl; print(rlaifv_pl.__version__, *({'torch', 'lightning'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.split() == [rlaifv_pl.__version__]
    assert all(getattr(rlaifv_pl, name) is not None for name in rlaifv_pl.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        rlaifv_pl.no_such_name  # noqa: B018
