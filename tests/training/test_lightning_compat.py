"""What is asked of Lightning's internals: each works as described, and all of it is asked in one file."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from rlaifv_pl import lightning_compat as compat

PACKAGE = Path(compat.__file__).parent
INTERNAL = re.compile(
    r"\b(\w*(trainer|loop|connector|strategy|callback)|optimizer|lightning_module)(\.[a-z]\w*)*\._[a-z]\w+"
)
OVERRIDDEN = [
    (ModelCheckpoint, "_find_last_checkpoints _link_checkpoint _should_remove_checkpoint"),
    (ModelCheckpoint, "_should_skip_saving_checkpoint _monitor_candidates _save_topk_checkpoint"),
    (ModelCheckpoint, "_save_last_checkpoint"),
    (RichProgressBar, "_init_progress _reset_progress_bar_ids _get_train_description"),
    (ExperimentWriter, "_check_log_dir_exists _rewrite_with_new_header"),
    (LightningCLI, "_get _parse_ckpt_path _run_subcommand"),
]
"""Internals that our subclasses override or call on themselves."""


class Module(L.LightningModule):
    """Four batches of one number; notes when its data is loaded."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.weight, self.events = torch.nn.Parameter(torch.ones(())), events

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        self.events.append(f"load {self.trainer.current_epoch}")
        return torch.utils.data.DataLoader(torch.arange(4.0).unsqueeze(1))

    val_dataloader = train_dataloader

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        loss = self.weight * batch.mean()
        self.log("step", float(index))
        return loss

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("val", 7.0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Notes(Callback):
    """Notes after each batch what a function says of the trainer."""

    def __init__(self, ask) -> None:
        self.ask, self.answers = ask, []

    def on_train_batch_end(self, trainer: L.Trainer, *_) -> None:
        self.answers.append(self.ask(trainer))


def fit(
    folder: Path, *callbacks: Callback, module: Module | None = None, ckpt_path=None, **options
) -> L.Trainer:
    trainer = L.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, callbacks=list(callbacks),
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        **{"max_epochs": 1, "enable_checkpointing": False, "limit_val_batches": 0, **options},
    )  # fmt: skip
    compat.enable_epoch_boundaries(trainer)
    trainer.fit(module or Module([]), ckpt_path=ckpt_path)
    return trainer


class Saver(Checkpoint):
    """Saves, and says so."""

    def __init__(self, events: list[str], path: Path) -> None:
        self.events, self.path = events, path

    def on_train_epoch_end(self, trainer: L.Trainer, *_) -> None:
        self.events.append(f"save {trainer.current_epoch}")
        trainer.save_checkpoint(self.path / f"{trainer.current_epoch}.ckpt")


