"""Means over the samples or targets of a step, however it is cut into batches and dealt to processes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from rlaifv_pl.data.loader import summed
from rlaifv_pl.models.logps import sum_type
from rlaifv_pl.models.vlm import Batch

SAMPLES, TARGETS = slice(0, 1), slice(1, None)
"""What of `Batch.counts` a mean is over."""


LOSS = "loss "
"""What the names of a loss's parts begin with, among figures that are logged by other names."""


def targets_of(part: int) -> slice:
    """The targets of one scored part, among `Batch.counts`."""
    return slice(1 + part, 2 + part)


class PartialMean(NamedTuple):
    """A batch's part of a mean."""

    total: Tensor
    """Sum over what the batch has."""
    over: slice
    """Which of the counts it is divided by."""

    def by(self, counts: Tensor) -> Tensor:
        """What the batch adds to the mean over everything that was counted; 0 where nothing was."""
        return self.total / counts[self.over].sum().clamp(min=1)

    def times(self, factor: float) -> "PartialMean":
        """The same, weighted."""
        return PartialMean(self.total * factor, self.over)


class LossOutput(NamedTuple):
    """What an objective makes of a batch: parts of means over the step that it belongs to. They add up to the means."""

    losses: Sequence[PartialMean]
    """Whose sum is trained on: the only things with a gradient."""
    logged: Mapping[str, PartialMean]
    counts: Tensor
    """(1 + parts,) samples, and targets of each part, in the whole step."""

    @property
    def loss(self) -> Tensor:
        """What the batch adds to the step's loss."""
        return torch.stack([mean.by(self.counts) for mean in self.losses]).sum()

    @property
    def metrics(self) -> dict[str, Tensor]:
        """What the batch adds to each figure of the step."""
        return {name: mean.by(self.counts) for name, mean in self.logged.items()}

    def without_weight(self) -> "LossOutput":
        """The same, counting for nothing."""
        logged = {name: mean.times(0.0) for name, mean in self.logged.items()}
        return self._replace(losses=[mean.times(0.0) for mean in self.losses], logged=logged)


class RunningMeans:
    """Figures of a step, or of a pass over validation data, from those of its batches."""

    def __init__(self) -> None:
        self._means: dict[str, PartialMean] = {}
        self._counts: Tensor | None = None

    @torch.no_grad()
    def add(self, step: LossOutput, counts: Tensor) -> None:
        """Take in a batch with these counts of its own."""
        named = {**step.logged, **{f"{LOSS}{number}": mean for number, mean in enumerate(step.losses)}}
        wide = sum_type(counts.device)
        for name, (total, over) in named.items():
            before = self._means[name].total if name in self._means else 0.0
            self._means[name] = PartialMean(before + total.detach().to(wide), over)
        self._counts = counts if self._counts is None else self._counts + counts

    def take(self, trainer: Trainer) -> dict[str, Tensor]:
        """The figures of all processes so far, `loss` among them, and begin anew; NaN where no sample was.

        All processes call it together.
        """
        if self._counts is None:
            return {}
        sums = torch.stack([mean.total for mean in self._means.values()])
        sums = summed(torch.cat([sums, self._counts.to(sums)]), trainer)
        counts = sums[len(self._means) :]
        nothing = torch.where(counts[0] > 0, 0.0, torch.nan)
        found = {
            name: (PartialMean(sums[place], mean.over).by(counts) + nothing).float()
            for place, (name, mean) in enumerate(self._means.items())
        }
        self._means = {
            name: PartialMean(torch.zeros_like(mean.total), mean.over) for name, mean in self._means.items()
        }
        self._counts = torch.zeros_like(self._counts)
        losses = [found.pop(name) for name in list(found) if name.startswith(LOSS)]
        return {**found, "loss": torch.stack(losses).sum()}


def counts_of(batch: Batch) -> Tensor:
    """(1 + parts,) what a batch's sums are divided by: the counts of its step, or its own if it is by itself."""
    return batch.counts if batch.accounting.step_counts is None else batch.accounting.step_counts
