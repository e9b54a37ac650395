"""Batches by a budget of tokens, by prompt and by length: what is trained on stays the same."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlaifv_pl.cli.fit import main
from rlaifv_pl.data.datamodule import PositionedLoader
from rlaifv_pl.data.shards import ShardWriter
from tests.training.test_resume import killed_at
from tests.training.tiny import dpo_config, noise_pairs, run, table, write_config

PROMPTS, PER_PROMPT = 6, 3


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Several pairs of a prompt, far from each other; answers of many lengths."""
    prompts, answers = noise_pairs(PROMPTS), noise_pairs(PROMPTS * PER_PROMPT, seed=1)
    directory = tmp_path_factory.mktemp("pairs") / "pairs"
    with ShardWriter(directory, recipe={}, samples_per_shard=7) as writer:
        for number, answer in enumerate(answers):
            prompt = prompts[number % PROMPTS]
            longer = answer.chosen + " and two more cats" * (number % 5)
            writer.write(replace(answer, prompt=prompt.prompt, images=prompt.images, chosen=longer))
    return directory


@pytest.fixture
def seen(monkeypatch) -> list:
    """Batches in the order in which they were handed out."""
    batches, go = [], PositionedLoader.__iter__

    def spy(self):
        for batch in go(self):
            batches.append(batch)
            yield batch

    monkeypatch.setattr(PositionedLoader, "__iter__", spy)
    return batches


def config(family_dir, shards, directory: Path, **data) -> list[str]:
    settings = dpo_config(family_dir("llava"), shards, data=data)
    settings["trainer"] |= {"default_root_dir": str(directory), "max_epochs": 1}
    return ["--config", str(write_config(directory.parent / f"{directory.name}.yaml", settings))]


def columns(batch) -> int:
    return sum(branch.stop - branch.start for branch in batch.layout.branches)


def prompt_of(key: str) -> int:
    return int(key[1:]) % PROMPTS


def test_a_budget_fills_batches_and_never_overflows(family_dir, shards, tmp_path, seen):
    main(["fit", *config(family_dir, shards, tmp_path / "run", batch_size=None, max_tokens=120)])
    sizes = [columns(batch) for batch in seen]
    assert max(sizes) <= 120 and min(sizes[:-1]) > 40
    keys = Counter(key for batch in seen for key in batch.keys)
    assert keys == Counter(f"n{n}" for n in range(PROMPTS * PER_PROMPT))
    assert len({len(batch.keys) for batch in seen}) > 1


def test_rows_are_counted_with_their_padding(family_dir, shards, tmp_path, seen):
    options = config(family_dir, shards, tmp_path / "run", batch_size=None, max_tokens=300, length_bucket=18)
    main(["fit", *options, "--model.policy.attention", "rows"])
    cells = [batch.tokens.rows["input_ids"].numel() for batch in seen]
    assert max(cells) <= 300 and min(cells[:-1]) > 100


def test_pairs_of_a_prompt_come_together_and_share_it(family_dir, shards, tmp_path, seen):
    main(["fit", *config(family_dir, shards, tmp_path / "run", batch_size=PER_PROMPT, group_by="prompt")])
    assert len(seen) == PROMPTS
    for batch in seen:
        assert len({prompt_of(key) for key in batch.keys}) == batch.layout.num_trees == 1
        assert batch.layout.rows_per_tree == 2 * PER_PROMPT
    alone = table(tmp_path / "run", "train/loss")
    # Again over rows, each with a prefix of its own: the same training.
    main(["fit", *config(family_dir, shards, tmp_path / "rows", batch_size=PER_PROMPT, group_by="prompt"),
          "--model.policy.attention", "rows"])  # fmt: skip
    for step, loss in table(tmp_path / "rows", "train/loss").items():
        assert float(alone[step]) == pytest.approx(float(loss), rel=1e-4)


def test_a_cached_reference_does_not_care_how_samples_are_batched(family_dir, shards, tmp_path):
    """Its pass reads pairs one by one in the order of the shards; training reads trees of several."""
    data = {"batch_size": None, "max_tokens": 300, "group_by": "prompt", "val_batch_size": 1}
    for reference in ("live", "cached"):
        main(
            ["fit", *config(family_dir, shards, tmp_path / reference, **data), "--model.reference", reference]
        )
    live, cached = (table(tmp_path / reference, "train/loss") for reference in ("live", "cached"))
    assert list(live) == list(cached) and len(live) > 2
    for step, loss in live.items():
        assert float(cached[step]) == pytest.approx(float(loss), rel=1e-5)


