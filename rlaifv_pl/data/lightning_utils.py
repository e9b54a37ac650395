"""What Lightning attaches to a trainer without declaring it, by its type."""

from lightning.pytorch import Callback, Trainer

from rlaifv_pl.data.datamodule import AlignmentDataModule


def get_datamodule(trainer: Trainer) -> AlignmentDataModule:
    """The run's DataModule."""
    return trainer.datamodule  # type: ignore[attr-defined]


def get_callbacks(trainer: Trainer) -> list[Callback]:
    """Those of the run, in the order in which they are called; the trainer's own list."""
    return getattr(trainer, "callbacks", [])
