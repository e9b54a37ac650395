"""Killed while it is measured = never killed; in two processes = in one; between rounds as within one."""

from pathlib import Path

import pytest
import yaml

from rlaifv_pl.cli.fit import main
from tests.kill.start import Command
from tests.rounds.world_run import config as rounds_config
from tests.rounds.world_run import write
from tests.training.held import figures, held_out, measured_config, write_items
from tests.training.test_fsdp import FSDP, SGD, launch
from tests.training.tiny import table, write_pairs

MOMENTS = (
    "after:held_out/chair/00000000.jsonl.parts/[0-9a-z-]*/part-000001",
    "before:held_out/asked/00000004.jsonl",
    "after:held_out/figures.json",
    "after:held_out/asked/00000008.jsonl.parts/[0-9a-z-]*/part-000000",
    "step:7",
    "after:held_out/chair/00000008.jsonl",
    "after:checkpoints/epoch1-step10.ckpt",
)
KEPT = ("held_out/*/*", "held_out/figures.json", "metrics.csv", "export/model.safetensors")


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> Path:
    return write_items(tmp_path_factory.mktemp("held") / "items")


def left(directory: Path) -> dict[str, bytes]:
    """All that must not depend on kills, by name."""
    found = [path for pattern in KEPT for path in sorted(directory.glob(pattern))]
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


@pytest.mark.slow
def test_a_run_killed_while_it_is_measured_leaves_what_an_unkilled_one_leaves(
    family_dir, warm, items, tmp_path
):
    shards, warm.directory = write_pairs(tmp_path / "pairs", 10), tmp_path
    monitored = {"every_n_train_steps": 2, "monitor": "held_out/chair/words", "mode": "min"}

    def command(name: str) -> Command:
        groups = {"held_out": held_out(items), "checkpoint": monitored}
        path = measured_config(family_dir("llava"), shards, tmp_path / name, **groups)
        return Command("train", ["fit", "--config", str(path), "--ckpt_path", "last"])

    assert warm.start(command("whole"))
    answered: dict[Path, int] = {}
    for moment in MOMENTS:
        assert not warm.start(command("killed"), moment=moment), moment
        parts = {
            path: path.stat().st_mtime_ns for path in tmp_path.glob("killed/held_out/*/*.parts/*/*.jsonl")
        }
        assert all(parts[path] == at for path, at in answered.items()), "asked again what was answered"
        answered = parts
    assert warm.start(command("killed"))
    whole, killed = left(tmp_path / "whole"), left(tmp_path / "killed")
    assert list(whole) == list(killed) and len(whole) == 2 * 4 + 3
    assert [name for name in whole if whole[name] != killed[name]] == []
    for link in ("best.ckpt", "last.ckpt"):
        linked = [(tmp_path / name / "checkpoints" / link).resolve().name for name in ("whole", "killed")]
        assert linked[0] == linked[1], link


@pytest.mark.slow
def test_two_processes_measure_what_one_does(family_dir, items, tmp_path):
    """Each with the policy, or with a slice of it. A step of training differs by rounding: there is one at a low
    rate, so that what is measured after it comes from nearly the same weights."""
    shards = write_pairs(tmp_path / "pairs", 4)
    ways = {"one": (1, "auto"), "ddp": (2, "ddp"), "slices": (2, {"class_path": FSDP})}
    for name, (processes, strategy) in ways.items():
        trainer = {"devices": processes, "strategy": strategy, "max_epochs": 1}
        groups = {"held_out": held_out(items, every_n_steps=2), "trainer": trainer}
        groups["data"] = {"batch_size": 2 // processes}
        groups["checkpoint"] = {"monitor": "held_out/chair/words", "mode": "max"}
        path = measured_config(family_dir("llava"), shards, tmp_path / name, **groups)
        settings = yaml.safe_load(path.read_text())
        settings["model"]["init_args"]["optimizer"] = {**SGD, "init_args": {"lr": 1e-4}}
        write(path, settings)
        launch(processes, [path])
    one = figures(tmp_path / "one")
    assert list(one["chair"]) == [0, 2]
    for name in ("ddp", "slices"):
        assert figures(tmp_path / name) == one
        for path in (tmp_path / "one" / "held_out").glob("*/*"):
            assert (tmp_path / name / path.relative_to(tmp_path / "one")).read_bytes() == path.read_bytes()
        assert table(tmp_path / name, "held_out/chair/words") == table(
            tmp_path / "one", "held_out/chair/words"
        )
        links = [(tmp_path / each / "checkpoints/best.ckpt").resolve().name for each in ("one", name)]
        assert links[0] == links[1]


@pytest.mark.slow
def test_steps_count_on_through_rounds(items, tmp_path):
    settings = rounds_config(tmp_path / "run", held_out=held_out(items, every_n_steps=2))
    settings["trainer"]["max_epochs"] = 2
    settings["rounds"] |= {"epochs": 1, "prompts_per_round": 8}
    main(["fit", "--config", str(write(tmp_path / "run.yaml", settings))])
    steps = list(figures(tmp_path / "run")["chair"])
    last = max(table(tmp_path / "run", "train/loss")) + 1
    assert steps == sorted({*range(0, last + 1, 2), last}) and len(steps) > 2
    assert (tmp_path / "run" / "summary.json").is_file()
