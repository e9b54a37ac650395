"""Checks that rounds are compatible with the rest of a run's settings."""

from lightning.pytorch import Trainer

from rlaifv_pl.data.lightning_utils import get_datamodule
from rlaifv_pl.objectives.base import AlignmentModule, RunError
from rlaifv_pl.rounds.reference_file import Refresh


def check_rounds(trainer: Trainer, module: AlignmentModule, epochs: int, refresh: Refresh) -> None:
    """Refuse settings that contradict rounds.

    Args:
        trainer: with its DataModule.
        module: module in training.
        epochs: epochs of a round.
        refresh: source of a round's reference.

    Raises:
        RunError: two settings contradict each other; the message says what to change.
    """
    max_epochs = trainer.max_epochs or 0
    if max_epochs < 1 or max_epochs % epochs:
        raise RunError(
            f"trainer.max_epochs is {trainer.max_epochs}, expected a multiple of rounds.epochs ({epochs}), "
            "since their quotient is the number of rounds."
        )
    if get_datamodule(trainer).train:
        raise RunError(
            "data.train is set, but rounds make the shards that a run trains on. "
            "Leave data.train out, or leave the rounds out."
        )
    has_later_rounds = max_epochs > epochs
    if has_later_rounds and module.reference_mode == "adapter_off" and refresh != "initial":
        raise RunError(
            f"The reference of a later round is to be {refresh!r}, but without its adapters the policy is the "
            "initial one. Set model.reference: live (its copy holds adapters only), or refresh: initial."
        )
    if has_later_rounds and module.reference_mode == "cached" and refresh == "ema":
        raise RunError(
            "rounds.refresh: ema makes a reference that is no policy of any time, and model.reference: cached "
            "holds none. Set model.reference: live, or refresh: previous."
        )
