"""Muon for the matrices inside layers and AdamW for the rest, as one optimiser.

A fresh model of this size learns to tell shapes apart with Muon and does not, in the same time, with
AdamW. Only torch's own two optimisers work here; this class shares their state with the checkpoint.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class MuonAdamW(torch.optim.Optimizer):
    """Two of torch's optimisers over one list of parameter groups.

    Args:
        params: (name, parameter) pairs; matrices below a `.layers.` go to Muon.
        lr: of AdamW.
        muon_lr: of Muon (Jordan et al. 2024).
        weight_decay: of both.
    """

    def __init__(
        self,
        params: Iterable[tuple[str, nn.Parameter]],
        lr: float = 1e-3,
        muon_lr: float = 2e-2,
        weight_decay: float = 0.01,
    ) -> None:
        named = list(params)
        inner = [pair for pair in named if ".layers." in pair[0] and pair[1].ndim == 2]
        outer = [pair for pair in named if ".layers." not in pair[0] or pair[1].ndim != 2]
        self._parts = (
            torch.optim.Muon(inner, lr=muon_lr, weight_decay=weight_decay),
            torch.optim.AdamW(outer, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay),
        )
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all parameters."""
        loss = closure and torch.enable_grad()(closure)()
        for part, group in zip(self._parts, self.param_groups, strict=True):
            # Loading a checkpoint replaces both, so they are handed over at every step.
            part.param_groups, part.state = [group], self.state
            part.step()
        return loss
