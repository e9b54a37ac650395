"""Bad input on the real path: each fault has its own short message, or is counted and left out."""

import csv
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rlaifv_pl.cli.fit import main
from rlaifv_pl.data.manifest import ManifestError, ShardInfo, hash_file, read_manifest, write_manifest
from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.miniature import packaged_model
from rlaifv_pl.miniature.scenes import Scene, render
from rlaifv_pl.miniature.shards import Scenes
from rlaifv_pl.objectives.checks import RunError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shards(tmp_path) -> Path:
    """Twelve good pairs about scenes."""
    prompts = Scenes(out="", split="tune", count=12, seed=0).samples()
    with ShardWriter(tmp_path / "shards", recipe={"faults": 0}) as writer:
        for prompt in prompts:
            writer.write(replace(prompt, chosen="there is a red cup.", rejected="there is a blue ring."))
    return tmp_path / "shards"


def rewrite(shards: Path, change) -> None:
    """Change the bytes of the only shard, and let the manifest agree, as a careless tool would."""
    manifest = read_manifest(shards)
    path = shards / manifest.shards[0].name
    path.write_bytes(change(path.read_bytes()))
    info = ShardInfo(name=path.name, bytes=path.stat().st_size, sha256=hash_file(path), samples=12)
    write_manifest(shards, replace(manifest, shards=(info,)))


def fit(shards: Path, run: Path, *options: str) -> list[str]:
    return [
        "fit", "--config", str(ROOT / "configs" / "dpo.yaml"), "--model.policy.path", str(packaged_model("base")),
        "--data.train", str(shards), "--trainer.default_root_dir", str(run), "--trainer.accelerator", "cpu",
        "--trainer.precision", "32-true", "--trainer.accumulate_grad_batches", "1", "--trainer.max_epochs", "1",
        "--data.batch_size", "4", "--trainer.enable_progress_bar", "false", *options,
    ]  # fmt: skip


def with_equal_answers(data: bytes) -> bytes:
    """The third sample's rejected answer becomes its chosen one, of as many bytes."""
    at = -1
    for _ in range(3):
        at = data.index(b"there is a blue ring.", at + 1)
    return data[:at] + b"there is a red cup.  " + data[at + 21 :]


def test_a_bad_sample_is_left_out_and_counted(shards, tmp_path):
    rewrite(shards, with_equal_answers)
    cli = main(fit(shards, tmp_path / "run", "--data.on_bad_sample", "skip"))
    assert sum(cli.model.dropped.values()) == 1
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        assert len([row for row in csv.DictReader(file) if row["train/loss"]]) == 3


def with_a_broken_image(data: bytes) -> bytes:
    return data.replace(b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a!", 1)


def test_a_sample_without_tower_features_is_left_out_as_before(shards, tmp_path):
    rewrite(shards, with_a_broken_image)
    options = ("--data.on_bad_sample", "skip", "--data.cache_vision", "true")
    cli = main(fit(shards, tmp_path / "run", *options))
    assert sum(cli.model.dropped.values()) == 1
    (kept,) = shards.glob("tower-*/*")
    ends = load_file(kept)["own.0.ends"].tolist()
    assert ends[:3] == [0, 0, 1] and len(ends) == 13


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[: len(data) // 2], ("truncated_shard",)),
        (with_a_broken_image, ("tune_000000",)),
        (lambda data: data.replace(b'"rejected": "there is a blue ring."', b'"rejected": "                     "', 1),
         ("tune_000000", "rejected")),
    ],
    ids=["truncated", "broken image", "empty answer"],
)  # fmt: skip
def test_each_fault_ends_in_one_message_that_names_it(change, words, shards, tmp_path):
    rewrite(shards, change)
    done = subprocess.run(
        [sys.executable, "train.py", *fit(shards, tmp_path / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    last = done.stderr[done.stderr.index("error: ") :]
    assert done.returncode == 1 and len(last) < 700 and "Traceback" not in done.stderr
    assert all(word in last for word in words), last


def test_a_scene_of_the_fixture_is_a_picture():
    """Guards the fixture: a changed world would make the faults above meaningless."""
    (sample,) = Scenes(out="", split="tune", count=1, seed=0).samples()
    assert render(Scene.from_json(sample.extra["scene"])).size == (64, 64)


def with_no_answers(data: bytes) -> bytes:
    return data.replace(b'"rejected": "', b'"rejectex": "')


@pytest.mark.parametrize("budget", [(), ("--data.batch_size", "null", "--data.max_tokens", "400")])
def test_nothing_left_to_train_on_is_an_error_that_says_why(budget, shards, tmp_path):
    rewrite(shards, with_no_answers)
    done = subprocess.run(
        [sys.executable, "train.py", *fit(shards, tmp_path / "run", "--data.on_bad_sample", "skip", *budget)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
    last = done.stderr[done.stderr.index("error: ") :]
    assert all(word in last for word in ("epoch 0", "12 missing_answer", "tune_0000")), last
    assert not (tmp_path / "run" / "export").exists()
    assert not list((tmp_path / "run").glob("checkpoints/*.ckpt"))


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_nothing_left_to_validate_on_is_an_error_that_says_why(verb, shards, tmp_path):
    val = tmp_path / "val"
    shutil.copytree(shards, val)
    rewrite(val, with_no_answers)
    options = fit(shards, tmp_path / "run", "--data.on_bad_sample", "skip", "--data.val", str(val))
    with pytest.raises(
        RunError, match=r"No sample of data\.val .*12 missing_answer \(for instance .*tune_0000"
    ):
        main([verb, *options[1:]])
    assert not (tmp_path / "run" / "export").exists()


def test_shards_without_samples_are_refused(tmp_path):
    with ShardWriter(tmp_path / "empty", recipe={}):
        pass
    with pytest.raises(ManifestError, match=r"data\.train: .*empty holds no sample"):
        main(fit(tmp_path / "empty", tmp_path / "run"))
