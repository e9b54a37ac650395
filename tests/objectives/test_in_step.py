"""A process whose samples were all left out computes in step with the others, and counts for nothing."""

from types import SimpleNamespace

import pytest
import torch

from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives import DPOModule, NSFTModule, SFTModule
from rlaifv_pl.objectives.empty_batch_guard import STAND_IN, EmptyBatchGuard
from tests.objectives.test_modules import CORRECTED, make
from tests.objectives.test_modules import path as path  # A fixture.

STRATEGY = SimpleNamespace(batch_to_device=lambda batch: batch)
ALONE, TOGETHER = (SimpleNamespace(world_size=size, strategy=STRATEGY) for size in (1, 2))


def batch(*keys: str) -> Batch:
    nothing = torch.zeros(0, dtype=torch.long)
    return Batch(list(keys), {}, {}, nothing, nothing, nothing, len(keys), 1, 1, dropped=[("k9", "too_long")])


def test_a_batch_of_nothing_gets_one_in_its_place_that_counts_for_nothing():
    put, whole, empty = EmptyBatchGuard(lambda: batch("stand-in")), batch("a", "b"), batch()
    empty.step_counts = torch.tensor([3, 5])
    assert put(whole, TOGETHER) is whole
    stands_in = put(empty, TOGETHER)
    assert stands_in.keys == ["stand-in"] and stands_in.is_stand_in
    assert stands_in.step_counts is empty.step_counts, "of the step that it stands in"
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
