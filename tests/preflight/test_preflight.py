"""`rlaifv preflight` as it is run: what it says, what it refuses in fit's words, and that it leaves nothing."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from rlaifv_pl.cli.commands import main
from rlaifv_pl.cli.fit import main as train
from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.manifest import ManifestError
from rlaifv_pl.objectives.lr_schedule import total_steps
from rlaifv_pl.preflight import trial
from rlaifv_pl.preflight.findings import Findings
from tests.training.tiny import dpo_config, write_config, write_pairs

PAIRS = 23
ON_FIRE = [sys.executable, "-c", "raise SystemExit('error: the device is on fire')"]


@pytest.fixture
def settings(family_dir, tmp_path):
    """A config, its run's directory and its shards."""
    config = dpo_config(family_dir("llava"), write_pairs(tmp_path / "shards", PAIRS))
    config["trainer"]["default_root_dir"] = str(tmp_path / "run")
    return config


def looked(tmp_path: Path, settings: dict, *options: str) -> dict:
    """What preflight writes of a config, without a trial unless one is asked for."""
    config = write_config(tmp_path / "config.yaml", settings)
    main(
        [
            "preflight",
            "--config",
            str(config),
            "--out",
            str(tmp_path / "found.json"),
            "--trial",
            "0",
            *options,
        ]
    )
    return json.loads((tmp_path / "found.json").read_text())


def refused(capsys, tmp_path: Path, settings: dict, *options: str) -> str:
    """What preflight says that ends with exit code 1."""
    with pytest.raises(SystemExit) as stopped:
        looked(tmp_path, settings, *options)
    assert stopped.value.code not in (0, None)
    told = capsys.readouterr()
    assert "stands in the way" not in told.out
    return str(stopped.value.code) + told.out + told.err


