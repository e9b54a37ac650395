"""With its features kept beside the shards a frozen tower runs before training and not in it, to the same end."""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

from rlaifv_pl.cli.fit import main
from rlaifv_pl.data.datamodule import AlignmentDataModule
from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.models import vision_cache
from rlaifv_pl.models.policy import PolicyError, PolicySpec, load_model
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.objectives import DPOModule
from rlaifv_pl.objectives.cached_vision import CachedVisionFeatures
from rlaifv_pl.records import Sample
from tests.families import FAMILIES
from tests.models.plain import PAIRS, TEXT_ONLY, photo
from tests.training.test_cached import killed_and_finished
from tests.training.test_resume import killed_at
from tests.training.tiny import dpo_config, noise_pairs, run, table, write_config, write_pairs

TRAIN, VAL = 12, 5  # shards of 5: 5, 5, 2
TOKENS, WIDTH = 5, 32  # of an image in the tiny LLaVA: 2 x 2 patches and a class token
COLUMNS = ("train/loss", "train/rewards/chosen", "train/rewards/rejected", "val/loss", "val/rewards/margins")


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Path, Path]:
    return write_pairs(tmp_path / "pairs", TRAIN), write_pairs(tmp_path / "val", VAL, seed=1)


def config(family_dir, shards, directory: Path, cache: bool = True, reference: str = "live", **data) -> str:
    data |= {"val": str(shards[1]), "cache_vision": cache}
    settings = dpo_config(family_dir("llava"), shards[0], data=data)
    settings["model"]["init_args"] |= {"reference": reference, "policy": {"path": str(family_dir("llava"))}}
    settings["trainer"] |= {"default_root_dir": str(directory)}
    return str(write_config(directory.parent / f"{directory.name}.yaml", settings))


def directories(shards: Path) -> list[Path]:
    return sorted(shards.glob("tower-*"))


@contextmanager
def tower_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often a tower runs: in forwards of a policy or reference on a batch, and outside them."""
    calls, depth = Counter(), []
    forward, encode = VLM.forward, CLIPVisionEmbeddings.forward

    def on_batch(self, batch):
        depth.append(1)
        logps = forward(self, batch)
        depth.pop()
        return logps

    def encoded(self, pixel_values, *rest, **options):
        calls["batches" if depth else "others"] += 1
        return encode(self, pixel_values, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(VLM, "forward", on_batch)
        patch.setattr(CLIPVisionEmbeddings, "forward", encoded)
        yield calls


@pytest.mark.parametrize("reference", ["live", "cached"])
def test_a_run_equals_one_that_runs_the_tower(family_dir, shards, tmp_path, monkeypatch, reference):
    counts = {}
    for name, cache in (("without", False), ("with", True), ("again", True)):
        for directory in (*shards[0].glob("reference-*"), *shards[1].glob("reference-*")):
            shutil.rmtree(directory)
        with tower_calls(monkeypatch) as calls:
            main(["fit", "--config", config(family_dir, shards, tmp_path / name, cache, reference)])
        counts[name] = calls
    batches = 2 * (TRAIN + VAL) // 2
    assert counts["without"]["batches"] > batches
    # The first of one tree, the first of several, and two of the export that compares what it wrote.
    assert counts["with"]["batches"] == counts["again"]["batches"] == 2 + 2
    # Of each sample, and of some to weigh them; the rest is on the images of two trials, with and without.
    outside = {name: count["others"] - counts["without"]["others"] for name, count in counts.items()}
    assert outside["with"] - outside["again"] == TRAIN + 8 + VAL + VAL and outside["again"] == 4
    for name in ("with", "again"):
        for column in COLUMNS:
            expected, found = (table(tmp_path / of, column) for of in ("without", name))
            assert list(found) == list(expected) and expected
            for step, value in expected.items():
                assert float(found[step]) == pytest.approx(float(value), rel=1e-4, abs=1e-5), (column, step)
    assert table(tmp_path / "with", "train/loss") == table(tmp_path / "again", "train/loss")


def test_no_more_is_stored_than_is_read(family_dir, shards, tmp_path, capsys):
    main(["fit", "--config", config(family_dir, shards, tmp_path / "run"), "--trainer.max_epochs", "1"])
    (directory,) = directories(shards[0])
    files = {file.name: load_file(file) for file in directory.iterdir()}
    assert sorted(files) == [f"shard-00000{number}.safetensors" for number in range(3)]
    assert files["shard-000000.safetensors"]["own.0"].shape == (5, TOKENS, WIDTH)
    assert sum(file["rejected.0"].numel() for file in files.values()) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "features of the vision tower" in line]
    kept = 4 * TOKENS * WIDTH
    assert (
        f"{TRAIN} samples of about {kept} bytes, {TRAIN * kept / 1000:.1f} kB in all, less if images recur; "
        in said[0]
    )
    assert f"are free on the disk of {shards[0]}" in said[0] and len(said) == 2
    size = sum(file.stat().st_size for file in directory.iterdir())
    assert size < TRAIN * kept + 3 * 1500


@pytest.mark.parametrize("data", [
    {"batch_size": None, "max_tokens": 150, "group_by": "prompt", "num_workers": 1}, {"num_workers": 2},
], ids=["budget", "workers"])  # fmt: skip
def test_in_worker_processes_and_in_batches_of_any_size(family_dir, shards, tmp_path, data):
    for name, cache in (("without", False), ("with", True)):
        main(["fit", "--config", config(family_dir, shards, tmp_path / name, cache, **data)])
    for step, value in table(tmp_path / "without", "train/loss").items():
        found = table(tmp_path / "with", "train/loss")[step]
        assert float(found) == pytest.approx(float(value), rel=1e-4, abs=1e-5)


def test_a_pass_that_was_killed_goes_on_at_the_first_shard_that_is_missing(
    family_dir, shards, tmp_path, monkeypatch
):
    path = config(family_dir, shards, tmp_path / "run")
    killed_and_finished(path, shards[0], "tower", monkeypatch)


def test_a_run_that_was_killed_ends_like_one_that_was_not(family_dir, shards, tmp_path):
    main(["fit", "--config", config(family_dir, shards, tmp_path / "whole")])
    path = config(family_dir, shards, tmp_path / "killed")
    killed_at(7, "--config", path)
    shutil.rmtree(directories(shards[0])[0])
    main(["fit", "--config", path, "--ckpt_path", "last"])
    assert table(tmp_path / "killed", "train/loss") == table(tmp_path / "whole", "train/loss")


def test_a_validation_alone_uses_them_too(family_dir, shards, tmp_path):
    """The completions' log-ps; the loss would be log 2 whatever the images are."""
    metrics = []
    for name, cache in (("without", False), ("with", True)):
        cli = main(["validate", "--config", config(family_dir, shards, tmp_path / name, cache)])
        metrics.append(cli.trainer.callback_metrics)
    names = [name for name in metrics[0] if "logps" in name]
    assert names
    for name in names:
        assert float(metrics[1][name]) == pytest.approx(float(metrics[0][name]), rel=1e-5)
    assert len(directories(shards[1])) == 1 and not directories(shards[0])


