"""Real photos through the whole path: import, verify, train by each objective, export, reload."""

import csv
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from rlaifv_pl.cli.fit import main
from rlaifv_pl.cli.shards import import_, verify
from rlaifv_pl.data.shards import ShardWriter, load_shards
from rlaifv_pl.models.vlm import VLM
from tests import coco

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The photos as preference shards (from both sources), SFT shards and correction shards."""
    root = tmp_path_factory.mktemp("photos")
    sources = {"trl": coco.write_trl, "rlaifv": coco.write_rlaifv, "llava": coco.write_llava}
    for name, write in sources.items():
        (root / "sources" / name).mkdir(parents=True)
        import_(str(write(root / "sources" / name)), str(root / name), images_root=str(coco.ROOT))
        verify(str(root / name))
    with ShardWriter(root / "corrections", recipe={"photos": "corrections"}) as writer:
        for sample in coco.nsft_samples():
            writer.write(sample)
    return root


def train(config: str, data: Path, model: Path, run: Path, steps: int = 36) -> list[float]:
    """Losses of a short run of a shipped config on other shards with a small model."""
    main(
        [
            "fit", f"--config={CONFIGS / config}", f"--model.policy.path={model}", f"--data.train={data}",
            "--model.optimizer.lr=2e-3", "--data.batch_size=8", "--trainer.accumulate_grad_batches=1",
            "--trainer.precision=32-true", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={run}",
            f"--trainer.max_steps={steps}", "--trainer.max_epochs=4", "--trainer.enable_progress_bar=false",
        ]
    )  # fmt: skip
    with open(run / "metrics.csv", newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


@pytest.mark.parametrize(
    ("config", "data"),
    [("dpo.yaml", "trl"), ("dpo.yaml", "rlaifv"), ("sft.yaml", "llava"), ("nsft.yaml", "corrections")],
)
def test_each_objective_learns_the_photos_and_exports_what_it_learned(
    config, data, shards, family_dir, tmp_path
):
    """The loss of the last steps lies below that of the first, and the reloaded model says the same."""
    losses = train(config, shards / data, family_dir("llava"), tmp_path)
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    exported = AutoModelForImageTextToText.from_pretrained(tmp_path / "export")
    weights = VLM(exported).state_dict()
    assert all(torch.equal(weights[name.removeprefix("policy.")], value) for name, value in saved.items())


def test_photos_keep_their_bytes_from_source_to_shard(shards):
    """Import stores the JPEG as it is, whichever format it came in."""
    photos = {photo.data for photo in coco.photos()}
    for name in ("trl", "rlaifv", "llava"):
        stored = load_shards(shards / name)
        assert {stored[index].images[0] for index in range(len(stored))} == photos
