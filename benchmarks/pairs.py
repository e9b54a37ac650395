"""Pairs as long as those that vision-language models are aligned with."""

import numpy as np

from benchmarks.shapes import picture, words
from rlaifv_pl.records import Sample

PROMPT_TOKENS, ANSWER_TOKENS = (20, 60), (60, 200)


def draw_pairs(count: int, seed: int, vocabulary: int) -> list[Sample]:
    """Pairs with prompts of 20 to 60 tokens and answers of 60 to 200, about equally long within a pair."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        size = rng.lognormal(np.log(105), 0.35)
        chosen, rejected = (
            words(
                int(np.clip(size * rng.lognormal(0, 0.2), *ANSWER_TOKENS)),
                int(rng.integers(1 << 30)),
                vocabulary,
            )
            for _ in range(2)
        )
        prompt = words(int(rng.integers(*PROMPT_TOKENS)), int(rng.integers(1 << 30)), vocabulary)
        samples.append(
            Sample(key=f"p{number}", prompt=prompt, images=(picture(rng),), chosen=chosen, rejected=rejected)
        )
    return samples
