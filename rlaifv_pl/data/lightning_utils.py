"""The DataModule of a trainer, which Lightning attaches without declaring it."""

from lightning.pytorch import Trainer

from rlaifv_pl.data.datamodule import AlignmentDataModule


def get_datamodule(trainer: Trainer) -> AlignmentDataModule:
    """The run's DataModule."""
    return trainer.datamodule  # type: ignore[attr-defined]
