"""What `train.py fit` would put together of the same arguments, without a trainer and without running it."""

from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from rlaifv_pl.cli.fit import AlignmentCLI
from rlaifv_pl.preflight.machine import PreflightOptions
from rlaifv_pl.rounds import Rounds


class DryRunCLI(AlignmentCLI):
    """Objective and data as the run would have them; no trainer is made, since it would ask for the devices."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(PreflightOptions, "preflight")

    def instantiate_trainer(self, **_: Any) -> None:
        """None."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Leave the run alone."""

    @property
    def options(self) -> PreflightOptions:
        """Of preflight itself."""
        return self._get(self.config_init, "preflight")

    @property
    def trainer_options(self) -> Any:
        """Options of the trainer, with its strategy and callbacks made."""
        return self._get(self.config_init, "trainer")

    @property
    def rounds(self) -> Rounds | None:
        """Those of the run, if it has any."""
        rounds = self._get(self.config_init, "rounds")
        return rounds if rounds.prompts is not None else None
