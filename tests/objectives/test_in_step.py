"""A process whose samples were all left out computes in step with the others, and counts for nothing."""

import pickle
from types import SimpleNamespace

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.plugins.precision import HalfPrecision
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from rlaifv_pl.models.prefix_tree import Branch
from rlaifv_pl.models.vlm import Accounting, Batch, Precomputed, Tokens, TreeLayout
from rlaifv_pl.objectives import DPOModule, NSFTModule, SFTModule
from rlaifv_pl.objectives.empty_batch_guard import STAND_IN, EmptyBatchGuard
from tests.objectives.test_modules import CORRECTED, make
from tests.objectives.test_modules import path as path  # A fixture.

STRATEGY = SimpleNamespace(batch_to_device=lambda batch: batch)
ALONE, TOGETHER = (SimpleNamespace(world_size=size, strategy=STRATEGY) for size in (1, 2))


def batch(*keys: str) -> Batch:
    nothing = torch.zeros(0, dtype=torch.long)
    return Batch(
        list(keys),
        1,
        Tokens({}, {}, nothing, nothing, nothing),
        TreeLayout(len(keys), 1),
        accounting=Accounting(dropped=[("k9", "too_long")]),
    )


def test_a_batch_of_nothing_gets_one_in_its_place_that_counts_for_nothing():
    put, whole, empty = EmptyBatchGuard(lambda: batch("stand-in")), batch("a", "b"), batch()
    empty.accounting.step_counts = torch.tensor([3, 5])
    assert put(whole, TOGETHER) is whole
    stands_in = put(empty, TOGETHER)
    assert stands_in.keys == ["stand-in"] and stands_in.accounting.is_stand_in
    assert stands_in.accounting.step_counts is empty.accounting.step_counts, "of the step that it stands in"
    assert stands_in.counts.tolist() == [0, 0] and batch("a").counts.tolist() == [1, 0]


def test_a_lone_process_needs_none():
    put = EmptyBatchGuard(lambda: batch("stand-in"))
    assert put(batch("a"), ALONE).keys == ["a"] and put(batch(), ALONE) is None


@pytest.mark.parametrize("merge", ["append", "separate", "corrections_only"])
@pytest.mark.parametrize("objective", [DPOModule, NSFTModule, SFTModule])
def test_every_objective_of_every_family_can_read_it(objective, merge, path):
    options = {"merge": merge} if objective is NSFTModule else {}
    module = make(objective, path, **options)
    stand_in = module.collator("raise")([STAND_IN])
    step = module.objective(stand_in)
    assert step.loss.isfinite() and step.loss.requires_grad
    assert not step.without_weight().loss.item()
    figures = module.objective(module.collator("raise")(CORRECTED)).metrics
    assert step.metrics.keys() == figures.keys()


def whole_batch() -> Batch:
    return Batch(
        ["a"],
        1,
        Tokens(
            {"input_ids": torch.tensor([[1, 2]])},
            {"pixel_values": torch.ones(1, 3)},
            *torch.tensor([[0], [2], [0]]),
        ),
        TreeLayout(1, 1, [Branch(0, 0, 2)], [(0, False)]),
        Precomputed(torch.tensor([-1.5]), [torch.ones(2, dtype=torch.float64)]),
        Accounting(kept=[0], dropped=[("k9", "too_long")], step_counts=torch.tensor([1, 1])),
    )


def tensors_of(batch: Batch) -> list[Tensor]:
    tokens, precomputed = batch.tokens, batch.precomputed
    return [
        *tokens.rows.values(), *tokens.images.values(), tokens.logit_index, tokens.labels, tokens.sequence_id,
        precomputed.reference_logps, *precomputed.vision_features, batch.accounting.step_counts,
    ]  # fmt: skip


def test_a_batch_comes_out_of_a_worker_and_onto_a_device_as_a_whole():
    received = pickle.loads(pickle.dumps(whole_batch()))
    moved = move_data_to_device(received, torch.device("meta"))
    assert {tensor.device.type for tensor in tensors_of(moved)} == {"meta"}
    assert (moved.keys, moved.layout, moved.accounting.dropped) == (
        ["a"],
        whole_batch().layout,
        [("k9", "too_long")],
    )
    assert received.tokens.labels.device.type == "cpu", "the batch that was moved stays where it was"


def test_what_was_computed_beforehand_keeps_its_type_under_a_cast():
    cast = HalfPrecision("bf16-true").convert_input(whole_batch())
    assert cast.tokens.images["pixel_values"].dtype == torch.bfloat16
    assert cast.precomputed.reference_logps.dtype == torch.float32
    assert cast.precomputed.vision_features[0].dtype == torch.float64


def test_a_batch_is_pinned_as_a_whole(monkeypatch):
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor.to("meta"))
    pinned = pin_memory(whole_batch())
    assert {tensor.device.type for tensor in tensors_of(pinned)} == {"meta"}
    assert pinned.keys == ["a"] and pinned.layout == whole_batch().layout
