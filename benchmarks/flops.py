"""Matrix products of a pair of DPO on LLaVA-1.5, counted: the arithmetic that a share of a GPU's peak refers to.

Two FLOPs a multiply-add, a backward pass is two forward passes (one where weights are frozen), causal scores are
counted once, and what checkpointing computes again does not count: model FLOPs as in Chowdhery et al. 2022 (PaLM,
arXiv:2204.02311, appendix B), which an MFU is of.
"""

from typing import NamedTuple

from transformers import LlavaConfig

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Dense bfloat16 FLOPs a second of NVIDIA's data sheets (SXM), by a part of the device's name."""


class Lengths(NamedTuple):
    """Tokens of a pair."""

    prompt: int
    """With its image."""
    chosen: int
    rejected: int


def step_flops(
    config: LlavaConfig, pair: Lengths, *, shared: bool, reference: bool, lora: bool, tower: bool = True
) -> float:
    """Forward and backward of a pair.

    Args:
        config: of the model.
        pair: its lengths.
        shared: the prompt passes the language model once, and not with each answer.
        reference: its forward pass is part of the step.
        lora: adapters train, so that gradients of the weights are not needed; their own products are left out.
        tower: the frozen vision tower is run, once.
    """
    text = config.text_config
    # The last token of an answer predicts nothing.
    answers = (pair.chosen - 1, pair.rejected - 1)
    # Stretches of tokens, and how many more than themselves they see.
    stretches = [(pair.prompt, 0), *((answer, pair.prompt) for answer in answers)]
    if not shared:
        stretches = [(pair.prompt + answer, 0) for answer in answers]
    linear = 2 * _layer_weights(config) * text.num_hidden_layers * sum(own for own, _ in stretches)
    # A product for the score and one for the value, of queries and keys of the model's width.
    scores = sum(4 * own * (before + own / 2) for own, before in stretches)
    scores *= text.hidden_size * text.num_hidden_layers
    head = 2 * text.hidden_size * text.vocab_size * (pair.chosen + pair.rejected)
    # Forward, gradients of what came in, gradients of weights.
    weighted, projected = (2, 1) if lora else (3, 3)
    total = (weighted + reference) * (linear + head) + (3 + reference) * scores
    return total + (projected + reference) * _projector_flops(config) + tower * tower_flops(config)


def floor_flops(config: LlavaConfig, pair: Lengths, lora: bool) -> float:
    """The least that a pair takes: what answers share once, reference and tower computed beforehand."""
    return step_flops(config, pair, shared=True, reference=False, lora=lora, tower=False)


def tower_flops(config: LlavaConfig) -> float:
    """A forward pass of the vision tower over an image."""
    vision = config.vision_config
    width, patches = vision.hidden_size, (vision.image_size // vision.patch_size) ** 2
    tokens = patches + 1
    weights = 4 * width * width + 2 * width * vision.intermediate_size
    layers = vision.num_hidden_layers * (2 * weights * tokens + 4 * width * tokens**2)
    return layers + 2 * 3 * vision.patch_size**2 * width * patches


def peak(device: str) -> float | None:
    """Dense bfloat16 FLOPs a second of a device of that name; None if it is not known."""
    return next((flops for part, flops in PEAKS.items() if part in device), None)


def _layer_weights(config: LlavaConfig) -> int:
    text = config.text_config
    return 4 * text.hidden_size**2 + 3 * text.hidden_size * text.intermediate_size


def _projector_flops(config: LlavaConfig) -> float:
    vision, width = config.vision_config, config.text_config.hidden_size
    return 2 * (vision.hidden_size * width + width * width) * (vision.image_size // vision.patch_size) ** 2
