"""The trained policy as a model, at the end of its run."""

from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_info

from rlaifv_pl.export.checkpoint import trained
from rlaifv_pl.export.metadata import ExportOrigin, write_metadata
from rlaifv_pl.export.policy import export_policy
from rlaifv_pl.models.policy import load_model, unwrap_model
from rlaifv_pl.models.sharding import on_rank_zero
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.objectives.checks import sharding_of


class ExportPolicy(Callback):
    """Writes the trained policy to `<run>/export` when the run ends, with a card.

    Args:
        enabled: whether to; switch off for a run whose weights are not wanted.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled

    def on_fit_end(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        """Write it; of a model in slices all processes give theirs, and the first one writes.

        Raises:
            ExportError, WriteError: as `export_policy`.
        """
        if not self.enabled or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        weights = None if sharding_of(trainer) is None else on_rank_zero(pl_module.trained_state())
        if trainer.is_global_zero and pl_module.policy is not None:
            model = pl_module.policy.model
            if weights is not None:
                model = trained(load_model(pl_module.policy_spec), weights)
            run = Path(trainer.default_root_dir)
            origin = ExportOrigin(
                run=run,
                spec=pl_module.policy_spec,
                architecture=type(unwrap_model(model)).__name__,
                base_weights=pl_module.base_weights,
                step=trainer.global_step,
                known={"processes": trainer.world_size, "precision": trainer.precision},
            )
            export_policy(model, pl_module.processor, run / "export", write_metadata(origin))
            rank_zero_info(
                f"The trained model is in {run / 'export'}; its log-ps equal those in memory. README.md there is its "
                "card."
            )
