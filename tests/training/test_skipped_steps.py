"""A step that is left out leaves nothing behind: whatever outlives it is as if its batch had never been."""

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch import Callback

from rlaifv_pl.models.logps import group_sums
from rlaifv_pl.objectives import DPOModule
from rlaifv_pl.objectives.base import RunError
from rlaifv_pl.objectives.terms import BCO, Sigmoid
from rlaifv_pl.training.non_finite import NonFiniteGuard
from rlaifv_pl.training.throughput import Throughput
from tests.models.plain import PAIRS, TEXT_ONLY
from tests.objectives.test_modules import Batches, make

GOOD = [[PAIRS[0]], [PAIRS[1]], [PAIRS[0], PAIRS[1]], [PAIRS[1]]]
LR, MOMENTUM, DECAY = 1e-2, 0.9, 0.1


class Poison(Callback):
    """Makes the pictures of some batches infinite."""

    def __init__(self, *batches: int) -> None:
        self.batches = batches

    def on_train_batch_start(self, trainer, module, batch, index):
        if index in self.batches:
            batch.tokens.images["pixel_values"].fill_(float("inf"))


class Notes(Callback):
    """What outlives a step, noted behind each."""

    def __init__(self) -> None:
        self.rates, self.states = [], []

    def on_train_batch_end(self, trainer, module, *_):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        state = trainer.optimizers[0].state
        named = {
            name: (p.detach().clone(), {key: value.clone() for key, value in state.get(p, {}).items()})
            for name, p in module.policy.named_parameters()
            if p.requires_grad
        }
        self.states.append((named, module.losses[-1].shift.clone(), module.losses[-1].num_rewards.clone()))


def fit(
    llava: Path, folder: Path, batches: list, *bad: int, **options
) -> tuple[L.Trainer, Notes, NonFiniteGuard]:
    """Training with everything that holds a mean: weights with momentum and decay, BCO, losses, speed."""
    frozen = ("*.post_layernorm.*", "*.encoder.layers.1.*")
    module = make(
        DPOModule, llava, {"freeze": frozen}, losses=[Sigmoid(), BCO(weight=0.5)], schedule="linear"
    )
    module._make_optimizer = lambda named: torch.optim.AdamW(named, lr=LR, weight_decay=DECAY)
    notes, numbers = Notes(), NonFiniteGuard(on_bad="skip", spike_window=3)
    trainer = L.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, max_epochs=1, num_sanity_val_steps=0,
        log_every_n_steps=1, callbacks=[Poison(*bad), numbers, Throughput(peak_tflops=1.0), notes], **options,
    )  # fmt: skip
    trainer.fit(module, Batches(*batches))
    return trainer, notes, numbers


def equal(one: tuple, other: tuple) -> bool:
    named, shift, count = one
    return (
        torch.equal(shift, other[1])
        and torch.equal(count, other[2])
        and all(
            torch.equal(value, other[0][name][0])
            and all(torch.equal(state[key], other[0][name][1][key]) for key in state)
            for name, (value, state) in named.items()
        )
    )


@pytest.mark.parametrize("clip", [None, 1.0])
def test_weights_optimiser_and_running_means_stand_still(family_dir, tmp_path, clip):
    trainer, notes, numbers = fit(family_dir("llava"), tmp_path, GOOD, 1, 3, gradient_clip_val=clip)
    assert trainer.global_step == 4
    # The schedule counts it: a step is a step, with the data that it was to see.
    assert notes.rates == pytest.approx([LR * share for share in (1, 0.75, 0.5, 0.25)])
    assert equal(notes.states[1], notes.states[0]) and equal(notes.states[3], notes.states[2])
    assert not equal(notes.states[2], notes.states[1]), "the guard: a good step moves it"
    named, shift, count = notes.states[3]
    assert shift.isfinite() and count == 2 * 3
    for value, state in named.values():
        assert value.isfinite().all() and state["step"] == 2
        assert all(moment.isfinite().all() for moment in state.values())
    assert len(numbers._losses) == 2 and all(loss < float("inf") for loss in numbers._losses)
    figures = torch.stack([step for callback in trainer.callbacks if isinstance(callback, Throughput)
                           for step in callback._steps])  # fmt: skip
    assert figures.isfinite().all() and len(figures) == 4


def test_a_bad_batch_among_accumulated_ones_takes_the_whole_step_along(family_dir, tmp_path, capsys):
    trainer, notes, numbers = fit(family_dir("llava"), tmp_path, GOOD, 0, accumulate_grad_batches=2)
    assert trainer.global_step == 2
    line = f"skipped: step 0 has a non-finite loss; its samples are {PAIRS[0].key}"
    assert line in capsys.readouterr().err.splitlines()
    start = dict(make(DPOModule, family_dir("llava")).policy.named_parameters())
    assert all(torch.equal(value, start[name]) for name, (value, _) in notes.states[1][0].items())
    assert all(state["step"] == 1 for _, state in notes.states[3][0].values())
    # Good ones of a step that was left out were seen, and count in the mean of rewards.
    assert notes.states[3][1].isfinite() and notes.states[3][2] == 2 * (1 + 2 + 1)
    assert len(numbers._losses) == 1  # Of the one step that was taken.


def test_a_first_batch_gone_bad_is_left_out_and_the_layout_looked_at_later(family_dir, tmp_path, monkeypatch):
    """It is compared at the first batch that gives numbers, and not taken for wrong before."""
    seen = []
    from rlaifv_pl.objectives import base, checks

    monkeypatch.setattr(base, "check_tree", lambda *some: seen.append(checks.check_tree(*some)) or seen[-1])
    trainer, _, _ = fit(family_dir("llava"), tmp_path, GOOD, 0)
    assert trainer.global_step == 4 and seen == [False, True]
    monkeypatch.setattr(checks, "tree_error", lambda *_: (float("inf"), 1e-3))
    with pytest.raises(RunError, match="differ by inf nats"):
        fit(family_dir("llava"), tmp_path, GOOD)


@pytest.mark.parametrize("mixed", [False, True], ids=["true", "mixed"])
def test_log_ps_and_their_sums_are_float32_in_bfloat16(family_dir, mixed):
    """A sum of hundreds of nats in 8 bits would be off by more than a pair's margin."""
    module = make(DPOModule, family_dir("llava"))
    batch = module.collator("raise")([*PAIRS, TEXT_ONLY])
    if not mixed:
        module.bfloat16()
        module.reference.copy.bfloat16()
        batch.tokens.images = {name: value.bfloat16() for name, value in batch.tokens.images.items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        scored, compared = module.score(batch)
        step = module.objective(batch)
    for logps in (scored, compared):
        sums = batch.sum_by_sequence(logps)
        assert logps.dtype == sums.dtype == torch.float32
        exact = group_sums(logps.double(), batch.tokens.sequence_id, batch.num_sequences)
        torch.testing.assert_close(sums.double(), exact, rtol=1e-6, atol=0)
        assert not torch.equal(sums, sums.bfloat16().float())
    assert step.loss.dtype == torch.float32
