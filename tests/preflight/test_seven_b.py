"""LLaVA-1.5-7B by its config alone, against what is known of it."""

import pytest
import torch
import transformers as tf

from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.preflight.memory import Situation, memory_of
from rlaifv_pl.preflight.parallelism import Parallelism
from tests import family_models
from tests.preflight.test_shapes import dpo
from tests.training.tiny import write_pairs

VISION = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
LANGUAGE = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32064,
}  # fmt: skip
TOWER, PROJECTOR = 303_507_456, 20_979_712
"""Weights of the public checkpoint."""
MIXED = Parallelism(mixed=torch.bfloat16)


@pytest.fixture(scope="module")
def seven_b(tmp_path_factory):
    """config.json and a processor with 576 image tokens, and no weights."""
    place = tmp_path_factory.mktemp("seven") / "b"
    _, small = family_models.llava()
    image = tf.CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    tf.LlavaProcessor(
        image, small.tokenizer, patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=small.chat_template,
    ).save_pretrained(place)  # fmt: skip
    tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**VISION), text_config=tf.LlamaConfig(**LANGUAGE),
        image_token_index=small.tokenizer.image_token_id, image_seq_length=576,
    ).save_pretrained(place)  # fmt: skip
    return place


@pytest.fixture(scope="module")
def pair(seven_b, tmp_path_factory):
    samples = load_shards([write_pairs(tmp_path_factory.mktemp("pairs") / "shards", 1)])
    return dpo(seven_b, reference="cached").collator("raise")([samples[0]])


def situation(pair, spread=MIXED) -> Situation:
    return Situation(pair, spread, is_cuda=True, accumulates=True)


def test_full_fine_tuning_holds_sixteen_bytes_a_weight(seven_b, pair):
    memory = memory_of(dpo(seven_b, reference="cached"), situation(pair))
    trained = PROJECTOR + _language()
    assert memory.steady["weights"] == pytest.approx(4 * (trained + TOWER), rel=1e-4)
    assert memory.steady["gradients"] == 4 * trained
    assert memory.steady["optimiser"] == pytest.approx(8 * trained, rel=1e-6)
    held = sum(memory.steady.values()) - memory.steady["weights"] + 4 * trained
    assert held == pytest.approx(16 * trained, rel=1e-6)
    # foreach: one more copy while the optimiser steps.
    assert memory.passing["optimiser's step"] == 4 * trained


def _language() -> int:
    """Weights of the language model, by hand."""
    width, inner, vocabulary = 4096, 11008, 32064
    layer = 4 * width * width + 3 * width * inner + 2 * width
    return 32 * layer + width + 2 * vocabulary * width


def test_checkpointing_keeps_the_layers_inputs_and_little_else(seven_b, pair):
    """By hand, a layer's activations under bf16 autocast: what checkpointing saves is at least queries, keys, values,
    attended (8 bytes a column and feature) and gate, up and their product (6), and at most four times that."""
    kept, again = (
        memory_of(dpo(seven_b, reference="cached", checkpointing=on), situation(pair)).passing["activations"]
        for on in (False, True)
    )
    columns = sum(branch.stop - branch.start for branch in pair.layout.branches)
    least = 32 * columns * (4096 * 8 + 11008 * 6)
    assert least < kept - again < 4 * least


def test_slices_divide_what_is_held(seven_b, pair):
    whole = memory_of(dpo(seven_b, reference="live"), situation(pair))
    spread = Parallelism(together=8, compute=torch.bfloat16)
    sliced = memory_of(dpo(seven_b, reference="live"), situation(pair, spread))
    assert sliced.steady == {name: -(-size // 8) for name, size in whole.steady.items()}
    # The tower is shared; buffers are not.
    assert whole.steady["reference"] == pytest.approx(whole.steady["gradients"], rel=1e-5)
    assert sliced.total < 30e9 < 140e9 < whole.total
