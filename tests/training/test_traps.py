"""Traps of the libraries underneath that have no place of their own: each would be sprung in silence."""

import logging
import multiprocessing
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from rlaifv_pl.cli import commands
from rlaifv_pl.cli.fit import main
from rlaifv_pl.cli.library_logs import silence_library_logs
from rlaifv_pl.data.loader import BatchLoader
from rlaifv_pl.data.shards import ShardWriter, load_shards
from rlaifv_pl.objectives.checks import RunError, sharding_of
from tests.data.samples import pair
from tests.training.tiny import REPOSITORY, write_config

OURS = {
    "RunCheckpoint",
    "Throughput",
    "NonFiniteGuard",
    "ExportPolicy",
    "Rounds",
    "PrintSummary",
    "ResumeLogs",
    "StopOnSignal",
}


def callbacks(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    """Of the trainer that a run would have, in the order in which they are called."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(Trainer, "fit", lambda *_args, **_options: None)
    cli = main(["fit", "--config", "configs/rounds.yaml", *arguments])
    return [type(callback).__name__ for callback in cli.trainer.callbacks]


def test_callbacks_of_a_config_stand_beside_ours(monkeypatch, tmp_path):
    """A list in a later config takes the place of one in an earlier."""
    for name in ("TQDMProgressBar", "Timer"):
        more = {"trainer": {"callbacks": [{"class_path": f"lightning.pytorch.callbacks.{name}"}]}}
        write_config(tmp_path / f"{name}.yaml", more)
    options = [
        word for name in ("TQDMProgressBar", "Timer") for word in ("--config", str(tmp_path / f"{name}.yaml"))
    ]
    assert set(callbacks(monkeypatch, *options)) >= {*OURS, "Timer"}


def test_callbacks_that_need_what_is_saved_are_called_last(monkeypatch):
    found = callbacks(monkeypatch)
    assert found[-4:] == ["RunCheckpoint", "StopOnSignal", "Rounds", "ExportPolicy"]
    assert found.index("SaveRunConfig") < found.index("Rounds"), "it removes what another run left"


def test_there_is_one_optimiser_to_configure(capsys):
    """Lightning's own option would build one of weights that are not there yet, and leave out the schedule."""
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(REPOSITORY / "configs/dpo.yaml"), "--optimizer", "SGD"])
    assert "--optimizer" in capsys.readouterr().err


def test_verbs_take_option_names_as_they_are(tmp_path):
    config = [
        "--config",
        str(REPOSITORY / "configs/feedback.yaml"),
        "--prompts",
        "none",
        "--out",
        str(tmp_path),
    ]
    with pytest.raises(SystemExit) as stopped:
        commands.main(["feedback", *config, "--lim", "3"])
    assert "--lim" in str(stopped.value)


def seen(samples: list) -> SimpleNamespace:
    """What a batch of them would be."""
    return SimpleNamespace(keys=len(samples))


def test_an_iterator_that_is_not_used_starts_no_workers(tmp_path: Path):
    """Lightning asks for one twice in every epoch but the first."""
    with ShardWriter(tmp_path, recipe={}) as writer:
        for number in range(2):
            writer.write(pair(f"k{number}"))
    loader = BatchLoader(load_shards(tmp_path), [[0], [1]], collate=seen, num_workers=1)
    before = set(multiprocessing.active_children())
    unused, used = iter(loader), iter(loader)
    assert set(multiprocessing.active_children()) == before
    assert next(used).keys == 1 and len(set(multiprocessing.active_children()) - before) == 1
    del unused


def test_advertisements_are_left_out_and_news_are_not():
    silence_library_logs()
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    for text, shown in (("Tip: try litlogger, it is free", False), ("GPU available: False", True)):
        record = logger.makeRecord(logger.name, logging.INFO, __file__, 1, text, (), None)
        assert bool(logger.filter(record)) is shown


@pytest.mark.parametrize("strategy", [ModelParallelStrategy, FSDPStrategy])
def test_strategies_that_give_all_devices_of_a_node_the_same_samples_or_drop_the_reference_are_refused(
    strategy,
):
    """ModelParallelStrategy by its defaults takes the devices of a node for one."""
    trainer = SimpleNamespace(strategy=strategy())
    with pytest.raises(RunError, match="FSDP2Strategy instead"):
        sharding_of(trainer)
