"""A loss or gradient that is no number changes no weight, and its samples are named."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file

from rlaifv_pl.cli.fit import main
from rlaifv_pl.objectives.base import RunError
from rlaifv_pl.training.non_finite import NonFiniteGuard
from tests.training.tiny import dpo_config, run, table, write_config, write_pairs

COUNT = 8  # four batches of two


class Poison(Callback):
    """Makes the image of a sample infinite from a step on, and with it every log-p of its batch.

    Args:
        key: of the sample; of all if it is empty.
        start: first step.
    """

    def __init__(self, key: str = "", start: int = 1) -> None:
        self.key, self.start = key, start

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step >= self.start and (not self.key or self.key in batch.keys):
            batch.tokens.images["pixel_values"].fill_(float("inf"))


@pytest.fixture
def start(family_dir, tmp_path: Path):
    shards = write_pairs(tmp_path / "pairs", COUNT)

    def options(name: str, *more: str, **trainer) -> list[str]:
        settings = dpo_config(family_dir("llava"), shards)
        settings["trainer"] |= {"default_root_dir": str(tmp_path / name), "max_epochs": 1, **trainer}
        return ["fit", "--config", str(write_config(tmp_path / f"{name}.yaml", settings)), *more]

    return options


def poisoned(**options) -> list[str]:
    made = ["--trust-config", "tests", "--trainer.callbacks+=tests.training.test_numbers.Poison"]
    return made + [f"--trainer.callbacks.{name}={value}" for name, value in options.items()]


def keys_of(directory: Path, start, step: int) -> list[str]:
    """Of the samples in a step of a run of the same seed."""
    seen = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if trainer.global_step == step:
                seen.extend(batch.keys)

    from rlaifv_pl.cli.fit import AlignmentCLI

    with pytest.MonkeyPatch.context() as patch:
        make = AlignmentCLI.instantiate_trainer
        patch.setattr(
            AlignmentCLI,
            "instantiate_trainer",
            lambda self, **kw: (lambda t: t.callbacks.append(Watch()) or t)(make(self, **kw)),
        )
        main(start("watched"))
    return seen


def test_a_bad_loss_stops_the_run_and_changes_nothing(start, tmp_path):
    keys = keys_of(tmp_path, start, 2)
    with pytest.raises(
        RunError, match=f"step 2 has a non-finite loss; .* {keys[0]}, {keys[1]}. No weight was changed"
    ):
        main(start("run", *poisoned(key=keys[0])))
    whole = torch.load(tmp_path / "watched/checkpoints/epoch0-step2.ckpt", weights_only=True)
    found = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert found["global_step"] == 2
    for name, value in whole["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value)


def test_a_bad_step_is_left_out_on_demand(start, tmp_path, capsys):
    keys = keys_of(tmp_path, start, 2)
    capsys.readouterr()
    main(start("run", *poisoned(key=keys[0]), "--non_finite.on_bad", "skip"))
    said = capsys.readouterr().err
    assert f"skipped: step 2 has a non-finite loss; its samples are {', '.join(keys)}" in said
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 4
    assert {int(values["step"]) for values in state["optimizer_states"][0]["state"].values()} == {3}
    assert all(
        value.isfinite().all() for value in load_file(tmp_path / "run/export/model.safetensors").values()
    )
    assert not float(table(tmp_path / "run", "train/loss")[2]) < float("inf")


def test_too_many_of_them_stop_the_run_all_the_same(start):
    with pytest.raises(RunError, match="step 3 has a non-finite loss"):
        main(start("run", *poisoned(start=1), "--non_finite.on_bad", "skip", "--non_finite.max_skips", "2"))


def test_bad_numbers_of_one_process_are_named_by_all(start):
    options = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "1"]
    done = run(*start("run", *poisoned(key="n5", start=0), *options), PYTHONPATH=".")
    assert done.returncode == 1 and "its samples are n5. No weight" in done.stderr, done.stderr[-3000:]


class Bare:
    """As much of a trainer as the callback asks for."""

    def __init__(self) -> None:
        self.global_step, self.is_global_zero, self.precision_plugin = 7, True, None
        self.strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)


def step(numbers: NonFiniteGuard, loss: float, gradient: float) -> torch.nn.Parameter:
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.tensor([1.0, gradient, 1.0])
    numbers.on_train_batch_start(Bare(), None, SimpleNamespace(keys=["a", "b"]), 0)
    numbers.on_before_backward(Bare(), None, torch.tensor(loss))
    numbers.on_before_optimizer_step(Bare(), None, torch.optim.AdamW([weight]))
    return weight


@pytest.mark.parametrize("gradient", [float("inf"), float("nan"), -float("inf")])
def test_a_bad_gradient_under_a_good_loss_is_found(gradient):
    with pytest.raises(RunError, match="step 7 has non-finite gradients; its samples are a, b"):
        step(NonFiniteGuard(), 0.5, gradient)
    assert step(NonFiniteGuard(on_bad="skip"), 0.5, gradient).grad is None
    assert step(NonFiniteGuard(), 0.5, 1e9).grad is not None


def test_a_spike_is_reported_and_trained_on(capsys):
    numbers = NonFiniteGuard(spike_factor=3.0, spike_window=5)
    for loss in (1.0, 1.2, 0.8, 1.1, 0.9, 2.9):
        step(numbers, loss, 1.0)
    assert capsys.readouterr().err == ""
    assert step(numbers, 4.0, 1.0).grad is not None
    assert capsys.readouterr().err == "step 7: loss 4, the median is 1.1; a, b\n"


@pytest.mark.parametrize("options", [{"spike_factor": 0.5}, {"spike_window": 0}, {"max_skips": 0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="non_finite: expected"):
        NonFiniteGuard(**options)
