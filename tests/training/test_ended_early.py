"""A run that ended within an epoch, by its steps, its clock or a figure, goes on there: each sample once."""

from collections import Counter
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback

from rlaifv_pl.cli.fit import main
from rlaifv_pl.data.datamodule import PositionedLoader
from tests.training.test_resume import killed_at, weights
from tests.training.tiny import dpo_config, table, write_config, write_pairs

PAIRS = 21  # in batches of 2: 11 of an epoch
EVERYTHING = Counter(f"n{number}" for number in range(PAIRS))


class StopAt(Callback):
    """Stops behind so many batches of this start, as a clock does; or at the first validation behind them.

    Args:
        batches: number of them.
        at_validation: as early stopping does.
    """

    def __init__(self, batches: int, at_validation: bool = False) -> None:
        self.left, self.at_validation = batches, at_validation

    def on_train_batch_end(self, trainer, *_):
        self.left -= 1
        if self.left <= 0 and not self.at_validation:
            trainer.should_stop = True

    def on_validation_end(self, trainer, *_):
        if self.left <= 0 and self.at_validation:
            trainer.should_stop = True


def stop_at(batches: int, at_validation: bool = False) -> list[str]:
    made = ["--trust-config", "tests", "--trainer.callbacks+=tests.training.test_ended_early.StopAt"]
    made.append(f"--trainer.callbacks.batches={batches}")
    return [*made, f"--trainer.callbacks.at_validation={str(at_validation).lower()}"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("shards") / "pairs", PAIRS)


@pytest.fixture
def seen(monkeypatch) -> list[list[str]]:
    """Keys of the batches that were handed out."""
    keys, go = [], PositionedLoader.__iter__

    def spy(self):
        for batch in go(self):
            keys.append(batch.keys)
            yield batch

    monkeypatch.setattr(PositionedLoader, "__iter__", spy)
    return keys


@pytest.fixture
def start(family_dir, shards, tmp_path):
    """Trains in a directory of that name, with a rate that does not depend on the end of the run."""

    def run(name: str, *more: str, resume: bool = False, **trainer) -> Path:
        settings = dpo_config(family_dir("llava"), shards, checkpoint={"every_n_train_steps": 4})
        settings["trainer"] |= {"default_root_dir": str(tmp_path / name), "max_epochs": 2, **trainer}
        settings["model"]["init_args"] |= {"schedule": "constant", "warmup": 0.0}
        config = write_config(tmp_path / f"{name}.yaml", settings)
        main(["fit", "--config", str(config), *more, *(["--ckpt_path", "last"] if resume else [])])
        return tmp_path / name

    return run


def flat(batches) -> Counter:
    return Counter(key for batch in batches for key in batch)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_one_that_max_steps_ended_goes_on_with_more(start, seen, accumulate):
    whole = start("whole", accumulate_grad_batches=accumulate)
    made, steps = list(seen), len(table(whole, "train/loss"))
    seen.clear()
    # In the midst of an epoch, at its end, one later, and to the end of all.
    for number, ends in enumerate((1, 3, steps // 2 - 1, steps // 2, steps // 2 + 1, steps)):
        parts = start("parts", resume=number > 0, accumulate_grad_batches=accumulate, max_steps=ends)
        assert list(table(parts, "train/loss")) == list(range(ends)), ends
    assert seen == made and flat(seen) == EVERYTHING + EVERYTHING
    assert table(parts, "train/loss") == table(whole, "train/loss")
    assert weights(parts) == weights(whole)


@pytest.mark.parametrize(("batches", "at_validation"), [(3, False), (4, False), (3, True), (5, True)])
def test_one_that_was_stopped_goes_on_between_two_steps(start, seen, shards, batches, at_validation):
    """Behind the third of four accumulated batches, and behind the fourth."""
    how = {"accumulate_grad_batches": 4, "val_check_interval": 3}
    val = ["--data.val", str(shards)]
    whole = start("whole", *val, **how)
    made = list(seen)
    seen.clear()
    start("parts", *val, *stop_at(batches, at_validation), **how)
    assert 4 <= len(seen) <= 8 and len(seen) % 4 == 0, "the step is ended"
    parts = start("parts", *val, resume=True, **how)
    assert seen == made
    assert table(parts, "train/loss") == table(whole, "train/loss")
    assert weights(parts) == weights(whole)


@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_a_validation_within_an_epoch_is_not_lost_to_a_kill(start, tmp_path, shards, step):
    """Killed right behind one, or in the midst of the steps around it."""
    val = ["--data.val", str(shards), "--checkpoint.every_n_train_steps", "1"]
    how = {"val_check_interval": 4, "max_epochs": 1}
    whole = start("whole", *val, **how)
    (tmp_path / "parts.yaml").write_text((tmp_path / "whole.yaml").read_text().replace("/whole", "/parts"))
    killed_at(step, "--config", str(tmp_path / "parts.yaml"), *val)
    parts = start("parts", *val, resume=True, **how)
    for column in ("train/loss", "val/loss"):
        assert table(parts, column) == table(whole, column), column


def test_another_batch_size_and_accumulation_on_going_on_see_each_sample_once(start, seen):
    start("run", max_steps=2, max_epochs=1, accumulate_grad_batches=2)
    start("run", "--data.batch_size", "3", resume=True, max_epochs=1, accumulate_grad_batches=4)
    assert flat(seen) == EVERYTHING
