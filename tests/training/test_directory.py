"""A run's directory: another run never begins in it unasked, and a start that fails leaves it as it was."""

import csv
import os
import shutil
from pathlib import Path

import pytest
import yaml

from rlaifv_pl.cli.export import export
from rlaifv_pl.cli.fit import main
from rlaifv_pl.data import atomic
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.objectives.checks import RunError
from rlaifv_pl.report.run_files import read_run
from rlaifv_pl.training.run_directory import Start
from rlaifv_pl.training.shown_command import rerun_command
from tests.training.tiny import dpo_config, write_config, write_pairs

STEPS = 5


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("shards") / "pairs", 2 * STEPS)


@pytest.fixture(scope="module")
def start(family_dir, shards):
    """`start(directory, *options)` trains an epoch there and returns what `main` returns."""

    def run(directory: Path, *options: object):
        settings = dpo_config(family_dir("llava"), shards)
        settings["trainer"] |= {"default_root_dir": str(directory), "max_epochs": 1}
        config = str(write_config(directory.with_suffix(".yaml"), settings))
        return main(["fit", "--config", config, *map(str, options)])

    return run


@pytest.fixture(scope="module")
def finished(start, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("finished") / "run"
    start(directory)
    return directory


@pytest.fixture
def used(finished, tmp_path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))


