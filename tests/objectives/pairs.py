"""Pairs of completion log-ps to try the losses on."""

import torch

from rlaifv_pl.objectives.losses import PairLogps
from rlaifv_pl.objectives.terms import (
    BCO,
    CPO,
    DPOP,
    IPO,
    NCA,
    NLL,
    ORPO,
    APOZero,
    Hinge,
    IPOMean,
    NLLSum,
    Robust,
    Sigmoid,
    SigmoidMean,
    SimPO,
)

EVERY_TERM = [
    Sigmoid, SigmoidMean, Robust, Hinge, IPO, IPOMean, DPOP, BCO, APOZero, NCA, SimPO, CPO, ORPO, NLL, NLLSum,
]  # fmt: skip


def pair(chosen: float, rejected: float, dtype: torch.dtype = torch.float64) -> PairLogps:
    """One pair of completions of 10 and 8 tokens."""
    return PairLogps(*torch.tensor([[chosen], [rejected], [10], [8]], dtype=dtype))


def random_pairs(num_pairs: int = 16, seed: int = 0) -> PairLogps:
    """Pairs of random log-ps, about -2 nats per token, over 1 to 30 tokens; float64."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 31, (2, num_pairs), generator=generator)
    means = -4 * torch.rand(2, num_pairs, generator=generator, dtype=torch.float64)
    return PairLogps(*(means * tokens), *tokens)


def neighbour(pairs: PairLogps, seed: int = 1) -> PairLogps:
    """Log-ps of the same completions under a model that is a few nats away."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, len(pairs.chosen), generator=generator, dtype=torch.float64)
    return pairs._replace(chosen=pairs.chosen + noise[0], rejected=pairs.rejected + noise[1])


def swapped(pairs: PairLogps) -> PairLogps:
    return PairLogps(pairs.rejected, pairs.chosen, pairs.rejected_tokens, pairs.chosen_tokens)


# a_c = -20 + 21 = 1 and a_r = -24 + 23 = -1, so d = 2
POLICY, REFERENCE = pair(-20, -24), pair(-21, -23)
CHOSEN_FELL = pair(-22, -24)
