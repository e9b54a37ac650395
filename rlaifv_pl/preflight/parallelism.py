"""How a config spreads a model over devices, and in which types it computes."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy

from rlaifv_pl.lightning_compat import get_ddp_option
from rlaifv_pl.objectives.checks import SLICED, RunError
from rlaifv_pl.preflight.machine import Machine
from rlaifv_pl.training.fsdp import FSDP2Strategy

MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
CAST = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}


@dataclass(frozen=True)
class Parallelism:
    """What a device holds of the model, and computes it in."""

    together: int = 1
    """Devices that share one copy; 1 where each has its own."""
    compute: torch.dtype | None = None
    """Type in which slices are gathered, if it is another than theirs."""
    mixed: torch.dtype | None = None
    """Type of autocast."""
    cast: torch.dtype | None = None
    """Type that the strategy casts the model to."""
    has_buckets: bool = False
    """Whether gradients are held once more, in buckets that processes exchange."""

    def autocast(self) -> AbstractContextManager:
        """As the run computes a step."""
        return torch.autocast("cpu", self.mixed) if self.mixed else nullcontext()


def parallelism_of(trainer: Any, machine: Machine) -> Parallelism:
    """As the trainer's options say.

    Raises:
        RunError: the strategy is not supported, or copies do not come out even.
    """
    strategy, precision = trainer["strategy"], str(trainer["precision"] or "32-true")
    mixed, cast = MIXED.get(precision), CAST.get(precision)
    if isinstance(strategy, FSDP2Strategy):
        together = strategy.devices_per_copy or machine.world
        if machine.world % together:
            raise RunError(
                f"trainer.strategy.devices_per_copy is {together}, expected a divisor of the number of processes, "
                f"{machine.world}"
            )
        return Parallelism(together, strategy.compute, mixed, cast)
    if isinstance(strategy, SLICED) or str(strategy).startswith(("fsdp", "deepspeed")):
        raise RunError(
            f"trainer.strategy is {strategy if isinstance(strategy, str) else type(strategy).__name__}, which is not "
            "supported. Set rlaifv_pl.training.fsdp.FSDP2Strategy instead (--config machine/fsdp)."
        )
    is_view = isinstance(strategy, DDPStrategy) and bool(get_ddp_option(strategy, "gradient_as_bucket_view"))
    return Parallelism(mixed=mixed, cast=cast, has_buckets=machine.world > 1 and not is_view)
