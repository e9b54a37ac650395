"""What a run says on the screen: what trains, and what was left out."""

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from rlaifv_pl.models.policy import parameter_table
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.objectives.tally import Tally


class Tell(Callback):
    """Prints which parameters train, and how many samples were left out and why."""

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        table = Table(
            "part",
            "parameters",
            "trainable",
            title=f"{type(pl_module).__name__}: {pl_module.policy_spec.path}",
        )
        for part, total, trainable in parameter_table(pl_module.policy.model):
            table.add_row(part, f"{total:,}", f"{trainable:,}" if trainable else "frozen")
        Console(stderr=True).print(table)
        if reason := pl_module.policy.reason:
            Console(stderr=True).print(f"attention: rows, each with a prefix of its own, since {reason}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        self._tell(pl_module.tallies["train"].of_all(), f"left out in epoch {trainer.current_epoch}")

    def on_validation_end(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        self._tell(pl_module.tallies["val"].of_all(), "left out in validation")

    @rank_zero_only
    def _tell(self, tally: Tally, title: str) -> None:
        if tally.dropped:
            table = Table("reason", "samples", "for instance", title=title)
            for reason, count in tally.dropped.most_common():
                table.add_row(reason, str(count), tally.examples[reason])
            Console(stderr=True).print(table)
