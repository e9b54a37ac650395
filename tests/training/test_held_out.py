"""Measured while it trains: the figures are those of `rlaifv evaluate`, and the training is what it was."""

import json
import re
from pathlib import Path

import pytest
import torch

from rlaifv_pl.cli.evaluate import evaluate
from rlaifv_pl.cli.fit import main
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError
from rlaifv_pl.objectives.checks import RunError
from rlaifv_pl.training.best_checkpoint import BestCheckpoint
from rlaifv_pl.training.held_out import HeldOutBenchmark, HeldOutEvaluation
from tests.training.held import figures, held_out, measured_config, write_items
from tests.training.tiny import table, write_pairs

STEPS = [0, 4, 8, 10]
"""Of 10, measured every 4."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("shards") / "pairs", 10)


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> Path:
    return write_items(tmp_path_factory.mktemp("held") / "items")


@pytest.fixture(scope="module")
def fit(family_dir, shards, items):
    """`fit(directory, options, **groups)` trains there, measured unless told otherwise."""

    def run(directory: Path, *options: object, **groups):
        groups = {"held_out": held_out(items), **groups}
        path = measured_config(family_dir("llava"), shards, directory, **groups)
        return main(["fit", "--config", str(path), *map(str, options)])

    return run


@pytest.fixture(scope="module")
def measured(fit, tmp_path_factory):
    """A run that was measured, and its command line."""
    directory = tmp_path_factory.mktemp("runs") / "measured"
    return directory, fit(directory)


def weights(directory: Path) -> bytes:
    return (directory / "export" / "model.safetensors").read_bytes()


def test_figures_are_those_that_evaluate_gives_of_the_kept_responses(measured, items):
    directory, _ = measured
    found = figures(directory)
    assert {name: list(steps) for name, steps in found.items()} == {"chair": STEPS, "asked": STEPS}
    for step in STEPS:
        for name, truth, options in (
            ("chair", "objects.json", {"metric": "chair", "variant": "A"}),
            ("asked", "questions.jsonl", {"metric": "pope"}),
        ):
            kept = directory / "held_out" / name / f"{step:08d}.jsonl"
            report = evaluate(responses=str(kept), ground_truth=str(items / truth), **options)
            assert found[name][step] == {figure: report[figure] for figure in found[name][step]}
        assert found["asked"][step]["n"] == 5 and found["chair"][step]["n"] == 5
    captions = [
        [json.loads(line)["caption"] for line in path.read_text().splitlines()]
        for path in sorted((directory / "held_out" / "chair").glob("*.jsonl"))
    ]
    for step, said in zip(STEPS, captions, strict=True):
        assert found["chair"][step]["words"] == sum(len(text.split()) for text in said) / len(said)
    assert captions[0] != captions[-1], "the policy has learned nothing that it would say"


def test_figures_are_logged_and_there_for_other_callbacks(measured):
    directory, cli = measured
    found = figures(directory)["chair"]
    # As all that is logged of an update, which are counted from 0; before the first there is only the policy as given.
    logged = table(directory, "held_out/chair/words")
    assert {int(step): float(value) for step, value in logged.items()} == {
        max(0, step - 1): found[step]["words"] for step in STEPS
    }
    values = cli.trainer.callback_metrics
    assert values["held_out/chair/words"].item() == found[10]["words"]
    assert values["held_out/asked/accuracy"].item() == figures(directory)["asked"][10]["accuracy"]
    assert "held_out/asked/f1" in cli.trainer.progress_bar_metrics
    assert not list(directory.glob("held_out/**/*.parts"))


def test_measuring_changes_nothing_of_the_training(measured, fit, tmp_path):
    directory, _ = measured
    fit(tmp_path / "plain", held_out={})
    fit(tmp_path / "often", "--held_out.every_n_steps=1", "--model.reference=live")
    assert not (tmp_path / "plain" / "held_out").exists()
    assert weights(tmp_path / "plain") == weights(directory) == weights(tmp_path / "often")
    for column in ("train/loss", "train/logps/chosen"):
        assert table(tmp_path / "plain", column) == table(directory, column)
    assert list(figures(tmp_path / "often")["chair"]) == list(range(11))
    for step in STEPS:
        assert figures(tmp_path / "often")["chair"][step] == figures(directory)["chair"][step]


def test_the_end_of_the_run_says_how_the_figures_went(fit, tmp_path, capsys):
    fit(tmp_path / "run", "--trainer.max_steps=3", "--held_out.every_n_steps=0")
    said = capsys.readouterr().err
    assert list(figures(tmp_path / "run")["chair"]) == [0, 3]
    assert "held-out figures" in said and "CHAIRi" in said and "accuracy" in said and "yes_ratio" not in said


# The best checkpoint.


def names(directory: Path) -> set[str]:
    return {path.name for path in (directory / "checkpoints").iterdir()}


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_measured_step_is_saved_and_survives(fit, tmp_path, mode):
    more = ["--checkpoint.every_n_train_steps=0", "--held_out.every_n_steps=1"]
    fit(tmp_path / "run", *more, "--checkpoint.monitor=held_out/chair/words", f"--checkpoint.mode={mode}")
    words = {step: found["words"] for step, found in figures(tmp_path / "run")["chair"].items() if step}
    best = (min if mode == "min" else max)(words, key=words.get)  # The first of equals.
    link = tmp_path / "run" / "checkpoints" / "best.ckpt"
    name = f"epoch{(best - 1) // 5}-step{best}.ckpt"
    assert link.resolve().name == name and not link.readlink().is_absolute()
    assert names(tmp_path / "run") == {
        "best.ckpt", "last.ckpt", "epoch1-step10.ckpt", name, *newest_before_the_last(tmp_path / "run")
    }  # fmt: skip
    assert torch.load(link, weights_only=True)["global_step"] == best


def newest_before_the_last(directory: Path) -> set[str]:
    """The other one of the two newest that stay."""
    steps = {int(name.split("step")[1][:-5]): name for name in names(directory) if "step" in name}
    return {steps[sorted(steps)[-2]]}


def test_a_run_that_goes_on_knows_the_best_one(fit, tmp_path):
    more = [
        "--held_out.every_n_steps=1",
        "--checkpoint.monitor=held_out/chair/words",
        "--checkpoint.mode=max",
        "--model.schedule=constant",  # The first run is shorter than what it becomes.
        "--model.warmup=0",
    ]
    fit(tmp_path / "whole", *more)
    fit(tmp_path / "run", *more, "--trainer.max_epochs=1")
    first = (tmp_path / "run/checkpoints/best.ckpt").resolve().name
    (tmp_path / "run/checkpoints/best.ckpt").unlink()  # A kill came between saving and linking.
    fit(tmp_path / "run", *more, "--ckpt_path=last")
    best = (tmp_path / "run/checkpoints/best.ckpt").resolve().name
    assert best == (tmp_path / "whole/checkpoints/best.ckpt").resolve().name
    words = {step: found["words"] for step, found in figures(tmp_path / "run")["chair"].items() if step}
    later = max(words[step] for step in range(6, 11)) > max(words[step] for step in range(1, 6))
    assert (best != first) == later


def test_a_fresh_start_in_an_old_directory_has_no_best_one_of_the_old_run(fit, tmp_path):
    more = [
        "--trainer.max_steps=2",
        "--held_out.every_n_steps=0",
        "--checkpoint.monitor=held_out/chair/Recall",
    ]
    fit(tmp_path / "run", *more, "--checkpoint.monitor=held_out/chair/words", "--checkpoint.mode=max")
    assert "best.ckpt" in names(tmp_path / "run")
    again = ["--overwrite=true", "--trainer.max_steps=3", "--held_out.benchmarks.chair.prompt_template=Well?"]
    fit(tmp_path / "run", *more, *again)
    found = figures(tmp_path / "run")["chair"]
    assert list(found) == [0, 3], "what was measured of the other prompt template is gone"
    link = tmp_path / "run/checkpoints/best.ckpt"
    assert link.resolve().name == "epoch0-step3.ckpt"


def test_a_value_that_is_not_defined_is_never_the_best():
    best = BestCheckpoint("held_out/chair/CHAIRi")
    assert (
        not best.update(float("nan"), "a") and best.update(50.0, "b") and not best.update(float("nan"), "c")
    )
    again = BestCheckpoint("held_out/chair/CHAIRi")
    again.load_state_dict(best.state_dict())
    assert (again.score, again.name) == (50.0, "b") and not again.update(50.0, "d")
    other = BestCheckpoint("held_out/chair/CHAIRs")
    other.load_state_dict(best.state_dict())
    assert other.update(90.0, "e"), "another figure has another best"


# Mistakes, before anything is trained.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--checkpoint.monitor=held_out/chair/CHAIR"], "held-out figures.*held_out/chair/CHAIRs"),
        (
            ["--checkpoint.monitor=val/loss", "--held_out.benchmarks=null", "--held_out.images=null"],
            "no held_out.benchmarks",
        ),
        (["--checkpoint.monitor=held_out/chair/words"], "set checkpoint.mode"),
        (["--checkpoint.mode=min"], "checkpoint.mode needs checkpoint.monitor"),
        (["--held_out.benchmarks.chair.variant=null"], "held_out.benchmarks.chair: chair has variants"),
        (["--held_out.benchmarks.asked.variant=A"], "held_out.benchmarks.asked: pope has no variants"),
        (
            ["--held_out.benchmarks.asked.ground_truth=gone.jsonl"],
            "held_out.benchmarks.asked: gone.jsonl cannot be",
        ),
        (["--held_out.images=gone"], "held_out.benchmarks.asked: gone: expected an image"),
        (["--held_out.benchmarks.chair.limit=0"], "at least 1"),
        (["--held_out.every_n_steps=-1"], "every_n_steps >= 0"),
    ],
)
def test_a_mistake_is_said_before_anything_is_trained(fit, tmp_path, capsys, options, said):
    with pytest.raises((SystemExit, RunError, BenchmarkError)) as error:
        fit(tmp_path / "run", *options)
    text = f"{error.value} {capsys.readouterr().err}".replace("\n", " ")
    assert re.search(said, text), text
    assert not (tmp_path / "run" / "held_out").exists() and not (tmp_path / "run" / "metrics.csv").exists()


def test_settings_that_go_nowhere_are_refused():
    with pytest.raises(ValueError, match="no held_out"):
        HeldOutEvaluation(images="photos")
    one = HeldOutBenchmark(metric="pope", ground_truth="q.jsonl")
    with pytest.raises(ValueError, match=r"benchmarks\.a has no images"):
        HeldOutEvaluation({"a": one})
    for name in ("a/b", "", "..", ".a"):
        with pytest.raises(ValueError, match="valid directory names"):
            HeldOutEvaluation({name: one}, images="photos")
