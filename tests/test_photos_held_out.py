"""Real photos: POPE and CHAIR before and after a training, through the command line, and on the page of the run."""

import json
from pathlib import Path

import pytest

from rlaifv_pl.cli import commands
from rlaifv_pl.cli.fit import main
from rlaifv_pl.report.content import Limits, run_content
from rlaifv_pl.report.run_files import read_run
from tests import coco
from tests.training.held import figures

CONFIG = Path(__file__).parents[1] / "configs" / "sft.yaml"
PHOTOS, STEPS = 6, 48


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Shards of all photos, and the objects of some in COCO's words."""
    monkeypatch.chdir(tmp_path)
    chosen = [photo for photo in coco.photos() if len(photo.counts) >= 2][:PHOTOS]
    objects = {photo.path.name: sorted(photo.counts) for photo in chosen}
    Path("objects.json").write_text(json.dumps(objects))
    commands.main(
        ["shards", "import", str(coco.write_llava(tmp_path)), "shards", "--images_root", str(coco.ROOT)]
    )
    commands.main(["pope", "objects.json", "questions.jsonl", "--strategy", "popular", "--per_side", "2"])
    benchmarks = {
        "chair": {"metric": "chair", "variant": "A", "ground_truth": "objects.json"},
        "pope": {"metric": "pope", "ground_truth": "questions.jsonl", "max_new_tokens": 3},
    }
    held_out = {"images": str(coco.ROOT / "images"), "max_new_tokens": 12, "benchmarks": benchmarks}
    Path("held.yaml").write_text(json.dumps({"held_out": held_out}))
    return tmp_path


def test_photos_are_described_and_asked_about_before_and_after(home, family_dir):
    main(
        [
            "fit", f"--config={CONFIG}", "--config=held.yaml", f"--model.policy.path={family_dir('llava')}",
            "--data.train=shards", "--data.batch_size=8", "--model.optimizer.lr=5e-3", "--model.warmup=0",
            "--trainer.accumulate_grad_batches=1", "--trainer.precision=32-true", "--trainer.accelerator=cpu",
            "--trainer.default_root_dir=run", f"--trainer.max_steps={STEPS}", "--model.schedule=constant",
            "--trainer.enable_progress_bar=false",
            "--checkpoint.monitor=held_out/chair/Recall", "--export.enabled=false",
        ]
    )  # fmt: skip
    found = figures(Path("run"))
    assert {name: list(steps) for name, steps in found.items()} == {"chair": [0, STEPS], "pope": [0, STEPS]}
    assert found["pope"][0]["n"] == 4 * PHOTOS and found["chair"][0]["n"] == PHOTOS
    kept = [Path(f"run/held_out/chair/{step:08d}.jsonl") for step in (0, STEPS)]
    before, after = ([json.loads(line)["caption"] for line in path.read_text().splitlines()] for path in kept)
    # Noise at first; then what is in most captions of the photos: "The photo shows 1 person and 2 dogs."
    learned = [sum("The p" in text or " 1" in text for text in texts) for texts in (before, after)]
    assert learned[0] == 0 and learned[1] > 0
    assert Path("run/checkpoints/best.ckpt").resolve().name == f"epoch2-step{STEPS}.ckpt"
    page = run_content(read_run("run"), Limits()).page["held_out"]
    described = [row for row in page["rows"] if row["benchmark"] == "chair"]
    assert [[each["text"] for each in row["answers"]] for row in described] == list(
        map(list, zip(before, after, strict=True))
    )
    assert len(page["rows"]) == 5 * PHOTOS and all(isinstance(row["images"][0], int) for row in page["rows"])
