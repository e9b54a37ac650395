"""Counted FLOPs against torch's own counter of what is multiplied, and scores against the masks themselves."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rlaifv_pl.data.collate import Collator
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.flops import Extents, FlopCount, FlopMeter, extents
from rlaifv_pl.models.policy import LoRA, PolicySpec, load_model, load_processor
from rlaifv_pl.models.reference import Reference
from rlaifv_pl.models.vlm import VLM, Batch
from rlaifv_pl.records import Sample
from tests.families import FAMILIES
from tests.models.plain import PAIRS
from tests.models.test_prefix_tree import ALIKE, SAMPLES
from tests.models.test_vlm import sides

SETTINGS = {
    "full": {},
    "adapters": {"lora": LoRA(rank=2, dropout=0.0)},
    "tower": {"freeze_vision": False},
    "upper": {},
}


def load(path: Path, attention: str = "split", **changes: Any) -> VLM:
    return VLM(load_model(PolicySpec(path=str(path), **changes)), attention).train()


def batch_of(path: Path, samples: Sequence[Sample]) -> Batch:
    return Collator(Chat(load_processor(PolicySpec(path=str(path)))), sides, parts=2)(samples)


@contextmanager
def counting() -> Iterator[Counter]:
    """FLOPs of what runs inside: `linear` as torch counts them, `scores` of what the masks let through."""
    found, attend = Counter(), nn.functional.scaled_dot_product_attention

    def watched(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options):
        seen = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool)
        seen = seen.tril() if options.get("is_causal") else seen if attn_mask is None else attn_mask
        output = attend(query, key, value, attn_mask, **options)
        of_a_pair = 4 * query.shape[1] * query.shape[-1] * (3 if output.requires_grad else 1)
        found["scores"] += of_a_pair * seen.expand(len(query), 1, *seen.shape[-2:]).sum().item()
        found["rectangles"] += of_a_pair * len(query) * query.shape[-2] * key.shape[-2]
        return output

    nn.functional.scaled_dot_product_attention = watched
    try:
        # In their mathematical form, scores are products that torch counts on a CPU too: of whole rectangles.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            yield found
    finally:
        nn.functional.scaled_dot_product_attention = attend
    rotary = sum(
        sum(by_operator.values())
        for module, by_operator in counter.get_flop_counts().items()
        if module.endswith("rotary_emb")
    )
    found["linear"] = counter.get_total_flops() - found["rectangles"] - rotary


def counted(policy: VLM, batch: Batch, reference: Reference | None = None) -> tuple[FlopCount, Counter]:
    """What the meter says of a step, and what torch counts."""
    meter = FlopMeter(policy)
    with counting() as found:
        with reference.capture_vision_features() if reference else nullcontext():
            logps = policy(batch)
        if reference:
            reference.token_logps(batch)
        logps.sum().backward()
    # Logits are computed again where they would have to be kept.
    found["linear"] -= 2 * len(batch.tokens.labels) * policy.model.get_output_embeddings().weight.numel()
    return meter.read(batch, reference is not None), found


def scores(work: FlopCount) -> int:
    language = sum(cost * work.extents.pairs(window) for window, cost in work.per_pair.items())
    return language + sum(int(pairs) * cost for pairs, cost in work.towers)


def unseen(family: str, setting: str) -> tuple[int, int]:
    """What is known to be counted otherwise: torch's linear FLOPs minus ours, and the same of scores."""
    if family == "gemma3":
        # 4 images of 4 tokens come out of a bare 32 x 32 matrix, and their tokens see 6 pairs more than causal ones.
        times = {"full": (3, 6), "tower": (3, 6), "adapters": (1, 6), "upper": (1, 4)}[setting]
        return 4 * 4 * 2 * 32 * 32 * times[0], 4 * 6 * 4 * 32 * times[1]
    if setting == "tower" and family in (tiles := {"llava": 4, "llava_next": 14}):
        # No gradient comes back to the tower's last layer, 8192 weights on 5 patches that see one another.
        return -tiles[family] * (5 * 8192 * 2 + 5 * 5 * 4 * 32) * 2, 0
    return 0, 0


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_of_any_family_is_what_torch_counts(family: str, setting: str, family_dir: Callable):
    """Forward and backward, to the last product."""
    path = family_dir(family)
    policy, batch = load(path, **SETTINGS[setting]), batch_of(path, SAMPLES)
    if setting == "upper":
        policy.requires_grad_(False).model.get_decoder().layers[1].requires_grad_(True)
    work, found = counted(policy, batch)
    own = scores(work)
    assert (found["linear"] - (work.flops - own), found["scores"] - own) == unseen(family, setting)
    assert own > 0.04 * work.flops


