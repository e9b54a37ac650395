"""What a run says on the screen: what trains, and what was left out."""

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from rlaifv_pl.models.policy import parameter_table
from rlaifv_pl.objectives.base import AlignmentModule


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

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        if pl_module.dropped:
            table = Table("reason", "samples", title=f"left out up to epoch {trainer.current_epoch}")
            for reason, count in pl_module.dropped.most_common():
                table.add_row(reason, str(count))
            Console(stderr=True).print(table)
