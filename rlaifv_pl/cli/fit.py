"""`rlaifv fit|validate`: constructor signatures are the schema of the configs.

The traps of the stock command line are closed: option names are not completed from prefixes, a
checkpoint never overrules the config, and an error is one message instead of a page of usage.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf.errors import OmegaConfBaseException

from rlaifv_pl.cli.configs import ConfigError, resolve_configs
from rlaifv_pl.cli.library_logs import silence_library_logs
from rlaifv_pl.cli.trust import trust_packages
from rlaifv_pl.cli.usage_errors import explain_usage_error, option_names
from rlaifv_pl.data.atomic import atomic_file, writing
from rlaifv_pl.data.datamodule import AlignmentDataModule
from rlaifv_pl.data.lightning_utils import get_datamodule
from rlaifv_pl.data.remote_directory import redact
from rlaifv_pl.export.callback import ExportPolicy
from rlaifv_pl.lightning_compat import enable_epoch_boundaries, get_callbacks
from rlaifv_pl.miniature import resolve_shipped
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.objectives.checks import RunError
from rlaifv_pl.rounds import Rounds
from rlaifv_pl.training.checkpoint import CHECKPOINTS, LAST, RunCheckpoint
from rlaifv_pl.training.console import PrintSummary, RunProgressBar
from rlaifv_pl.training.held_out import HeldOutEvaluation
from rlaifv_pl.training.loggers import ResumeLogs, default_loggers
from rlaifv_pl.training.non_finite import NonFiniteGuard
from rlaifv_pl.training.run_directory import Start, check_checkpoint
from rlaifv_pl.training.shown_command import rerun_command
from rlaifv_pl.training.signals import StopOnSignal
from rlaifv_pl.training.throughput import Throughput

TRAINER_DEFAULTS = {
    # The DataModule cuts the order by rank itself, and each epoch has an order of its own.
    "use_distributed_sampler": False,
    "reload_dataloaders_every_n_epochs": 1,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
    "max_epochs": 1,
    "default_root_dir": "runs/default",
}


class FitParser(LightningArgumentParser):
    """Takes option names as they are, and explains a mistake in a few lines."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["allow_abbrev"] = False
        super().__init__(*args, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:
        try:
            return super().parse_args(*args, **kwargs)
        except OmegaConfBaseException as error:
            self.error(f"{error.full_key}: {str(error).splitlines()[0]}", error)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        message = explain_usage_error(message, option_names(self))
        if not self.exit_on_error or "JSONARGPARSE_DEBUG" in os.environ:
            # The parser of a nested class: what contains it may have other ways to read the value.
            super().error(message, ex)
        sys.stderr.write(f"error: {message}\n")
        sys.exit(2)


class SaveRunConfig(SaveConfigCallback):
    """The resolved config in the run's directory: `config.yaml`, and each start's own copy beside it.

    Nothing is written before model, data and checkpoint have been opened: a start that fails leaves what it found.
    """

    start: Start
    """Clears the directory for the run."""

    def setup(self, *_: Any, **_options: Any) -> None:
        """Leave the directory alone; Lightning's own writes here, before the model is loaded."""

    def on_fit_start(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        get_datamodule(trainer).check_opens()
        # A strategy that cuts models into slices reads the checkpoint later.
        if trainer.ckpt_path is None or not trainer.strategy.restore_checkpoint_after_setup:
            self._keep(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        if not self.already_saved:
            self._keep(trainer)

    def _keep(self, trainer: Trainer) -> None:
        self.already_saved = True
        if trainer.is_global_zero:
            self.start.clear_directory()
            self.save_config(trainer, trainer.lightning_module, "fit")
        trainer.strategy.barrier()

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        directory = Path(trainer.default_root_dir)
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
        starts = len(list(directory.glob("config.start*.yaml")))
        config = _without_secrets(self.config)
        config["overwrite"] = False  # Asked for once; a run that is started from this file removes nothing.
        text = self.parser.dump(config, skip_none=False)
        for name in (self.config_filename, f"config.start{starts}.yaml"):
            with atomic_file(directory / name) as file:
                file.write(text.encode())


def _without_secrets(config: Namespace) -> Namespace:
    """The config without what the URLs of its shards may hold of passwords and tokens."""
    config = config.clone()
    for name in ("data.train", "data.val", "rounds.prompts"):
        match config.get(name):
            case str(url):
                config[name] = redact(url)
            case list(urls):
                config[name] = [redact(url) for url in urls]
    return config


CALLED_LAST = (RunCheckpoint, StopOnSignal, Rounds, ExportPolicy)
"""Callbacks that are called after all others, in this order: a step is saved before the run stops at it, and a round is
over before the export's card tells of it."""


def order_callbacks(callbacks: Iterable[Callback]) -> list[Callback]:
    """Callbacks in the order in which a trainer is to call them."""

    def place(callback: Callback) -> int:
        return next((at for at, kind in enumerate(CALLED_LAST) if isinstance(callback, kind)), -1)

    return sorted(callbacks, key=place)


class AlignmentCLI(LightningCLI):
    """Puts objective, data and trainer together from stacked configs and command-line options."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The top-level keys of a config beside model, data and trainer."""
        parser.add_argument(
            "--threads", type=int | None, default=None,
            help="Threads of a CPU operation. One is fastest for tiny models, and gives equal bits on any machine.",
        )  # fmt: skip
        parser.add_argument(
            "--overwrite", type=bool, default=False,
            help="Remove the run that trainer.default_root_dir holds, and start over.",
        )  # fmt: skip
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_lightning_class_args(Throughput, "throughput")
        parser.add_lightning_class_args(NonFiniteGuard, "non_finite")
        parser.add_lightning_class_args(HeldOutEvaluation, "held_out")
        parser.add_lightning_class_args(Rounds, "rounds")
        parser.add_lightning_class_args(ExportPolicy, "export")

    def before_instantiate_classes(self) -> None:
        if threads := self._get(self.config, "threads"):
            torch.set_num_threads(threads)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with the run's own logs unless others are asked for, with rounds only where there are
        prompts for them, and measured only where there is something to measure by."""
        options = self._get(self.config_init, "trainer")
        if options["logger"] is None or options["logger"] is True:
            # Validation alone prints its table; in the run's logs it would count as step 0.
            kwargs["logger"] = self.subcommand == "fit" and default_loggers(options["default_root_dir"])
        trainer: Any = super().instantiate_trainer(**kwargs)
        trainer.callbacks = order_callbacks(
            # Lightning adds its own where a bar is wanted and the config names none.
            RunProgressBar() if type(callback) is RichProgressBar else callback
            for callback in trainer.callbacks
            if not (isinstance(callback, Rounds) and callback.prompts is None)
            and not (isinstance(callback, HeldOutEvaluation) and not callback.benchmarks)
        )
        enable_epoch_boundaries(trainer)
        return trainer

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        assert isinstance(args, list)  # `start` makes it one.
        self.arguments = list(map(str, args))
        try:
            arguments = resolve_configs(trust_packages(self.arguments))
        except ConfigError as error:
            parser.error(str(error), error)
        super().parse_arguments(parser, arguments)

    def before_fit(self) -> None:
        """Look where the run is to begin, before anything is loaded.

        Raises:
            RunError: another run is there, nothing can be written there, or there is no checkpoint to go on from.
        """
        start = Start(
            directory=Path(self.trainer.default_root_dir),
            ckpt_path=self._get(self.config, "ckpt_path"),
            overwrite=self._get(self.config, "overwrite"),
            makes_rounds=any(isinstance(callback, Rounds) for callback in get_callbacks(self.trainer)),
        )
        if start.ckpt_path not in (None, LAST):
            check_checkpoint(str(start.ckpt_path), start.directory)
        if not self._get(self.config, "trainer")["fast_dev_run"]:
            start.check(self.config[self.subcommand].as_dict(), self.arguments)
        for callback in get_callbacks(self.trainer):
            if isinstance(callback, SaveRunConfig):
                callback.start = start
            elif isinstance(callback, StopOnSignal):
                callback.command = rerun_command(self.arguments, ckpt_path=LAST)

    def before_validate(self) -> None:
        """Look for the checkpoint, before anything is loaded.

        Raises:
            RunError: there is none.
        """
        directory, path = Path(self.trainer.default_root_dir), self._get(self.config, "ckpt_path")
        if path == LAST:  # Lightning would validate the model that the run started from.
            path = str(directory / CHECKPOINTS / f"{LAST}.ckpt")
        if path is not None:
            check_checkpoint(str(path), directory)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:  # Of our constructors, about what they were given.
            self.parser.error(str(error), error)

    def _parse_ckpt_path(self) -> None:
        """Leave the config alone: the stock method lets hyper-parameters of the checkpoint overrule it."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        stock = LightningCLI.subcommands()
        # Checkpoints are always read with weights_only: to unpickle a stranger's is not a config's business.
        return {name: stock[name] | {"weights_only"} for name in ("fit", "validate")}


def explained_main(args: Sequence[str] | None = None) -> None:
    """Run the command line; raise Lightning's messages about a user's mistake as errors that are shown in a line.

    Raises:
        RunError: in place of Lightning's own error.
    """
    try:
        main(args)
    except MisconfigurationException as error:
        raise RunError(str(error)) from error


def main(args: Sequence[str] | None = None) -> AlignmentCLI:
    """Run the command line, from `sys.argv` unless arguments are given."""
    return start(AlignmentCLI, args)


Kind = TypeVar("Kind", bound=AlignmentCLI)


def start(kind: type[Kind], args: Sequence[str] | None = None) -> Kind:
    """Run a kind of command line, which may do less with the objects that it has built."""
    silence_library_logs()
    resolve_shipped()
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    return kind(
        AlignmentModule,
        AlignmentDataModule,
        subclass_mode_model=True,
        save_config_callback=SaveRunConfig,
        save_config_kwargs={"overwrite": True, "save_to_log_dir": False},
        seed_everything_default=0,
        trainer_defaults={**TRAINER_DEFAULTS, "callbacks": [PrintSummary(), ResumeLogs(), StopOnSignal()]},
        parser_class=FitParser,
        parser_kwargs={"parser_mode": "omegaconf+"},
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        args=list(sys.argv[1:] if args is None else args),
    )