class Boundary(compat.EpochBoundaryCallback):
    """Works between epochs; may stop the run there."""

    def __init__(self, events: list[str], stop_at: int = -1) -> None:
        self.events, self.stop_at = events, stop_at

    def on_epoch_boundary(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.events.append(f"boundary {trainer.current_epoch}")
        trainer.should_stop |= trainer.current_epoch == self.stop_at

    def on_train_epoch_start(self, trainer: L.Trainer, *_) -> None:
        self.events.append(f"train {trainer.current_epoch}")


def test_a_boundary_lies_between_what_is_saved_and_what_is_loaded(tmp_path):
    events: list[str] = []
    options = {"max_epochs": 2, "reload_dataloaders_every_n_epochs": 1, "enable_checkpointing": True}
    callbacks = Saver(events, tmp_path), Boundary(events)
    fit(tmp_path, *callbacks, module=Module(events), **options)
    epochs = [[f"load {n}", f"train {n}", f"save {n}", f"boundary {n + 1}"] for n in (0, 1)]
    assert events == ["boundary 0", *epochs[0], *epochs[1]]

    events.clear()
    fit(tmp_path, *callbacks, module=Module(events), ckpt_path=tmp_path / "0.ckpt", **options)
    assert events == ["boundary 0", "load 0", *epochs[1]], (
        "the checkpoint of an epoch's end is still of that epoch"
    )


def test_a_run_that_is_stopped_at_a_boundary_loads_nothing_more(tmp_path):
    events: list[str] = []
    options = {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1}
    fit(tmp_path, Boundary(events, stop_at=1), module=Module(events), **options)
    assert events == ["boundary 0", "load 0", "train 0", "boundary 1"]


@pytest.mark.parametrize(
    ("ask", "options", "expected"),
    [
        (compat.is_accumulating, {"accumulate_grad_batches": 3}, [True, True, False, False]),
        (compat.is_last_batch, {}, [False, False, False, True]),
        (
            compat.is_validation_due,
            {"val_check_interval": 2, "limit_val_batches": 1},
            [False, True, False, True],
        ),
        (lambda trainer: float(compat.get_step_metrics(trainer)["step"]), {}, [0.0, 1.0, 2.0, 3.0]),
        (lambda trainer: compat.get_attached_trainer(trainer.lightning_module) is trainer, {}, [True] * 4),
    ],
    ids=["accumulating", "last batch", "validation", "metrics", "trainer"],
)
def test_a_trainer_tells_of_its_batches(tmp_path, ask, options, expected):
    notes = Notes(ask)
    fit(tmp_path, notes, **options)
    assert notes.answers == expected


def test_a_validation_by_the_clock_or_of_a_run_that_stops_is_not_foreseen(tmp_path):
    by_clock = Notes(compat.is_validation_due)
    clock = {"val_check_interval": "00:00:00:01", "check_val_every_n_epoch": None, "limit_val_batches": 1}
    assert fit(tmp_path, by_clock, **clock)._val_check_time_interval == 1.0
    assert by_clock.answers == [False] * 4

    def stop(trainer: L.Trainer) -> tuple[bool, bool]:
        trainer.should_stop = True
        return compat.is_validation_due(trainer), trainer.should_stop

    stopping = Notes(stop)
    fit(tmp_path, stopping, limit_val_batches=1)
    assert stopping.answers == [(False, True)]


def test_metrics_are_of_training_alone_and_a_module_may_have_no_trainer(tmp_path):
    trainer = fit(tmp_path, limit_val_batches=1)
    trainer.validating = True
    assert compat.get_step_metrics(trainer) == {}
    assert compat.get_attached_trainer(Module([])) is None


def test_progress_is_counted_in_epochs_though_steps_are_limited(tmp_path):
    """Lightning's own would find the run restarting in the middle of an epoch, and leave out its start."""
    events: list[str] = []
    options = {"max_epochs": 2, "max_steps": 8, "enable_checkpointing": True}

    class Counting(Boundary):
        def setup(self, trainer: L.Trainer, *_, **_options) -> None:
            compat.count_progress_in_epochs(trainer)

    fit(tmp_path, Saver(events, tmp_path), Counting(events), **options)
    events.clear()
    fit(tmp_path, Saver(events, tmp_path), Counting(events), ckpt_path=tmp_path / "0.ckpt", **options)
    assert events == ["boundary 0", "train 1", "save 1", "boundary 2"]


def test_lightning_registers_no_handlers_of_signals(tmp_path, monkeypatch):
    trainer, called = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), []
    connector = type(trainer._signal_connector)
    monkeypatch.setattr(connector, "register_signal_handlers", lambda self: called.append(self))
    trainer._signal_connector.register_signal_handlers()
    assert called
    compat.disable_signal_handlers(trainer)
    trainer._signal_connector.register_signal_handlers()
    assert len(called) == 1
    assert (
        "self._signal_connector.register_signal_handlers()"
        in Path(L.pytorch.trainer.trainer.__file__).read_text()
    )


def test_a_mesh_and_options_of_ddp_are_where_lightning_looks_for_them():
    module, mesh = Module([]), SimpleNamespace()
    compat.set_device_mesh(module, mesh)
    assert module.device_mesh is mesh
    strategy = DDPStrategy(gradient_as_bucket_view=True)
    assert compat.get_ddp_option(strategy, "gradient_as_bucket_view") is True
    assert compat.get_ddp_option(strategy, "bucket_cap_mb") is None


@pytest.mark.parametrize(("kind", "names"), OVERRIDDEN)
def test_what_our_subclasses_override_is_there(kind, names):
    for name in names.split():
        assert callable(getattr(kind, name)), name


def test_attributes_that_our_subclasses_share_with_lightnings_are_there(tmp_path):
    checkpoint = ModelCheckpoint()
    assert (checkpoint._last_global_step_saved, checkpoint._last_checkpoint_saved) == (0, "")
    assert {"_progress_stopped", "_metric_component", "_console"} <= vars(RichProgressBar()).keys()
    assert CSVLogger(str(tmp_path))._experiment is None
    strategy = ModelParallelStrategy(
        data_parallel_size=2, tensor_parallel_size=3, save_distributed_checkpoint=False
    )
    assert (strategy._data_parallel_size, strategy._tensor_parallel_size) == (2, 3)
    assert strategy._save_distributed_checkpoint is False and strategy._device_mesh is None


def test_internals_of_lightning_are_touched_in_one_file():
    touching = {
        f"{path.relative_to(PACKAGE)}: {found[0]}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "lightning_compat.py"
        for line in ast.unparse(ast.parse(path.read_text())).splitlines()
        if (found := INTERNAL.search(line))
    }
    assert touching == set()
