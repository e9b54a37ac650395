"""The order of an epoch and its cuts: what makes a run resumable anywhere, as plain arithmetic."""

import time
from itertools import pairwise

import numpy as np
import pytest

from rlaifv_pl.data.batching import (
    BLOCK,
    BatchBudget,
    SampleSizes,
    epoch_order,
    group_by_prompt,
    pack_all_batches,
    pack_batches,
    sort_by_length,
)

LENGTHS = [5, 1, 0, 7, 3, 4]
TOTAL = sum(LENGTHS)
CUTS = [(1, 1), (3, 1), (4, 2), (2, 3), (1, 4), (50, 1), (7, 3)]  # batch size, ranks


def shard_of(index: int) -> int:
    return int(np.searchsorted(np.cumsum(LENGTHS), index, side="right"))


def batches(order, size, world, start=0):
    """What all ranks see: for each batch the list of the ranks' shares."""
    return pack_batches(order[start:], world, BatchBudget(size))


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
    assert batches(order, size, world)[0] == [order[:whole][rank::world].tolist() for rank in range(world)]
    if len(expected[-1]) < world:
        expected.pop()  # too few for every rank: all ranks leave them out
    assert seen == expected
    assert all(len(share) >= 1 for batch in batches(order, size, world) for share in batch)


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


# --- prompts that belong together, samples of like length, budgets of tokens --------------------------

RNG = np.random.default_rng(5)
COUNT = 300
SIZES = SampleSizes(RNG.integers(20, 90, COUNT), RNG.integers(0, 120, COUNT), is_padded=False)
ORDER = RNG.permutation(COUNT)


def flat(shares):
    return [number for share in shares for part in share for number in part]


