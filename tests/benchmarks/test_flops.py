"""The arithmetic agrees with torch's own counter, and a 7B comes to what is said of it."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlavaForConditionalGeneration

from benchmarks.flops import Lengths, floor_flops, peak, step_flops, tower_flops
from benchmarks.shapes import SHAPES, make_config, make_processor


@pytest.fixture(scope="module")
def config():
    return make_config(SHAPES["toy"], make_processor(SHAPES["toy"]))


def _counted(config, prompt, answer):
    """Of a forward pass over a prompt with an image and an answer but for its last token."""
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    ids = torch.full((1, prompt + answer - 1), 20)
    ids[0, 1:577] = config.image_token_index
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=ids, pixel_values=torch.zeros(1, 3, 336, 336), logits_to_keep=answer, use_cache=False)
    found = {name.split(".", 1)[-1]: counts for name, counts in counter.get_flop_counts().items()}
    scores = sum(
        found["model.language_model"].get(op, 0) for op in (torch.ops.aten.bmm, torch.ops.aten.baddbmm)
    )
    tower = sum(found["model.vision_tower"].values())
    return counter.get_total_flops() - tower, scores, tower


def test_a_forward_is_what_torch_counts(config):
    pair = Lengths(600, 40, 70)
    first, second = (_counted(config, pair.prompt, answer) for answer in pair[1:])
    assert tower_flops(config) == pytest.approx(first[2], rel=2e-3)
    projector = 2 * (32 * 32 + 32 * 32) * 576
    # Causal scores are half of all, and an image is projected once for both answers.
    counted = first[0] + second[0] - (first[1] + second[1]) / 2 - projector
    options = {"shared": False, "lora": False, "tower": False}
    without, with_reference = (
        step_flops(config, pair, reference=known, **options) for known in (False, True)
    )
    assert with_reference - without == pytest.approx(counted, rel=2e-3)
    # A backward pass is two forward passes, and one where weights are frozen (the projector's is none then).
    assert without == pytest.approx(3 * counted, rel=2e-3)
    rest = step_flops(config, pair, shared=False, reference=False, lora=True, tower=False)
    scores = (first[1] + second[1]) / 2
    assert rest == pytest.approx(2 * (counted - scores - projector) + 3 * scores + projector, rel=2e-3)


def test_sharing_leaves_out_one_prompt(config):
    pair = Lengths(600, 40, 70)
    rows, trees = (
        step_flops(config, pair, shared=shared, reference=True, lora=False) for shared in (False, True)
    )
    per_token = 2 * (4 * 32**2 + 3 * 32 * config.text_config.intermediate_size)
    scores = 4 * 32 * 600**2 / 2
    assert rows - trees == pytest.approx(4 * (per_token * 600 + scores))


def test_a_7b_takes_33_tflop_a_pair_at_least():
    config = make_config(SHAPES["7b"], make_processor(SHAPES["7b"]))
    pair = Lengths(614, 112, 112)
    assert floor_flops(config, pair, lora=False) == pytest.approx(33.3e12, rel=5e-3)
    assert step_flops(config, pair, shared=True, reference=True, lora=False) == pytest.approx(
        44.7e12, rel=5e-3
    )
    assert tower_flops(config) == pytest.approx(0.38e12, rel=0.01)
    assert peak("NVIDIA H100 80GB HBM3") == 989e12 and peak("CPU") is None
