"""Losses, and the Lightning modules that minimise them.

Reading order: losses (pure functions), terms (losses with options), step_means (means over a step, however it is cut),
lr_schedule, cached_reference, cached_vision (a frozen tower that runs once), checks (at the start and at the first
batch), empty_batch_guard (a batch for every process), dropped_samples (counts of kept and dropped samples), base
(shared by all objectives), then `dpo`, `nsft`, `sft`.
"""

from rlaifv_pl.objectives.dpo import DPOModule
from rlaifv_pl.objectives.nsft import NSFTModule
from rlaifv_pl.objectives.sft import SFTModule

__all__ = ["DPOModule", "NSFTModule", "SFTModule"]