def runs(values):
    """Lengths of stretches of equal values."""
    ends = [i for i in range(1, len(values)) if values[i] != values[i - 1]] + [len(values)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def test_samples_of_a_prompt_stand_where_the_first_of_them_stood():
    order = group_by_prompt(ORDER, SIZES.prompt)
    prompts = SIZES.prompt[order].tolist()
    assert len(runs(prompts)) == len(set(prompts)) and sorted(order) == sorted(ORDER)
    seen = list(dict.fromkeys(SIZES.prompt[ORDER].tolist()))
    assert list(dict.fromkeys(prompts)) == seen
    for prompt in seen:
        own = [number for number in ORDER if SIZES.prompt[number] == prompt]
        assert [number for number in order if SIZES.prompt[number] == prompt] == own


def test_samples_of_like_length_are_neighbours_and_lengths_do_not_drift():
    alone = SIZES._replace(prompt=np.arange(COUNT))
    order = sort_by_length(ORDER, alone, bucket=96, seed=1)
    for first in range(0, COUNT, 96):
        assert sorted(order[first : first + 96]) == sorted(ORDER[first : first + 96])
    blocks = SIZES.tokens[order][:96].reshape(-1, BLOCK)
    assert (
        np.ptp(blocks, axis=1).mean()
        < 0.3 * np.ptp(SIZES.tokens[ORDER][:96].reshape(-1, BLOCK), axis=1).mean()
    )
    means = blocks.mean(1)
    assert (np.diff(means) > 0).any() and (np.diff(means) < 0).any()
    assert (sort_by_length(ORDER, alone, 96, 1) == order).all()
    assert (sort_by_length(ORDER, alone, 96, 2) != order).any()


def test_sorting_by_length_keeps_prompts_together():
    order = sort_by_length(group_by_prompt(ORDER, SIZES.prompt), SIZES, bucket=COUNT, seed=0)
    prompts = SIZES.prompt[order].tolist()
    assert len(runs(prompts)) == len(set(prompts)) and sorted(order) == sorted(ORDER)


@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_a_rank_gets_as_many_tokens_as_it_has_room_for(ranks, is_padded):
    sizes, room = SIZES._replace(prompt=np.arange(COUNT), is_padded=is_padded), BatchBudget(None, 400)
    shares = pack_batches(ORDER, ranks, room, sizes)
    seen = flat(shares)
    assert len(seen) == len(set(seen)) > COUNT - ranks
    loads = [[_load(part, is_padded) for part in share] for share in shares]
    assert all(0 < load <= 400 for share in loads for load in share)
    # The sample behind a batch found no room on any rank.
    place = {number: at for at, number in enumerate(ORDER.tolist())}
    for share, after in pairwise(shares):
        first = min((number for part in after for number in part), key=place.__getitem__)
        assert all(_load([*part, first], is_padded) > 400 for part in share)


def _load(numbers, is_padded):
    tokens = SIZES.tokens[numbers]
    return len(tokens) * tokens.max() if is_padded else tokens.sum()


def test_ranks_get_like_loads():
    shares = pack_batches(ORDER, 4, BatchBudget(None, 2000), SIZES._replace(prompt=np.arange(COUNT)))
    for share in shares[:-1]:
        loads = [SIZES.tokens[part].sum() for part in share]
        assert max(loads) - min(loads) < 90


def test_a_budget_and_a_count_hold_together():
    shares = pack_batches(ORDER, 2, BatchBudget(3, 150), SIZES._replace(prompt=np.arange(COUNT)))
    assert all(len(part) <= 3 and SIZES.tokens[part].sum() <= 150 for share in shares for part in share)
    assert any(len(part) == 3 for share in shares for part in share)
    assert any(len(part) == 1 for share in shares[:-1] for part in share)


def test_pairs_of_a_prompt_go_to_one_rank_while_it_has_room():
    order = group_by_prompt(ORDER, SIZES.prompt)
    shares = pack_batches(order, 3, BatchBudget(8), SIZES)
    assert sorted(flat(shares)) == sorted(ORDER)
    cut = sum(
        len({(at, rank) for at, share in enumerate(shares) for rank, part in enumerate(share)
             if prompt in SIZES.prompt[part]}) - 1
        for prompt in set(SIZES.prompt.tolist())
    )  # fmt: skip
    assert cut <= 4 * len(shares), "only where a batch or a rank's room ends"
    assert all(len(part) <= 8 for share in shares for part in share)


def test_a_prompt_of_many_pairs_leaves_no_rank_without_a_sample():
    sizes = SampleSizes(np.full(6, 10), np.zeros(6, dtype=int), is_padded=False)
    assert pack_batches(np.arange(6), 2, BatchBudget(8), sizes) == [[[0, 2, 4], [1, 3, 5]]]
    assert pack_batches(np.arange(1), 2, BatchBudget(8), sizes) == []


def test_dealing_on_from_any_batch_gives_the_same_batches():
    whole = pack_batches(ORDER, 3, BatchBudget(None, 300), SIZES)
    for done in range(len(whole)):
        start = len(flat(whole[:done]))
        assert pack_batches(ORDER[start:], 3, BatchBudget(None, 300), SIZES) == whole[done:]


# --- dealing, against the obvious twin ----------------------------------------------------------------


def has_room(part, number, room, sizes):
    tokens = [int(sizes.tokens[n]) for n in [*part, number]]
    needed = len(tokens) * max(tokens) if sizes.is_padded else sum(tokens)
    fits = len(tokens) <= (room.samples or COUNT) and needed <= (room.tokens or 10**9)
    return fits or not part


def obvious(order, ranks, room, sizes):
    """Every rank looked at for every sample."""
    dealt, parts, last = [], [[] for _ in range(ranks)], None
    for number in order:
        roomy = [rank for rank in range(ranks) if has_room(parts[rank], number, room, sizes)]
        if not roomy:
            dealt, parts, last = [*dealt, parts], [[] for _ in range(ranks)], None
            roomy = list(range(ranks))
        if last not in roomy or sizes.prompt[parts[last][-1]] != sizes.prompt[number]:
            last = min(roomy, key=lambda rank: sum(sizes.tokens[parts[rank]]))
        parts[last].append(int(number))
    rest = [number for part in parts for number in part]
    if all(parts):
        return [*dealt, parts]
    alone = sizes._replace(prompt=np.arange(len(sizes.prompt)))
    return dealt if len(rest) < ranks else dealt + obvious(rest, ranks, room, alone)


@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize(
    "room", [BatchBudget(3), BatchBudget(8, 300), BatchBudget(None, 120), BatchBudget(1, 50)]
)
@pytest.mark.parametrize("ranks", [1, 2, 7])
def test_dealing_is_what_looking_at_every_rank_gives(ranks, room, is_padded):
    for count in (0, 1, ranks, 41, COUNT):
        order = group_by_prompt(ORDER, SIZES.prompt)[:count]
        sizes = SIZES._replace(is_padded=is_padded)
        assert pack_batches(order, ranks, room, sizes) == obvious(order, ranks, room, sizes)


def test_an_epoch_for_hundreds_of_ranks_is_dealt_in_seconds():
    """Looking at every rank for every sample took a minute of this."""
    count = 400_000
    sizes = SampleSizes(np.arange(count) % 700 + 500, np.arange(count), is_padded=False)
    started = time.process_time()
    pack_batches(np.arange(count), 256, BatchBudget(None, 8192), sizes)
    assert time.process_time() - started < 20


@pytest.mark.parametrize("ranks", [1, 2, 5, 400])
@pytest.mark.parametrize("sizes", [None, SIZES])
def test_every_sample_of_an_epoch_is_dealt_once(ranks, sizes):
    """What is too little for all ranks is a batch in which some have none."""
    dealt = pack_all_batches(ORDER[:101], ranks, BatchBudget(8), sizes)
    assert sorted(flat(dealt)) == sorted(ORDER[:101])
    shared = pack_batches(ORDER[:101], ranks, BatchBudget(8), sizes)
    assert dealt[: len(shared)] == shared and len(dealt) - len(shared) <= 1
    assert all(len(parts) == ranks for parts in dealt)


def test_samples_that_cannot_be_used_have_no_token_and_go_to_all_ranks():
    dealt = pack_batches(
        np.arange(6),
        2,
        BatchBudget(None, 100),
        SampleSizes(np.zeros(6, dtype=int), np.arange(6), is_padded=False),
    )
    assert dealt == [[[0, 2, 4], [1, 3, 5]]]
