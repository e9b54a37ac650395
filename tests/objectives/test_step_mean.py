"""A step is the mean over all that it keeps, however it is cut: accumulated, packed, skipped, dealt to ranks.

Real trainers in float64 take steps of plain SGD over real shards: weights move by the gradient, and by nothing else.
The twin is a run in one process whose batches are whole steps, of the samples that are kept alone.
"""

import os
import socket
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler

from rlaifv_pl.data.datamodule import AlignmentDataModule
from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.objectives import DPOModule, NSFTModule, SFTModule
from rlaifv_pl.objectives.terms import BCO, NLL, NLLSum, Sigmoid
from rlaifv_pl.records import Correction, Sample
from tests.models.plain import keep_wide, photo
from tests.objectives.test_modules import make

STEP, STEPS = 4, 3
"""Samples of a whole step, and steps of the epoch; the last is of 2."""
OBJECTIVES: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpo": (DPOModule, {}),
    "terms": (DPOModule, {"losses": [Sigmoid(), NLL(weight=0.5), NLLSum(weight=0.1)]}),
    "bco": (DPOModule, {"losses": [BCO(beta=0.2)]}),
    "sft": (SFTModule, {}),
    "nsft": (NSFTModule, {"merge": "separate"}),
    "sum_of_means": (NSFTModule, {"reduction": "sum_of_means"}),
    "kl": (NSFTModule, {"reduction": "sum_of_means", "kl_weight": 0.7, "reference": "live"}),
}
WORDS = "yes there is a red circle left of the blue square and two cats on it".split()  # noqa: SIM905


