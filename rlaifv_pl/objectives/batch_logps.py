"""Log-ps of a batch, token by token and answer by answer."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlaifv_pl.models.logps import group_sums
from rlaifv_pl.models.vlm import Batch


class BatchLogps(NamedTuple):
    """Log-ps of a batch under one model."""

    tokens: Tensor
    """(M,) log-p of each target, nats."""
    sums: Tensor
    """(parts x B,) completion log-ps, nats."""
    counts: Tensor
    """(parts x B,) number of targets."""

    @classmethod
    def of(cls, tokens: Tensor, batch: Batch) -> "BatchLogps":
        """With the sums of (M,) log-ps of the batch's targets."""
        counts = group_sums(torch.ones_like(tokens), batch.group, batch.num_groups)
        return cls(tokens, group_sums(tokens, batch.group, batch.num_groups), counts)
