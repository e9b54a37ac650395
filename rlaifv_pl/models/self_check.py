"""Comparison of log-ps over shared prefixes with those of plain rows: mistakes in masks or positions are silent."""

import math

import torch

from rlaifv_pl.models.attention import rounding_dtype
from rlaifv_pl.models.policy import unwrap_model
from rlaifv_pl.models.vlm import VLM, Batch

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.1}
"""Allowed difference by type, in nats, as the mean over an answer's tokens. At least ten times the rounding of tiny
models of all families; mistakes in masks and positions move log-ps by 0.2 and more."""


@torch.no_grad()
def tree_error(policy: VLM, batch: Batch) -> tuple[float, float]:
    """Measure how far log-ps of the batch's trees are from those of its plain rows.

    Returns:
        the largest mean over the tokens of an answer (NaN where no plain row gives a finite number, so that nothing can
        be compared), and the tolerance of the type, in nats.
    """
    training = policy.training
    policy.eval()  # Dropout would differ between the two; and no random number is drawn.
    try:
        tree, rows = policy(batch), policy(batch.as_rows())
    finally:
        policy.train(training)
    tolerance = TOLERANCE[rounding_dtype(unwrap_model(policy.model), policy.compute)]
    sound = rows.isfinite()
    if not sound.any():
        return math.nan, tolerance
    difference = (tree - rows).abs().nan_to_num(nan=math.inf).where(sound, 0)
    counts = batch.sum_by_sequence(sound.to(rows.dtype))
    means = batch.sum_by_sequence(difference) / counts.clamp(min=1)
    return means.max().item(), tolerance