def samples() -> list[Sample]:
    """Answers of very different lengths, some with an image, some samples of one prompt."""
    made = []
    for number in range(STEP * (STEPS - 1) + 2):
        words = [" ".join(WORDS[: 1 + number * step % 13]) for step in (5, 3, 7)]
        made.append(
            Sample(
                key=f"n{number:02}",
                prompt=f"What is in image {number // 2}?",
                images=(photo(number // 2),) if number % 4 < 2 else (),
                chosen=f"Here {words[0]}.",
                rejected=f"No, {words[1]}.",
                corrections=(Correction(question="Is it?", answer=f"It is {words[2]}."),) * (1 + number % 2),
            )
        )
    return made


def bad(sample: Sample) -> Sample:
    return replace(sample, chosen=None, rejected=None, completion=None)


def write(directory: Path, kept: list[Sample]) -> str:
    with ShardWriter(directory, recipe={}) as writer:
        for sample in kept:
            writer.write(sample)
    return str(directory)


class InOrder(AlignmentDataModule):
    """The order of the shards is that of the epoch."""

    def _batches(self, samples, epoch, start):
        from rlaifv_pl.data import datamodule

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(datamodule, "epoch_order", lambda lengths, *_: torch.arange(sum(lengths)).numpy())
            return super()._batches(samples, epoch, start)


class Notes(Callback):
    """What each step logs, and the weights behind it."""

    def __init__(self) -> None:
        self.logged, self.weights, self.shifts = [], [], []

    def on_train_batch_end(self, trainer, module, *_):
        if not trainer.fit_loop.epoch_loop._should_accumulate():
            figures = {n: v.item() for n, v in trainer.callback_metrics.items() if n.startswith("train/")}
            self.logged.append(figures)
            trained = [p.detach().flatten() for p in module.policy.parameters() if p.requires_grad]
            self.weights.append(torch.cat(trained))
            self.shifts += [
                term.shift.item() for term in getattr(module, "losses", []) if isinstance(term, BCO)
            ]

    def on_validation_end(self, trainer, module):
        self.validated = {n: v.item() for n, v in trainer.callback_metrics.items() if n.startswith("val/")}


def train(model: Path, shards: str, kind: str, size: int, accumulate: int = 1, **options: Any) -> Notes:
    """An epoch in this process; `size` samples a batch."""
    objective, how = OBJECTIVES[kind][0], deepcopy(OBJECTIVES[kind][1])  # BCO keeps what it learns.
    frozen = {
        "freeze": ["*.post_layernorm.*", "*.encoder.layers.1.*"],
        "attention": options.pop("attention", "auto"),
    }
    module = make(objective, model, frozen, lr=0.5, schedule="constant", **how).double()
    keep_wide(module.policy)
    if module.reference is not None:
        keep_wide(module.reference.copy).double()
    notes = Notes()
    data = {name: options.pop(name) for name in ("val", "val_batch_size", "group_by") if name in options}
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=1,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False, precision="64-true",
        reload_dataloaders_every_n_epochs=1, accumulate_grad_batches=accumulate,
        callbacks=[notes, *options.pop("callbacks", [])], **options,
    )  # fmt: skip
    trainer.fit(module, InOrder(shards, batch_size=size, num_workers=0, on_bad_sample="skip", **data))
    return notes


def compare(notes: Notes, twin: Notes) -> None:
    assert len(notes.weights) == len(twin.weights)
    for one, other in pairwise(twin.weights):
        assert (one - other).abs().max() > 1e-3, "the guard: a step moves them"
    for one, other in zip(notes.weights, twin.weights, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    for one, other in zip(notes.logged, twin.logged, strict=True):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-6, nan_ok=True)
    assert notes.shifts == pytest.approx(twin.shifts, abs=1e-6)


@pytest.fixture(scope="module")
def model(family_dir) -> Path:
    return family_dir("llava")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    return write(tmp_path_factory.mktemp("whole") / "shards", samples())


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_accumulated_and_packed_are_one_batch(model, whole, kind):
    twin = train(model, whole, kind, STEP, attention="rows")
    compare(train(model, whole, kind, 1, STEP), twin)
    compare(train(model, whole, kind, STEP), twin)
    compare(train(model, whole, kind, 3, 2), train(model, whole, kind, 6))


GONE = {"some": (0, 2, 5, 9), "ends of steps": (3, 7, 9), "a whole step": (4, 5, 6, 7), "begin": (0, 1, 2, 3)}


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("kind", ["dpo", "bco", "sft", "sum_of_means"])
def test_what_is_left_out_counts_for_nothing(model, tmp_path, kind, gone):
    """The twin sees the kept samples of each step alone; of a step that keeps nothing it sees none."""
    steps = [[s for s in samples()[at : at + STEP] if int(s.key[1:]) not in GONE[gone]] for at in (0, 4, 8)]
    skipped = write(tmp_path / "skipped", [bad(s) if int(s.key[1:]) in GONE[gone] else s for s in samples()])
    notes = train(model, skipped, kind, 1, STEP)
    kept = [step for step in steps if step]
    # One step at a time, each of its own size: batches of one, accumulated over its number.
    twin = train(
        model, write(tmp_path / "kept", [s for step in kept for s in step]), kind, 1, 1,
        callbacks=[Cut([len(step) for step in kept])],
    )  # fmt: skip
    for place, step in reversed(list(enumerate(steps))):
        if not step:
            assert all(value != value for name, value in notes.logged[place].items() if name != "train/lr")
            before = notes.weights[place - 1] if place else None
            assert before is None or torch.equal(notes.weights[place], before)
            for values in (notes.weights, notes.logged, notes.shifts):
                del values[place : place + 1]
    compare(notes, twin)


class Cut(Callback):
    """Ends steps behind given numbers of batches."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    def on_train_epoch_start(self, trainer, module):
        from rlaifv_pl.data import loader

        ends = {sum(self.sizes[: n + 1]) for n in range(len(self.sizes))}
        loop = trainer.fit_loop.epoch_loop
        loop._accumulated_batches_reached = lambda: loop.batch_progress.current.ready in ends
        patch, cut = pytest.MonkeyPatch(), iter([*self.sizes, 10**6])
        patch.setattr(loader, "chain", lambda *_: cut)
        optimize = loop.automatic_optimization
        begins = {0} | ends
        zero = optimize._make_zero_grad_fn

        def zero_grad(index, optimizer):
            return zero(0, optimizer) if index in begins else None

        optimize._make_zero_grad_fn = zero_grad
        self.patch = patch

    def on_train_epoch_end(self, *_):
        self.patch.undo()


def test_an_accumulation_schedule_and_an_epoch_cut_short(model, whole):
    schedule = [GradientAccumulationScheduler({0: 2})]
    compare(train(model, whole, "sft", 2, callbacks=schedule), train(model, whole, "sft", STEP))
    limited = train(model, whole, "sft", 1, STEP, limit_train_batches=6)
    twin = train(model, whole, "sft", 2, 2, limit_train_batches=3)
    compare(limited, twin)
    compare(train(model, whole, "sft", 1, STEP, limit_train_batches=0.6), twin)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_validation_is_the_mean_over_its_whole_set(model, whole, kind):
    one, other = (train(model, whole, kind, STEP, 9, val=whole, val_batch_size=size) for size in (1, 10))
    assert one.validated == pytest.approx(other.validated, rel=1e-6, abs=1e-6)


# --- two ranks ----------------------------------------------------------------------------------------

RANKED = {
    "even": (),
    "one rank keeps nothing of a step": (0, 2),
    "nor of any": (0, 2, 4, 6, 8),
    "both keep nothing of a step": (4, 5, 6, 7),
    "an odd sample is left over": (9,),
}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _rank(rank: int, port: int, model: Path, root: Path, kinds: list[str]) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank),
        "LOCAL_RANK": str(rank), "NODE_RANK": "0", "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0",
        "LOCAL_WORLD_SIZE": "2",
    }  # fmt: skip
    torch.set_num_threads(1)
    for case in RANKED:
        for kind in kinds:
            notes = train(
                model,
                str(root / case),
                kind,
                1,
                2,
                devices=2,
                strategy="ddp",
                val=str(root / "val"),
                val_batch_size=2,
            )
            found = {name: getattr(notes, name) for name in ("logged", "weights", "shifts", "validated")}
            torch.save(found, root / f"{case}.{kind}.{rank}")


@pytest.mark.slow
def test_two_ranks_are_one_process(model, tmp_path):
    """Batches of one, two accumulated, two ranks: steps of four."""
    kinds = list(OBJECTIVES)
    for case, gone in RANKED.items():
        kept = samples()[:-1] if case == "an odd sample is left over" else samples()
        write(tmp_path / case, [bad(s) if int(s.key[1:]) in gone else s for s in kept])
    write(tmp_path / "val", samples()[:7])
    mp.spawn(partial(_rank, port=_free_port(), model=model, root=tmp_path, kinds=kinds), nprocs=2)
    for case in RANKED:
        for kind in kinds:
            twin = train(
                model, str(tmp_path / case), kind, 1, STEP, val=str(tmp_path / "val"), val_batch_size=7
            )
            for rank in range(2):
                notes = Notes()
                notes.__dict__ |= torch.load(tmp_path / f"{case}.{kind}.{rank}", weights_only=False)
                assert len(notes.weights) == len(twin.weights) == STEPS, (case, kind)
                for one, other in zip(notes.weights, twin.weights, strict=True):
                    torch.testing.assert_close(one, other, rtol=0, atol=1e-10, msg=f"{case}, {kind}")
                for one, other in zip(notes.logged, twin.logged, strict=True):
                    assert one == pytest.approx(other, rel=1e-6, abs=1e-6, nan_ok=True), (case, kind)
                assert notes.validated == pytest.approx(twin.validated, rel=1e-6, abs=1e-6)
                assert notes.shifts == pytest.approx(twin.shifts, abs=1e-6)
