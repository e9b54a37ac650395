"""Everything that is asked of Lightning beyond its public interface, in one place.

Each function stands for one internal of Lightning 2.6. `tests/training/test_lightning_compat.py` fails when a release
moves it, and when another file touches Lightning's internals.
"""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.device_mesh import DeviceMesh


class EpochBoundaryCallback(Callback):
    """A callback that also works between epochs.

    Lightning has no hook there. Its `on_train_start` and `on_train_epoch_start` come after an epoch's data has been
    loaded, and `on_train_epoch_end` comes before the epoch has been saved.
    """

    def on_epoch_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called while no epoch is under way: before the first one of a start, and after each one.

        What came before is restored, or saved and logged; the data of the next epoch has not been asked for.
        """


def enable_epoch_boundaries(trainer: Trainer) -> None:
    """Let the trainer call `EpochBoundaryCallback.on_epoch_boundary`, in the order of its callbacks."""
    loop = trainer.fit_loop
    run, end_epoch = loop.run, loop.on_advance_end

    def call_boundaries() -> None:
        for callback in get_callbacks(trainer):
            if isinstance(callback, EpochBoundaryCallback):
                callback.on_epoch_boundary(trainer, trainer.lightning_module)

    def run_after_boundary() -> None:
        call_boundaries()
        run()

    def end_epoch_with_boundary() -> None:
        end_epoch()
        call_boundaries()

    loop.run, loop.on_advance_end = run_after_boundary, end_epoch_with_boundary


def get_callbacks(trainer: Trainer) -> list[Callback]:
    """The trainer's own list of callbacks, in the order in which they are called."""
    return getattr(trainer, "callbacks", [])


def is_accumulating(trainer: Trainer) -> bool:
    """Whether the current batch leaves the optimiser step of its gradients to a later batch."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def is_last_batch(trainer: Trainer) -> bool:
    """Whether the current batch is the last one of its epoch."""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def is_validation_due(trainer: Trainer) -> bool:
    """Whether a validation follows the current batch by its number: not by a clock, nor because the run stops."""
    loop = trainer.fit_loop
    if loop._data_fetcher is None or getattr(trainer, "_val_check_time_interval", None) is not None:
        return False
    should_stop, trainer.should_stop = trainer.should_stop, False
    is_due = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
    trainer.should_stop = should_stop
    return is_due


def count_progress_in_epochs(trainer: Trainer) -> None:
    """Resume by epochs with `max_steps`, too: Lightning would take the end of an epoch for the middle of it."""
    trainer.fit_loop._iteration_based_training = lambda: False


def disable_signal_handlers(trainer: Trainer) -> None:
    """Keep Lightning from handling signals: it saves within the handler, in the middle of a step."""
    trainer._signal_connector.register_signal_handlers = lambda: None


def get_step_metrics(trainer: Trainer) -> dict[str, Any]:
    """Metrics of the current step that loggers are about to get; none outside of training."""
    return trainer._logger_connector.metrics["log"] if trainer.training else {}


def get_attached_trainer(module: LightningModule) -> Trainer | None:
    """The trainer of a module; None if it has none, where the public property raises."""
    return module._trainer


def set_device_mesh(module: LightningModule, mesh: DeviceMesh) -> None:
    """Set the mesh that `LightningModule.device_mesh` gives."""
    module._device_mesh = mesh


def get_ddp_option(strategy: DDPStrategy, name: str) -> Any:
    """An option that DistributedDataParallel will get; None if it is not set."""
    return strategy._ddp_kwargs.get(name)
