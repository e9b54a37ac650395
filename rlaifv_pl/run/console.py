"""What a run says on the screen: what trains, what was left out; and what it does not say."""

import logging
import os
import threading
import warnings

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from rlaifv_pl.data.atomic import disk_fault
from rlaifv_pl.models.policy import parameter_table
from rlaifv_pl.objectives.base import AlignmentModule

# Of the libraries about themselves; nothing that a user of ours could act on.
CHATTER = (
    ".*treespec.*deprecated.*",
    "Total length of `list` across ranks is zero.*",
    ".*does not have many workers which may be a bottleneck.*",
    ".*args parameter is intended to run from within Python.*",
    # The DataModule knows the position.
    ".*ended before the epoch ended and your dataloader is not resumable.*",
)


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


def hush() -> None:
    """Keep the chatter of libraries off the screen; their errors and other warnings still come."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    disable_progress_bar()
    for message in CHATTER:
        warnings.filterwarnings("ignore", message=message)
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.trainer.connectors.logger_connector",
    ):
        logging.getLogger(name).addFilter(lambda record: "litlogger" not in record.getMessage())
    threading.excepthook = _tell_of_thread


def _tell_of_thread(what: threading.ExceptHookArgs) -> None:
    """As Python does; but what writes event files in a thread raises a full disk once more, where it is explained."""
    if what.exc_value is None or disk_fault(what.exc_value) is None:
        threading.__excepthook__(what)