def content(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_a_finished_run_is_not_written_into(start, used):
    before = content(used)
    with pytest.raises(RunError) as refused:
        start(used)
    assert content(used) == before
    said = str(refused.value)
    commands = [
        "--ckpt_path last",
        "--overwrite true",
        f"--trainer.default_root_dir {used}-2",
        "rlaifv report",
    ]
    assert f"step {STEPS}" in said and all(command in said for command in commands)


def test_what_the_message_proposes_works(start, used):
    assert start(used, "--ckpt_path", "last", "--trainer.max_epochs", 2).trainer.global_step == 2 * STEPS
    start(used.with_name("run-2"))
    start(used, "--overwrite", "true")
    assert not list(used.glob("checkpoints/epoch1-*"))
    assert [path.name for path in used.glob("config*.yaml")].count("config.start1.yaml") == 0
    with open(used / "metrics.csv") as file:
        assert len(list(csv.DictReader(file))) == STEPS
    assert len(list((used / "tensorboard").glob("events*"))) == 1, "curves of one run"
    assert yaml.safe_load((used / "config.yaml").read_text())["overwrite"] is False


FAILURES = {
    "model": ["--model.policy.path", "no/such/model"],
    "data": ["--data.train", "no/such/shards"],
    "validation": ["--data.val", "no/such/shards"],
    "other model": ["--model.policy.path", "{other}"],
    "other objective": ["--model.class_path", "rlaifv_pl.objectives.SFTModule"],
}


@pytest.mark.parametrize("options", FAILURES.values(), ids=FAILURES)
def test_a_start_that_fails_leaves_what_describes_the_run(start, used, tmp_path, family_dir, options):
    options = [option.format(other=family_dir("gemma3")) for option in options]
    names = (
        "config.yaml",
        "config.start0.yaml",
        "metrics.csv",
        "checkpoints/last.ckpt",
        "export/config.json",
    )
    before = {name: (used / name).read_bytes() for name in names}
    with pytest.raises(Exception, match=r".") as failed:
        start(used, "--ckpt_path", "last", *options)
    assert not isinstance(failed.value, KeyError)
    assert {name: (used / name).read_bytes() for name in names} == before
    assert sorted(path.name for path in used.glob("config*")) == ["config.start0.yaml", "config.yaml"]
    export(str(used), str(tmp_path / "out"))


def test_a_checkpoint_of_another_objective_is_refused_by_name(start, used):
    with pytest.raises(RunError, match=r"DPOModule.*SFTModule"):
        start(used, "--ckpt_path", "last", "--model.class_path", "rlaifv_pl.objectives.SFTModule")


def test_a_run_without_a_checkpoint_is_started_again_by_the_same_command(start, tmp_path):
    """Of the start that was killed nothing is left to be mixed with this one."""
    run = tmp_path / "run"
    (run / "tensorboard").mkdir(parents=True)
    (run / "tensorboard" / "events.out.tfevents.1.old").write_text("old")
    (run / "config.yaml").write_text("old: true")
    (run / "metrics.csv").write_text("epoch,step,old\n1,0,1.0\n1,99,1.0\n")
    start(run)
    assert "old" not in (run / "config.yaml").read_text()
    assert "old" not in (run / "metrics.csv").read_text().splitlines()[0]
    assert not list((run / "tensorboard").glob("*.old"))


def test_rounds_are_not_mixed_with_a_run_that_makes_none(tmp_path):
    (tmp_path / "rounds" / "1").mkdir(parents=True)
    with pytest.raises(RunError, match="rounds"):
        Start(directory=tmp_path).check({}, ["fit"])
    Start(directory=tmp_path, makes_rounds=True).check({}, ["fit"])


def test_overwriting_never_removes_what_the_run_needs(start, used):
    with pytest.raises(RunError, match=r"model\.policy\.path"):
        start(used, "--overwrite", "true", "--model.policy.path", used / "export")
    with pytest.raises(RunError, match="leave one of them out"):
        start(used, "--overwrite", "true", "--ckpt_path", "last")
    assert (used / "export" / "config.json").is_file()


CHECKPOINTS = {
    "missing": "no/such.ckpt",
    "a directory": "{run}/checkpoints",
    "cut": "{run}/cut.ckpt",
    "something else": "{run}/config.yaml",
}


@pytest.mark.parametrize("named", CHECKPOINTS.values(), ids=CHECKPOINTS)
@pytest.mark.parametrize("command", ["fit", "validate"])
def test_a_checkpoint_that_is_none_is_named_before_a_model_is_loaded(start, used, named, command):
    whole = (used / "checkpoints/last.ckpt").read_bytes()
    (used / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    path, config = named.format(run=used), str(used / "config.yaml")
    options = ["--model.policy.path", "no/such/model", "--ckpt_path", path]
    with pytest.raises(RunError, match=f"--ckpt_path: {path}.*epoch0-step{STEPS}"):
        main([command, "--config", config, *options])


def test_validating_without_a_checkpoint_does_not_take_the_base(tmp_path, used):
    config = ["--config", str(used / "config.yaml"), "--trainer.default_root_dir", str(tmp_path / "empty")]
    with pytest.raises(RunError, match=r"last\.ckpt does not exist"):
        main(["validate", *config, "--ckpt_path", "last"])


def read_only(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """As on a read-only file system, for a user who may write anywhere else, such as root."""
    may = os.access

    def access(path: Path, mode: int) -> bool:
        return may(path, mode) and not (mode & os.W_OK and Path(path).is_relative_to(place))

    monkeypatch.setattr(atomic.os, "access", access)


def test_a_read_only_place_is_named_before_a_model_is_loaded(start, tmp_path, monkeypatch):
    (tmp_path / "place").mkdir()
    read_only(monkeypatch, tmp_path / "place")
    monkeypatch.setattr("rlaifv_pl.objectives.base.load_policy", lambda *_: pytest.fail("loaded"))
    settings = tmp_path / "place" / "run"
    with pytest.raises(RunError, match=r"place is read-only.*--trainer\.default_root_dir DIR"):
        start(settings.with_name("run"), "--trainer.default_root_dir", settings)


@pytest.mark.parametrize("kind", ["reference", "tower", "sizes"])
def test_read_only_shards_are_named_before_a_model_is_loaded(start, tmp_path, shards, monkeypatch, kind):
    copy = Path(shutil.copytree(shards, tmp_path / "shards"))
    for made in copy.glob(f"{kind}-*"):
        shutil.rmtree(made)
    read_only(monkeypatch, copy)
    monkeypatch.setattr("rlaifv_pl.objectives.base.load_policy", lambda *_: pytest.fail("loaded"))
    option = {
        "reference": ["--model.reference", "cached"],
        "tower": ["--data.cache_vision", "true"],
        "sizes": ["--data.length_bucket", "4"],
    }[kind]
    with pytest.raises(ValueError, match=r"shards is read-only.*--data\.cache_dir DIR"):
        start(tmp_path / "run", "--data.train", copy, *option)


def test_read_only_shards_with_a_cache_elsewhere_train_as_beside(start, tmp_path, shards, monkeypatch):
    copy = Path(shutil.copytree(shards, tmp_path / "shards"))
    options = ["--data.train", copy, "--model.reference", "cached", "--data.cache_vision", "true"]
    beside = Path(shutil.copytree(shards, tmp_path / "beside"))
    start(tmp_path / "one", *options, "--data.train", beside, "--data.length_bucket", "4")
    before = content(copy)
    read_only(monkeypatch, copy)
    cache = ["--data.cache_dir", tmp_path / "cache", "--data.length_bucket", "4"]
    start(tmp_path / "two", *options, *cache)
    assert content(copy) == before
    made = {path.parent.name.split("-")[0] for path in (tmp_path / "cache").rglob("*.safetensors")}
    assert made == {"reference", "tower", "sizes"}
    weights = [tmp_path / name / "export/model.safetensors" for name in ("one", "two")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_two_directories_of_one_name_share_no_cache(tmp_path):
    places = []
    for owner in ("mine", "yours"):
        write_pairs(tmp_path / owner / "pairs", 2)
        places.append(load_shards(tmp_path / owner / "pairs", tmp_path / "cache").cache_of(0))
    assert places[0] != places[1] and all(place.parent == tmp_path / "cache" for place in places)
    assert load_shards(tmp_path / "mine" / "pairs").cache_of(0) == tmp_path / "mine" / "pairs"


def test_a_relative_path_of_the_policy_is_found_from_another_folder(start, family_dir, tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(family_dir("llava"), tmp_path / "project" / "models" / "base")
    monkeypatch.chdir(tmp_path / "project")
    start(Path("run"), "--model.policy.path", "models/base", "--export.enabled", "false")
    monkeypatch.chdir(tmp_path / "elsewhere")
    export("../project/run", "out")
    assert (tmp_path / "elsewhere" / "out" / "config.json").is_file()


def test_files_of_two_runs_are_never_mixed_in_silence(used):
    assert read_run(used).mixed == []
    settings = yaml.safe_load((used / "config.yaml").read_text())
    settings["model"]["init_args"]["policy"]["path"] = "another/model"
    settings["data"]["train"] = "other/shards"
    (used / "config.yaml").write_text(yaml.safe_dump(settings))
    (told,) = read_run(used).mixed
    assert "config.start0.yaml" in told and "another/model" in told
    (used / "rounds").mkdir()
    (used / "rounds" / "ledger.json").write_text('{"1": {"pairs": 3}}')
    assert any("rounds" in one for one in read_run(used).mixed)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["fit", "--ckpt_path", "a b", "--x", "1"], "fit --x 1 --ckpt_path last"),
        (["fit", "--ckpt_path=a", "--x", "a b"], "fit --x 'a b' --ckpt_path last"),
        (["fit", "--y", "-1"], "fit --y -1 --ckpt_path last"),
    ],
)
def test_a_command_is_given_again_with_an_option_in_place_of_the_old_one(given, expected):
    assert rerun_command(given, ckpt_path="last") == f"python train.py {expected}"
