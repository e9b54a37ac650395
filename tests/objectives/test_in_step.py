"""A process whose samples were all left out computes in step with the others, and counts for nothing."""

from types import SimpleNamespace

import pytest
import torch

from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives.checks import RunError
from rlaifv_pl.objectives.in_step import InStep

ALONE, TOGETHER = (SimpleNamespace(world_size=size, global_rank=0) for size in (1, 2))


def batch(*keys: str) -> Batch:
    nothing = torch.zeros(0, dtype=torch.long)
    return Batch(list(keys), {}, {}, nothing, nothing, nothing, len(keys), 1, 1, dropped=[("k9", "too_long")])


def test_the_batch_before_stands_in_at_no_weight():
    put = InStep()
    whole, empty = batch("a", "b"), batch()
    whole.among, whole.share = 4, 1.0
    empty.among, empty.share, empty.weight = 3, 0.5, 0.75
    assert put(whole, TOGETHER) is whole
    stands_in = put(empty, TOGETHER)
    assert stands_in.keys == ["a", "b"] and stands_in.share == 0.0
    assert (stands_in.among, stands_in.weight) == (3, 0.75), "of the step that it stands in"
    assert whole.share == 1.0
    other = batch("c")
    assert put(other, TOGETHER) is other and put(empty, TOGETHER).keys == ["c"]


def test_a_lone_process_needs_none():
    put = InStep()
    assert put(batch("a"), ALONE).keys == ["a"] and put(batch(), ALONE) is None


def test_without_a_batch_before_the_run_stops_and_names_what_was_left_out():
    with pytest.raises(RunError, match=r"rank 0 could be used.*k9.*rlaifv shards verify"):
        InStep()(batch(), TOGETHER)