def test_one_batch_of_a_budget_steps_like_the_same_pairs_one_by_one(family_dir, shards, tmp_path, seen):
    """Two ways to cut an epoch of one step: packed, or accumulated over single pairs."""
    count, sgd = PROMPTS * PER_PROMPT, {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    for name, options in {
        "packed": (100_000, 1),
        "single": (110, count),
    }.items():
        path = tmp_path / name
        settings = dpo_config(
            family_dir("llava"), shards, data={"batch_size": None, "max_tokens": options[0]}
        )
        settings["model"]["init_args"]["optimizer"] = sgd
        settings["trainer"] |= {
            "default_root_dir": str(path), "max_epochs": 1, "accumulate_grad_batches": options[1]
        }  # fmt: skip
        main(["fit", "--config", str(write_config(tmp_path / f"{name}.yaml", settings))])
    sizes = [len(batch.keys) for batch in seen]
    assert sizes[0] == count and sum(sizes[1:]) == count and len(set(sizes[1:])) > 1
    one, two = (load_file(tmp_path / name / "export/model.safetensors") for name in ("packed", "single"))
    start = load_file(family_dir("llava") / "model.safetensors")
    moved = max((one[name] - start[name]).abs().max().item() for name in one)
    assert moved > 1e-3
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-4 * moved)


def test_a_killed_run_with_a_budget_goes_on_with_the_same_batches(family_dir, shards, tmp_path, seen):
    data = {"batch_size": None, "max_tokens": 150, "group_by": "prompt", "length_bucket": 9}
    main(["fit", *config(family_dir, shards, tmp_path / "whole", **data)])
    whole = [batch.keys for batch in seen]
    killed_at(3, *config(family_dir, shards, tmp_path / "killed", **data))
    done = [batch.keys for batch in seen[len(whole) :]]
    main(["fit", *config(family_dir, shards, tmp_path / "killed", **data), "--ckpt_path", "last"])
    again = [batch.keys for batch in seen[len(whole) + len(done) :]]
    assert again == whole[len(whole) - len(again) :] and 0 < len(again) < len(whole)
    assert (tmp_path / "killed/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()


def test_a_sample_that_no_batch_can_hold_is_named(family_dir, shards, tmp_path):
    done = run("fit", *config(family_dir, shards, tmp_path / "run", batch_size=None, max_tokens=30))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "data.max_tokens allows a device 30" in done.stderr and "sample 'n" in done.stderr


def test_the_survey_is_made_once_for_each_reading(family_dir, shards, tmp_path, monkeypatch):
    from rlaifv_pl.data import sample_lengths

    measured, measure = [], sample_lengths.measure_sample
    monkeypatch.setattr(sample_lengths, "measure_sample", lambda *a: measured.append(a[0].key) or measure(*a))
    before = set(shards.glob("sizes-*"))
    data = {"batch_size": None, "max_tokens": 151, "num_workers": 0}
    options = ["--model.max_length", "900"]
    main(["fit", *config(family_dir, shards, tmp_path / "a", **data), *options])
    assert sorted(measured) == sorted(f"n{n}" for n in range(PROMPTS * PER_PROMPT))
    main(["fit", *config(family_dir, shards, tmp_path / "b", **data), *options])
    assert len(measured) == PROMPTS * PER_PROMPT
    assert len(set(shards.glob("sizes-*")) - before) == 1


def test_two_processes_share_a_budget(family_dir, shards, tmp_path):
    """Each has half of the room, so that both together see what one sees, in batches of nearly the same pairs."""
    options = config(family_dir, shards, tmp_path / "run", batch_size=None, max_tokens=150)
    done = run("fit", *options, "--trainer.devices", "2", "--trainer.strategy", "ddp")
    assert done.returncode == 0, done.stderr[-2000:]
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["AlignmentDataModule"]
    assert state["samples"] in (PROMPTS * PER_PROMPT - 1, PROMPTS * PER_PROMPT)
    assert len(table(tmp_path / "run", "train/loss")) == state["batches"]
