"""The DataModule that a trainer was given, by its type."""

from lightning.pytorch import Trainer

from rlaifv_pl.data.datamodule import AlignmentDataModule


def datamodule_of(trainer: Trainer) -> AlignmentDataModule:
    """The run's DataModule, which Lightning attaches without declaring it."""
    return trainer.datamodule  # type: ignore[attr-defined]