@pytest.mark.parametrize("setting", ["full", "adapters", "tower"])
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_a_reference_adds_a_forward_without_a_second_pass_of_a_frozen_tower(
    family: str, setting: str, family_dir: Callable
):
    path = family_dir(family)
    policy, batch = load(path, **SETTINGS[setting]), batch_of(path, SAMPLES)
    alone, _ = counted(policy, batch)
    reference = Reference(policy, "adapter_off" if setting == "adapters" else "live")
    work, found = counted(policy, batch, reference)
    own = scores(work)
    assert (found["linear"] - (work.flops - own), found["scores"] - own) == unseen(family, setting)
    assert work.flops > 1.2 * alone.flops


def test_the_forward_alone_is_a_third_of_what_trains(family_dir: Callable):
    """But for the tower, which is frozen, and the gradient that the projector's input does not need."""
    path = family_dir("llava")
    policy, batch = load(path), batch_of(path, SAMPLES)
    work, _ = counted(policy, batch)
    with torch.no_grad(), counting() as found:
        policy(batch)
    tower = 4 * (2 * 4 * 3 * 14 * 14 * 32 + 2 * 5 * 2 * 8192 + 2 * 5 * 5 * 4 * 32)
    projected = 2 * 4 * 4 * 32 * 32
    assert 3 * (found["linear"] + found["scores"] - tower) + tower - projected == work.flops


def test_activations_computed_again_do_not_count(family_dir: Callable):
    path = family_dir("llava")
    batch = batch_of(path, SAMPLES)
    (plain, once), (saving, twice) = (
        counted(load(path, gradient_checkpointing=on), batch) for on in (False, True)
    )
    assert saving.flops == plain.flops
    assert twice["linear"] > 1.05 * once["linear"]


def test_forwards_without_gradients_do_not_matter(family_dir: Callable):
    path = family_dir("llava")
    policy, batch, other = load(path), batch_of(path, SAMPLES), batch_of(path, [ALIKE])
    expected = counted(policy, batch)[0].flops
    meter = FlopMeter(policy)
    policy(batch)
    with torch.no_grad():
        policy(other)
    assert meter.read(batch, False).flops == expected


@pytest.mark.parametrize("family", ["llava", "gemma3", "qwen3_vl"])
def test_padding_does_not_count(family: str, family_dir: Callable):
    """A batch costs what its samples cost, and a mask over padded lines what paths cost."""
    path = family_dir(family)
    batch, singles = batch_of(path, SAMPLES), [batch_of(path, [sample]) for sample in SAMPLES]
    split = load(path)
    whole = counted(split, batch)[0]
    assert whole.flops == sum(counted(split, single)[0].flops for single in singles)
    dense = counted(load(path, "dense"), batch)[0]
    assert dense.flops == whole.flops and dense.extents.cells > whole.extents.cells == whole.extents.tokens
    rows = load(path, "rows")
    assert counted(rows, batch)[0].flops == sum(counted(rows, single)[0].flops for single in singles)


def test_rows_and_trees_by_hand(family_dir: Callable):
    """Against the token ids themselves, for rows that share no images too."""
    path = family_dir("llava")
    policy, batch = load(path), batch_of(path, PAIRS)
    rows = [
        ids[mask.bool()].tolist()
        for ids, mask in zip(batch.tokens.rows["input_ids"], batch.tokens.rows["attention_mask"], strict=True)
    ]
    lengths = [len(row) for row in rows]
    shared = [
        next(at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
        for one, two in zip(rows[:2], rows[2:], strict=True)
    ]
    tree, plain = extents(policy, batch), extents(policy, batch.as_rows())
    assert (plain.tokens, plain.cells) == (sum(lengths), 4 * max(lengths))
    assert plain.pairs() == sum(n * (n + 1) // 2 for n in lengths)
    assert tree.tokens == tree.cells == sum(lengths) - sum(shared)
    assert plain.pairs() - tree.pairs() == sum(n * (n + 1) // 2 for n in shared)
    policy.attention = "dense"
    of_samples = [lengths[0] + lengths[2] - shared[0], lengths[1] + lengths[3] - shared[1]]
    assert extents(policy, batch).cells == 2 * max(of_samples)


@pytest.mark.parametrize("window", [1, 3, 100, None])
def test_windows_are_counted_pair_by_pair(window: int | None):
    start, stop = [0, 4, 2, 7], [5, 9, 2, 8]
    pairs = sum(min(at + 1, window or at + 1) for a, b in zip(start, stop, strict=True) for at in range(a, b))
    assert Extents(torch.tensor(start), torch.tensor(stop), 0).pairs(window) == pairs
