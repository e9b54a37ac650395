"""Drawing tokens so that what is drawn does not depend on who shares the batch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor


class SeededSampling(LogitsProcessor):
    """Draws each row's next token with the row's own generator and forbids all others.

    The Gumbel trick: argmax of log-p plus Gumbel noise is a draw from the softmax.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.stack([torch.rand(scores.shape[1], generator=source) for source in self.generators])
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7))).to(scores.device)
        drawn = (scores.float() / self.temperature + noise).argmax(-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)