def test_features_of_another_model_or_precision_lie_side_by_side(family_dir, shards, tmp_path):
    path = config(family_dir, shards, tmp_path / "run")
    one_epoch = ["fit", "--config", path, "--trainer.max_epochs", "1"]
    main(one_epoch)
    one_epoch += [f"--trainer.default_root_dir={tmp_path / 'again'}", "--overwrite=true"]
    main([*one_epoch, "--model.policy.path", str(tmp_path / "run/export")])
    assert len(directories(shards[0])) == 1, "a tower that did not train is the same"
    main([*one_epoch, "--trainer.precision", "bf16-mixed"])
    assert len(directories(shards[0])) == 2
    main([*one_epoch, "--trainer.precision", "bf16-true", "--model.policy.dtype", "bfloat16"])
    stored = [load_file(next(directory.iterdir()))["own.0"] for directory in directories(shards[0])]
    assert len(stored) == 3 and {value.dtype for value in stored} >= {torch.float32, torch.bfloat16}


def test_pairs_of_a_prompt_in_a_shard_keep_their_images_once(family_dir, tmp_path, monkeypatch):
    prompts, per_prompt = noise_pairs(4), 3
    answers = noise_pairs(len(prompts) * per_prompt, seed=1)
    shards = tmp_path / "pairs"
    with ShardWriter(shards, recipe={}, samples_per_shard=6) as writer:
        for number, answer in enumerate(answers):
            prompt = prompts[number // per_prompt]
            writer.write(replace(answer, prompt=prompt.prompt, images=prompt.images))
    both = shards, write_pairs(tmp_path / "val", VAL, seed=1)
    data = {"batch_size": 3, "length_bucket": 12}
    for name, cache in (("without", False), ("with", True)):
        main(["fit", "--config", config(family_dir, both, tmp_path / name, cache, **data)])
    assert float(table(tmp_path / "with", "train/loss")[7]) == pytest.approx(
        float(table(tmp_path / "without", "train/loss")[7]), rel=1e-4
    )
    (directory,) = directories(shards)
    for file in directory.iterdir():
        kept = load_file(file)
        assert len(kept["own.0"]) == 2 and kept["first"].tolist() == [0, 0, 0, 3, 3, 3]


def mixed() -> list[Sample]:
    """No image, one, two, and others for the rejected side; a batch of two trees with each kind in it."""
    two = replace(PAIRS[1], key="c", images=(photo(1), photo(2, 56, 56)))
    other = replace(PAIRS[0], key="d", rejected_images=(photo(7, 28, 56),))
    return [PAIRS[0], PAIRS[1], two, TEXT_ONLY, other, replace(PAIRS[0], key="e")]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_alike(family_dir, tmp_path, family):
    shards = tmp_path / "pairs"
    with ShardWriter(shards, recipe={}, samples_per_shard=4) as writer:
        for sample in mixed():
            writer.write(sample)
    runs = []
    for cache in (False, True):
        module = DPOModule(
            policy=PolicySpec(path=str(family_dir(family))),
            optimizer=partial(torch.optim.SGD, lr=1e-2),
            reference="cached",
        )
        for made in shards.glob("reference-*"):
            shutil.rmtree(made)
        data = AlignmentDataModule(str(shards), batch_size=2, num_workers=0, cache_vision=cache)
        trainer = L.Trainer(
            default_root_dir=tmp_path, accelerator="cpu", precision="64-true", logger=False, max_epochs=2,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, data)
        runs.append({name: p for name, p in module.policy.named_parameters() if p.requires_grad})
    for name, parameter in runs[0].items():
        torch.testing.assert_close(runs[1][name], parameter, rtol=0, atol=1e-9)
    start = dict(VLM(load_model(PolicySpec(path=str(family_dir(family))))).named_parameters())
    assert max((runs[1][name].float() - start[name]).abs().max() for name in runs[1]) > 1e-3


def stops(config: str, *more: str) -> str:
    done = run("fit", "--config", config, *more)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
    return done.stderr


def test_a_file_of_another_shard_is_refused(family_dir, shards, tmp_path):
    path = config(family_dir, shards, tmp_path / "run")
    main(["fit", "--config", path, "--trainer.max_epochs", "1"])
    (directory,) = directories(shards[0])
    shutil.copy(directory / "shard-000000.safetensors", directory / "shard-000001.safetensors")
    assert "was made with another shard" in stops(path, "--overwrite=true")


def test_a_tower_that_trains_is_refused(family_dir, shards, tmp_path):
    said = stops(config(family_dir, shards, tmp_path / "run"), "--model.policy.freeze_vision", "false")
    assert "policy.freeze_vision is false" in said and "Set data.cache_vision: false" in said
    assert not directories(shards[0]) and not directories(shards[1])


def test_a_full_disk_is_refused_before_it_is_filled(family_dir, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _path: SimpleNamespace(free=TRAIN * 4 * TOKENS * WIDTH - 1)
    )
    with pytest.raises(PolicyError) as stopped:
        main(["fit", "--config", config(family_dir, shards, tmp_path / "run")])
    assert (
        "do not fit: 12 samples of about 640 bytes, 7.7 kB in all, less if images recur; 7.7 kB are free"
        in str(stopped.value)
    )
    assert not directories(shards[0])


def test_features_that_were_changed_are_refused_at_the_first_batch(family_dir, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(
        vision_cache.VisionFeatureLayout, "take", lambda self, output, take=vision_cache.VisionFeatureLayout.take: [
            leaf.roll(1, -1) if len(leaf) == 1 else leaf for leaf in take(self, output)
        ],
    )  # fmt: skip
    with pytest.raises(PolicyError) as stopped:
        main(["fit", "--config", config(family_dir, shards, tmp_path / "run")])
    assert "of their norm" in str(stopped.value) and "data.cache_vision: false" in str(stopped.value)
    assert not directories(shards[0]), "before anything is computed"


def test_sharded_towers_are_refused():
    from lightning.pytorch.strategies import FSDPStrategy

    trainer = SimpleNamespace(strategy=FSDPStrategy())
    with pytest.raises(ValueError, match=r"trainer\.strategy cuts it"):
        CachedVisionFeatures.sidecars(None, None, trainer, 0)


def test_two_processes_compute_what_one_does(family_dir, shards, tmp_path):
    made = {}
    for processes in ("1", "2"):
        path = config(family_dir, shards, tmp_path / f"run{processes}")
        options = ["--trainer.devices", processes, "--trainer.max_epochs", "1"]
        done = run("fit", "--config", path, *options, *(["--trainer.strategy", "ddp"] * (processes == "2")))
        assert done.returncode == 0, done.stderr[-2000:]
        (directory,) = directories(shards[0])
        made[processes] = {file.name: load_file(file) for file in directory.iterdir()}
        shutil.rmtree(directory)
    assert made["1"].keys() == made["2"].keys() and len(made["1"]) == 3
    for name, tensors in made["1"].items():
        assert all(torch.equal(made["2"][name][key], value) for key, value in tensors.items())
