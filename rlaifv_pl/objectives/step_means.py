"""Means over the samples or targets of a step, however it is divided into batches and processes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from rlaifv_pl.data.loader import sum_over_ranks
from rlaifv_pl.models.logps import sum_type
from rlaifv_pl.models.vlm import Batch

SAMPLES, TARGETS = slice(0, 1), slice(1, None)
"""Entries of `Batch.counts` that a mean is over."""


_LOSS = "loss "
"""Prefix of the names of losses among logged figures."""


def targets_of(part: int) -> slice:
    """Return the entry of `Batch.counts` for the targets of one scored part."""
    return slice(1 + part, 2 + part)


class PartialMean(NamedTuple):
    """A batch's contribution to a mean."""

    total: Tensor
    """Sum over the batch's samples or targets."""
    over: slice
    """Entries of the counts whose sum it is divided by."""

    def by(self, counts: Tensor) -> Tensor:
        """Divide by the counts; 0 where nothing was counted."""
        return self.total / counts[self.over].sum().clamp(min=1)

    def times(self, factor: float) -> "PartialMean":
        """Return the contribution multiplied by a factor."""
        return PartialMean(self.total * factor, self.over)


class LossOutput(NamedTuple):
    """An objective's contributions of one batch to the loss and the figures of its step."""

    losses: Sequence[PartialMean]
    """Means whose sum is trained on; only they have gradients."""
    logged: Mapping[str, PartialMean]
    counts: Tensor
    """(1 + parts,) samples, and targets of each part, in the whole step."""

    @property
    def loss(self) -> Tensor:
        """Contribution to the step's loss."""
        return torch.stack([mean.by(self.counts) for mean in self.losses]).sum()

    @property
    def metrics(self) -> dict[str, Tensor]:
        """Contribution to each figure of the step."""
        return {name: mean.by(self.counts) for name, mean in self.logged.items()}

    def without_weight(self) -> "LossOutput":
        """Return the output with weight 0."""
        logged = {name: mean.times(0.0) for name, mean in self.logged.items()}
        return self._replace(losses=[mean.times(0.0) for mean in self.losses], logged=logged)


class RunningMeans:
    """Accumulates figures of a step, or of a pass over validation data."""

    def __init__(self) -> None:
        self._means: dict[str, PartialMean] = {}
        self._counts: Tensor | None = None

    @torch.no_grad()
    def add(self, step: LossOutput, counts: Tensor) -> None:
        """Add a batch with its own counts."""
        named = {**step.logged, **{f"{_LOSS}{number}": mean for number, mean in enumerate(step.losses)}}
        wide = sum_type(counts.device)
        for name, (total, over) in named.items():
            before = self._means[name].total if name in self._means else 0.0
            self._means[name] = PartialMean(before + total.detach().to(wide), over)
        self._counts = counts if self._counts is None else self._counts + counts

    def take(self, trainer: Trainer) -> dict[str, Tensor]:
        """Return the figures of all processes, `loss` among them, and reset; NaN without samples.

        All processes call it together.
        """
        if self._counts is None:
            return {}
        sums = torch.stack([mean.total for mean in self._means.values()])
        sums = sum_over_ranks(torch.cat([sums, self._counts.to(sums)]), trainer)
        counts = sums[len(self._means) :]
        nan_if_empty = torch.where(counts[0] > 0, 0.0, torch.nan)
        figures = {
            name: (PartialMean(sums[place], mean.over).by(counts) + nan_if_empty).float()
            for place, (name, mean) in enumerate(self._means.items())
        }
        self._means = {
            name: PartialMean(torch.zeros_like(mean.total), mean.over) for name, mean in self._means.items()
        }
        self._counts = torch.zeros_like(self._counts)
        losses = [figures.pop(name) for name in list(figures) if name.startswith(_LOSS)]
        return {**figures, "loss": torch.stack(losses).sum()}


def counts_of(batch: Batch) -> Tensor:
    """(1 + parts,) counts of the batch's step, or its own counts for a batch by itself."""
    return batch.counts if batch.accounting.step_counts is None else batch.accounting.step_counts
