"""What is minimised. Reading order: schedule, losses (pure functions), terms (losses with options),
compose (terms into one objective), scored (log-ps of a batch), means (over a step, however it is cut), cached (a
reference of which only log-ps are kept) and tower (a frozen one that runs once), checks (at the start and at the first
batch), in_step (a batch for each process), tally (what was kept and left out), base (what all objectives share), then
`dpo`, `nsft`, `sft`."""

from rlaifv_pl.objectives.dpo import DPOModule
from rlaifv_pl.objectives.nsft import NSFTModule
from rlaifv_pl.objectives.sft import SFTModule

__all__ = ["DPOModule", "NSFTModule", "SFTModule"]