def files(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


class Met(Exception):
    """The run has come as far as its first step."""


@pytest.mark.parametrize("data", [
    {"batch_size": 3}, {"batch_size": None, "max_tokens": 160}, {"batch_size": 2, "length_bucket": 8},
], ids=str)  # fmt: skip
def test_batches_and_steps_are_those_of_the_run(settings, tmp_path, monkeypatch, data):
    settings["data"] |= data
    settings["trainer"] |= {"accumulate_grad_batches": 2, "max_epochs": 3}
    found, seen = looked(tmp_path, settings), {}

    def first_step(module, batch, _index):
        loader = module.trainer.train_dataloader
        seen["steps"] = total_steps(module.trainer, module.trainer.max_epochs)
        seen["tokens"] = sorted(
            sum(branch.stop - branch.start for branch in each.layout.branches) for each in [batch, *loader]
        )
        raise Met

    monkeypatch.setattr("rlaifv_pl.objectives.base.AlignmentModule.training_step", first_step)
    with pytest.raises(Met):
        train(["fit", "--config", str(tmp_path / "config.yaml")])
    assert found["steps"]["in_all"] == seen["steps"] == 3 * found["steps"]["per_epoch"]
    assert found["samples"]["batches"]["max"] == max(seen["tokens"])
    assert found["samples"]["read"] == PAIRS


def test_it_leaves_nothing_behind(settings, tmp_path):
    before = files(tmp_path)
    looked(tmp_path, settings)
    assert files(tmp_path) - before == {"config.yaml", "found.json"}


def test_a_part_of_the_samples_stands_for_all(settings, tmp_path):
    found = looked(tmp_path, settings, "--samples", "5")
    assert found["samples"]["samples"] == PAIRS and found["samples"]["read"] == 5
    assert found["steps"]["per_epoch"] == 12  # Of two pairs, the last of one.


def test_a_device_that_is_too_small_gets_advice(capsys, settings, tmp_path):
    said = refused(capsys, tmp_path, settings, "--memory_gb", "0.0015")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["memory"]["total"] > found["memory"]["usable"] and found["problems"]
    words = [advice["words"] for advice in found["advice"]]
    assert "model.policy.gradient_checkpointing: true" in words and "model.reference: cached" in words
    assert all(advice["total"] < found["memory"]["total"] for advice in found["advice"])
    assert "DOES NOT FIT" in said


@pytest.mark.parametrize("change", ["long", "nowhere", "unnamed"])
def test_what_fit_refuses_is_refused_in_the_same_words(capsys, settings, tmp_path, change):
    if change == "long":
        settings["model"]["init_args"]["max_length"] = 3  # Fewer than the image's.
    else:
        settings["data"]["train"] = str(tmp_path / "nowhere") if change == "nowhere" else None
    said = refused(capsys, tmp_path, settings)
    with pytest.raises((BadSample, ManifestError, ValueError, FileNotFoundError)) as stopped:
        train(["fit", "--config", str(tmp_path / "config.yaml")])
    expected = str(stopped.value)
    if change == "long":  # The order of an epoch begins with another sample.
        said, expected = (text.split(": expected at most")[1] for text in (said, expected))
        assert said.split(",")[0] == expected.split(",")[0]
    else:
        assert expected in said


def test_samples_that_are_left_out_are_counted_by_reason(settings, tmp_path):
    longest = looked(tmp_path, settings)["samples"]["longest row"]
    settings["model"]["init_args"]["max_length"] = longest - 2
    settings["data"]["on_bad_sample"] = "skip"
    found = looked(tmp_path, settings)
    (reason,) = found["samples"]["unusable"]
    assert reason == "too_long"
    assert 0 < found["samples"]["unusable"][reason]["count"] < PAIRS
    assert found["samples"]["longest row"] <= longest - 2 and not found["problems"]


def test_without_a_trial_the_time_is_reckoned(settings, tmp_path):
    slow, fast = (
        looked(tmp_path, settings, "--tflops", tflops, "--mfu", "0.5")["time"] for tflops in ("1", "4")
    )
    assert "estimate" in fast["how"]
    assert slow["seconds in all"] == pytest.approx(4 * fast["seconds in all"])
    assert fast["seconds in all"] == pytest.approx(24 * fast["seconds a step"])


def test_a_trial_trains_steps_and_leaves_nothing(settings, tmp_path):
    before = files(tmp_path)
    found = looked(tmp_path, settings, "--trial", "3")
    assert "trial" in found["time"]["how"], found["notes"]
    assert 0 < found["time"]["seconds a step"] < 30
    assert files(tmp_path) - before == {"config.yaml", "found.json"}


@pytest.fixture
def quickstart(tmp_path):
    """The quickstart on few scenes: 2 rounds of 16 prompts, 2 epochs each."""
    config = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
    text = config.read_text().replace("count: 600", "count: 32").replace("count: 500", "count: 4")
    (tmp_path / "few.yaml").write_text(text)
    return ["preflight", "--config", str(tmp_path / "few.yaml"), "--out", str(tmp_path / "found.json"),
            "--trainer.default_root_dir", str(tmp_path / "run")]  # fmt: skip


@pytest.mark.slow
def test_rounds_are_tried_on_a_few_prompts(quickstart, tmp_path):
    before = files(tmp_path)
    main([*quickstart, "--trial", "2"])
    found = json.loads((tmp_path / "found.json").read_text())
    time, (note,) = found["time"], [note for note in found["notes"] if note.startswith("a round of")]
    assert note.startswith("a round of 16 prompts makes") and "answered here" in note
    assert time["seconds in all"] == pytest.approx(
        2 * (time["seconds of feedback a round"] + time["seconds of training a round"])
    )
    assert time["seconds of feedback a round"] == pytest.approx(
        16 * sum(each for name, each in time.items() if name.endswith("a prompt"))
    )
    assert files(tmp_path) - before == {"found.json"}


def test_rounds_that_cannot_be_tried_are_an_error(quickstart, tmp_path, monkeypatch):
    """And are reckoned with all the same, without another trial."""
    monkeypatch.setattr(trial, "FIT", ON_FIRE)
    with pytest.raises(SystemExit):
        main([*quickstart, "--trial", "2"])
    found = json.loads((tmp_path / "found.json").read_text())
    assert [problem for problem in found["problems"] if "the device is on fire" in problem] and found["steps"]


def test_a_model_whose_weights_do_not_fit_is_not_tried(quickstart, tmp_path, monkeypatch):
    monkeypatch.setattr(Findings, "room", 1_000_000)
    with pytest.raises(SystemExit):
        main([*quickstart, "--trial", "2"])
    found = json.loads((tmp_path / "found.json").read_text())
    (problem,) = [problem for problem in found["problems"] if "no step could be tried" in problem]
    assert "the weights alone are 4.7 MB" in problem


def test_what_was_not_tried_is_said(capsys, settings, tmp_path):
    """Tables go where other commands' tables go."""
    found = looked(tmp_path, settings)
    told = capsys.readouterr()
    assert found["untried"] == ["a step of the run (--trial 0)"] and not found["problems"]
    assert "not tried: a step of the run" in told.out and "stands in the way" not in told.out
    assert "steps in all" in told.out and "steps in all" not in told.err


def test_a_trial_that_fails_is_an_error(capsys, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "FIT", ON_FIRE)
    said = refused(capsys, tmp_path, settings, "--trial", "1")
    assert "the trial failed: error: the device is on fire" in said
    assert json.loads((tmp_path / "found.json").read_text())["problems"]


def test_a_trial_of_a_model_in_slices_cannot_be_made(capsys, settings, tmp_path):
    settings["trainer"] |= {"devices": 2, "strategy": {"class_path": "rlaifv_pl.training.fsdp.FSDP2Strategy"}}
    said = refused(capsys, tmp_path, settings, "--trial", "1")
    assert "no step could be tried" in said and "--trial 0" in said


def test_rows_longer_than_the_positions_are_a_problem(capsys, settings, tmp_path):
    model = shutil.copytree(settings["model"]["init_args"]["policy"]["path"], tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 16
    (model / "config.json").write_text(json.dumps(config))
    settings["model"]["init_args"]["policy"]["path"] = str(model)
    said = refused(capsys, tmp_path, settings)
    assert "16 positions" in said and "max_position_embeddings" in said
