"""Console output of a run: progress, trainable parameters, and samples left out. Epochs count from 1."""

from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomProgress, MetricsTextColumn
from lightning.pytorch.utilities import rank_zero_only
from rich.table import Table

from rlaifv_pl.console import Pace, stderr
from rlaifv_pl.models.policy import parameter_table
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.objectives.dropped_samples import SampleTally


class PrintSummary(Callback):
    """Prints which parameters train, and the number of samples left out by reason."""

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
        stderr.print(table)
        if reason := pl_module.policy.reason:
            stderr.print(f"attention: rows, each with a prefix of its own, since {reason}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        self._print_dropped(
            pl_module.tallies["train"].of_all(), f"left out in epoch {trainer.current_epoch + 1}"
        )

    def on_validation_end(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        self._print_dropped(pl_module.tallies["val"].of_all(), "left out in validation")

    @rank_zero_only
    def _print_dropped(self, tally: SampleTally, title: str) -> None:
        if tally.dropped:
            table = Table("reason", "samples", "for instance", title=title)
            for reason, count in tally.dropped.most_common():
                table.add_row(reason, str(count), tally.examples[reason])
            stderr.print(table)


class RunProgressBar(RichProgressBar):
    """Lightning's progress bar on stderr; plain lines if stderr is not a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._pace = Pace()

    def _init_progress(self, trainer: Trainer) -> None:
        # Lightning's own draws on the console of stdout.
        if self.is_enabled and (self.progress is None or self._progress_stopped):
            self._reset_progress_bar_ids()
            theme, self._console = self.theme, stderr
            self._metric_component = MetricsTextColumn(
                trainer, theme.metrics, theme.metrics_text_delimiter, theme.metrics_format
            )
            columns = [*self.configure_columns(trainer), self._metric_component]
            self.progress = CustomProgress(*columns, auto_refresh=True, console=stderr)
            self.progress.start()
            self._progress_stopped = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._pace = Pace()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: AlignmentModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.is_enabled and not stderr.is_terminal:
            title = self._get_train_description(trainer.current_epoch).strip()
            loss = trainer.progress_bar_metrics.get("train/loss")
            more = "" if loss is None else f", loss {loss:.4g}"
            self._pace.tell(title, batch_idx + 1, int(self.total_train_batches), more)

    def _get_train_description(self, current_epoch: int) -> str:
        # Counted from 0 by Lightning, whose own bar says so.
        of_all = f"/{self.trainer.max_epochs}" if self.trainer.max_epochs is not None else ""
        return f"Epoch {current_epoch + 1}{of_all}".ljust(len(self.validation_description))
