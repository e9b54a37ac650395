"""The order of an epoch and its cuts: what makes a run resumable anywhere, as plain arithmetic."""

import numpy as np
import pytest

from rlaifv_pl.data.order import RankBatches, epoch_order

LENGTHS = [5, 1, 0, 7, 3, 4]
TOTAL = sum(LENGTHS)
CUTS = [(1, 1), (3, 1), (4, 2), (2, 3), (1, 4), (50, 1), (7, 3)]  # batch size, ranks


def shard_of(index: int) -> int:
    return int(np.searchsorted(np.cumsum(LENGTHS), index, side="right"))


def batches(order, size, world, start=0):
    """What all ranks see: for each batch the list of the ranks' shares."""
    ranks = [list(RankBatches(order, size, rank, world, start)) for rank in range(world)]
    return list(zip(*ranks, strict=True))


@pytest.mark.parametrize("window", [1, 2, 100])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_an_epoch_visits_every_sample_exactly_once(epoch, window):
    assert sorted(epoch_order(LENGTHS, 3, epoch, window)) == list(range(TOTAL))


def test_seed_and_epoch_alone_fix_the_order():
    first = epoch_order(LENGTHS, 3, 1, 2)
    np.random.seed(1234)  # nothing global may leak in
    assert (epoch_order(LENGTHS, 3, 1, 2) == first).all()
    assert (epoch_order(LENGTHS, 3, 2, 2) != first).any()
    assert (epoch_order(LENGTHS, 4, 1, 2) != first).any()
    # Seed and epoch are two numbers, not their sum.
    assert (epoch_order(LENGTHS, 4, 0, 2) != epoch_order(LENGTHS, 3, 1, 2)).any()


def test_no_more_shards_are_open_than_the_window_allows():
    long = [40] * 6
    order = epoch_order(long, 0, 0, window=2)
    for first in range(0, 240, 80):
        part = order[first : first + 80]
        assert len({index // 40 for index in part}) == 2
        assert (np.diff(part // 40) != 0).sum() > 10, "the shards of a window are mixed"


def test_window_one_reads_shard_after_shard_in_shuffled_order():
    shards = [shard_of(index) for index in epoch_order(LENGTHS, 0, 0, window=1)]
    visits = [shard for i, shard in enumerate(shards) if i == 0 or shards[i - 1] != shard]
    assert sorted(visits) == [0, 1, 3, 4, 5] and visits != sorted(visits)


def test_no_shards_make_an_empty_order():
    assert list(epoch_order([], 0, 0, 8)) == []


@pytest.mark.parametrize(("size", "world"), CUTS)
def test_ranks_share_each_batch_without_overlap_and_lose_only_what_cannot_be_shared(size, world):
    order = epoch_order(LENGTHS, 0, 0, 2)
    seen = [sorted(index for share in batch for index in share) for batch in batches(order, size, world)]
    whole = size * world
    expected = [sorted(order[first : first + whole]) for first in range(0, TOTAL, whole)]
    if len(expected[-1]) < world:
        expected.pop()  # too few for every rank: all ranks leave them out
    assert seen == expected
    assert all(len(share) >= 1 for batch in batches(order, size, world) for share in batch)


@pytest.mark.parametrize(("size", "world"), CUTS)
def test_length_is_the_number_of_batches_from_any_start(size, world):
    order = epoch_order(LENGTHS, 0, 0, 2)
    for start in range(0, TOTAL + 2 * size * world):  # the last batch of an epoch may have been cut short
        cut = RankBatches(order, size, 0, world, start)
        assert len(cut) == len(list(cut)) >= 0, start


@pytest.mark.parametrize(("size", "world"), CUTS)
def test_starting_later_gives_the_same_batches_as_going_on(size, world):
    order = epoch_order(LENGTHS, 0, 0, 2)
    whole = batches(order, size, world)
    for done in range(len(whole) + 1):
        assert batches(order, size, world, start=done * size * world) == whole[done:]


@pytest.mark.parametrize("after", CUTS)
@pytest.mark.parametrize("before", CUTS)
def test_changing_batch_size_and_ranks_at_any_batch_neither_repeats_nor_skips(before, after):
    order = epoch_order(LENGTHS, 0, 0, 2)
    whole = batches(order, *before)
    for done in range(len(whole) + 1):
        start = done * before[0] * before[1]
        both = whole[:done] + batches(order, *after, start=start)
        seen = [index for batch in both for share in batch for index in share]
        assert len(seen) == len(set(seen))
        assert TOTAL - len(seen) < max(after[1], before[1]), "only a rest too small for all ranks is left out"


def test_another_iteration_begins_at_the_start_again():
    cut = RankBatches(np.arange(10), 4, start=4)
    assert list(cut) == list(cut) == [[4, 5, 6, 7], [8, 9]]
