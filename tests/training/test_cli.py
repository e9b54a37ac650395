"""The command line: what it takes, what it refuses, and in how many words."""

import copy
import doctest
import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from rlaifv_pl.cli import commands, usage_errors
from rlaifv_pl.cli.fit import main
from rlaifv_pl.cli.option_aliases import OPTION_ALIASES, RENAMED_KEYS
from rlaifv_pl.objectives import terms
from tests.training.tiny import dpo_config, run, table, write_config, write_pairs

LONGEST = 600
DPO = dpo_config(Path("no/such/model"), Path("no/such/shards"))


@pytest.fixture
def config(tmp_path):
    """`config("data", batch_size=3)` is a config file with that change, inside a group or below it."""

    def write(*group, drop=None, **changes) -> str:
        settings = copy.deepcopy(DPO)
        place = settings
        for key in group:
            place = place[key]
        place |= changes
        if drop:
            del place[drop]
        return str(write_config(tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml", settings))

    return write


def refused(capsys, *arguments: str) -> str:
    """What the command line says about a mistake."""
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *map(str, arguments)])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.startswith("error: ") and len(said) < LONGEST
    assert "usage" not in said.lower() and "Traceback" not in said
    return said


def printed(capsys, *arguments: str) -> dict:
    """The config that a run with these arguments would have."""
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *map(str, arguments), "--print_config"])
    assert stopped.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


OPTIONS = [
    (["--trainer.max_epoch", "3"], "--trainer.max_epoch", "trainer.max_epochs"),
    (["--trainer.max_epoch=3"], "--trainer.max_epoch", "trainer.max_epochs"),
    (["--data.batchsize", "3"], "--data.batchsize", "data.batch_size"),
    (["--checkpont.save_top_k", "3"], "--checkpont.save_top_k", "checkpoint.save_top_k"),
    (["--model.policy.pth", "x"], "policy.pth", "policy.path"),
    (["--model.init_args.policy.pth", "x"], "policy.pth", "policy.path"),
    (["--model.refrence", "live"], "refrence", "reference"),
    (["--model.optimizer.lrr", "1"], "lrr", "lr"),
    (["--model.losses+=Sigmoid", "--model.losses.betta=1"], "betta", "beta"),
    (["--model", "rlaifv_pl.objectives.DPOModul"], "DPOModul", "DPOModule"),
    (["--model.optimizer", "torch.optim.AdamWW"], "AdamWW", "AdamW"),
]


@pytest.mark.parametrize(("arguments", "wrong", "right"), OPTIONS, ids=lambda value: str(value)[:30])
def test_a_wrong_name_on_the_command_line_gets_the_nearest_right_one(capsys, config, arguments, wrong, right):
    said = refused(capsys, "--config", config(), *arguments)
    assert wrong in said
    mended = said.split("did you mean ")[1].split("?")[0].split(" or ")
    assert mended[0] == right


FOREIGN = [
    (["--rpo_alpha", "1"], "rpo_alpha", "NLL"),
    (["--pref_beta=0.1"], "pref_beta", "model.losses"),
    (["--model.freeze_vit", "true"], "freeze_vit", "model.policy.freeze_vision"),
    (["--freeze_vision_tower", "true"], "freeze_vision_tower", "model.policy.freeze_vision"),
    (["--data.per_device_train_batch_size", "4"], "per_device_train_batch_size", "data.batch_size"),
    (["--trainer.num_train_epochs", "4"], "num_train_epochs", "trainer.max_epochs"),
    (["--max_prompt_length", "4"], "max_prompt_length", "never cut"),
    (["--model.optimizer.learning_rate", "1"], "learning_rate", "model.optimizer.lr"),
    (["--lora_rank", "8", "--lora_target=all"], "lora_target", "all linear layers"),
    (["--lora_rank", "8", "--lora_target=all"], "lora_rank", "model.policy.lora.rank"),
]


@pytest.mark.parametrize(("arguments", "foreign", "ours"), FOREIGN, ids=lambda value: str(value)[:30])
def test_a_name_of_another_trainer_is_answered_with_ours(capsys, config, arguments, foreign, ours):
    said = refused(capsys, "--config", config(), *arguments)
    (answer,) = [line for line in said.splitlines() if line.strip().startswith(f"{foreign} is, here, ")]
    assert ours in answer
    assert "did you mean" not in said


@pytest.mark.parametrize("old", RENAMED_KEYS)
def test_an_old_name_of_a_key_is_answered_with_the_new_one(capsys, config, tmp_path, old):
    root, *path = old.split(".")
    assert f"{old} is now {RENAMED_KEYS[old]}" in refused(capsys, "--config", config(), f"--{old}", "3")
    settings: dict | int = 3
    for key in reversed(["init_args", *path] if root == "model" else path):
        settings = {key: settings}
    stacked = write_config(tmp_path / "old.yaml", {root: settings})
    said = refused(capsys, "--config", config(), "--config", stacked)
    assert f"{old} is now {RENAMED_KEYS[old]}" in said


def test_an_unknown_key_in_the_config_of_another_command_is_named(capsys, tmp_path):
    """Of a command of two words, whose parser is nested in that of its group."""
    path = write_config(tmp_path / "config.yaml", {"prompts": "a", "feedback": {"bogus": {"n": 3}}})
    with pytest.raises(SystemExit) as stopped:
        commands.main(["feedback", "--config", str(path)])
    assert "'feedback'" in str(stopped.value) and "'bogus.n'" in str(stopped.value)


def options_of(settings, place=""):
    """Names of all options of a config, as they are written from its root."""
    for key, value in settings.items():
        name = place if key in ("init_args", "class_path") else f"{place}.{key}".lstrip(".")
        yield name
        if isinstance(value, dict):
            yield from options_of(value, name)


def test_the_options_that_stand_for_those_of_others_are_there(capsys, config):
    settings = printed(capsys, "--config", config(), "--model.policy.lora.rank", "8")
    there = set(options_of(settings)) | set(inspect.signature(Trainer).parameters)
    named = {
        name
        for answer in OPTION_ALIASES.values()
        for name in re.findall(r"\b(?:model|data|checkpoint|trainer)\.[\w.]+\w", answer)
    }
    assert len(named) > 30
    assert {
        name for name in named if name not in there and name.removeprefix("trainer.") not in there
    } == set()
    classes = {
        name
        for answer in OPTION_ALIASES.values()
        for name in re.findall(r"(?:term|class_path:) ([A-Z]\w+)", answer)
    }
    assert classes == {"NLL", "SimPO", "Sigmoid"}
    assert all(issubclass(getattr(terms, name), terms.Term) for name in classes)


FILES = [
    (["trainer"], {"max_epoch": 3}, "trainer.max_epoch", "trainer.max_epochs"),
    (["data"], {"batchsize": 3}, "data.batchsize", "data.batch_size"),
    ([], {"trainr": {"max_epochs": 3}}, "trainr.max_epochs", "trainer.max_epochs"),
    (["model", "init_args"], {"refrence": "live"}, "refrence", "reference"),
    (["model", "init_args", "policy"], {"pth": "x"}, "pth", "policy.path"),
    (["model", "init_args", "optimizer", "init_args"], {"lrr": 1}, "lrr", "lr"),
    (["model"], {"class_path": "rlaifv_pl.objectives.DPOO"}, "DPOO", "DPOModule"),
    (["data"], {"val_batch_size": "${data.batchsize}"}, "data.batchsize", "data.batch_size"),
]


@pytest.mark.parametrize(("group", "change", "wrong", "right"), FILES, ids=lambda value: str(value)[:30])
def test_a_wrong_name_in_a_config_file_gets_the_nearest_right_one(
    capsys, config, group, change, wrong, right
):
    said = refused(capsys, "--config", config(*group, **change))
    assert wrong in said
    assert said.split("did you mean ")[1].split("?")[0].split(" or ")[0] == right


MISTAKES = [
    ((), {}, ["--data.batch_size", "many"], ["data.batch_size", "int", "many"]),
    (["data"], {"batch_size": "many"}, [], ["data.batch_size", "int", "many"]),
    ((), {}, ["--model.reference", "lively"], ["reference", "lively", "adapter_off"]),
    (["model", "init_args", "policy"], {"drop": "path"}, [], ["policy.path", "required"]),
    (["model", "init_args"], {"drop": "optimizer"}, [], ["optimizer", "required"]),
    ([], {"drop": "model"}, [], ["model", "required"]),
    ((), {}, ["--checkpoint.save_top_k", "1"], ["checkpoint.save_top_k is 1", "at least 2"]),
    ((), {}, ["--model.reference", "none"], ["Sigmoid", "reference"]),
    ((), {}, ["--model.reference", "adapter_off"], ["adapter_off", "policy.lora"]),
    ((), {}, ["--config", "/nowhere.yaml"], ["/nowhere.yaml", "not exist"]),
    ((), {}, ["more"], ["more"]),
]


@pytest.mark.parametrize(
    ("group", "change", "arguments", "words"), MISTAKES, ids=lambda value: str(value)[:30]
)
def test_a_wrong_value_is_refused_in_a_few_lines_that_name_it(
    capsys, config, group, change, arguments, words
):
    said = refused(capsys, "--config", config(*group, **change), *arguments)
    assert all(word in said for word in words), said


def test_a_mistake_inside_an_object_names_the_object_that_it_is_in(capsys, config):
    said = refused(capsys, "--config", config(), "--model.losses+=Sigmoid", "--model.losses.betta=1")
    places = ['"model"', "DPOModule", '"losses"', "terms.Sigmoid", "betta"]
    found = [said.index(place) for place in places]
    assert found == sorted(found), "from the outside in"


def test_later_configs_and_options_change_what_they_name_and_nothing_else(capsys, config, tmp_path):
    machine = write_config(tmp_path / "machine.yaml", {"trainer": {"devices": 2}, "data": {"num_workers": 5}})
    plain = printed(capsys, "--config", config())
    stacked = printed(capsys, "--config", config(), "--config", machine, "--data.batch_size", "3")
    plain["trainer"]["devices"], plain["data"]["num_workers"], plain["data"]["batch_size"] = 2, 5, 3
    assert stacked == plain


def test_variables_reach_across_files_and_follow_later_options(capsys, config, tmp_path):
    other = write_config(
        tmp_path / "other.yaml", {"model": {"init_args": {"max_length": "${data.batch_size}"}}}
    )
    read = printed(capsys, "--config", config(), "--config", other)
    assert read["model"]["init_args"]["max_length"] == DPO["data"]["batch_size"]
    read = printed(capsys, "--config", config(), "--config", other, "--data.batch_size", "99")
    assert read["model"]["init_args"]["max_length"] == 99


def test_objectives_optimisers_and_losses_are_exchanged_by_a_config(capsys, config, tmp_path):
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5, "momentum": 0.9}}
    losses = [{"class_path": "rlaifv_pl.objectives.terms.Sigmoid", "init_args": {"beta": 0.4}}]
    other = write_config(tmp_path / "a.yaml", {"model": {"init_args": {"optimizer": sgd, "losses": losses}}})
    read = printed(capsys, "--config", config(), "--config", other)["model"]["init_args"]
    assert read["optimizer"]["class_path"] == "torch.optim.SGD"
    assert read["optimizer"]["init_args"]["momentum"] == 0.9 and "betas" not in read["optimizer"]["init_args"]
    assert [loss["init_args"]["beta"] for loss in read["losses"]] == [0.4]
    sft = write_config(tmp_path / "sft.yaml", {"model": {"class_path": "rlaifv_pl.objectives.SFTModule"}})
    read = printed(capsys, "--config", config(), "--config", sft)["model"]
    assert read["class_path"] == "rlaifv_pl.objectives.SFTModule"
    assert read["init_args"]["policy"]["path"] == "no/such/model" and "losses" not in read["init_args"]


def test_the_printed_config_is_complete_and_reads_back_as_itself(capsys, config, tmp_path):
    read = printed(capsys, "--config", config())
    assert set(read) >= {"seed_everything", "trainer", "model", "data", "checkpoint", "export"}
    assert set(read["checkpoint"]) == {
        "every_n_train_steps",
        "train_time_interval",
        "save_top_k",
        "monitor",
        "mode",
    }
    assert read["trainer"]["use_distributed_sampler"] is False
    assert read["trainer"]["reload_dataloaders_every_n_epochs"] == 1
    assert {"schedule", "warmup", "reference", "losses", "max_length"} <= set(read["model"]["init_args"])
    assert read["model"]["init_args"]["policy"]["freeze_vision"] is True
    assert printed(capsys, "--config", write_config(tmp_path / "again.yaml", read)) == read


def test_the_process_says_a_mistake_in_one_message_too(config):
    done = run("fit", "--config", config(), "--trainer.max_epoch", "3")
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr) < LONGEST and "trainer.max_epochs" in done.stderr


@pytest.fixture(scope="module")
def trained(family_dir, tmp_path_factory) -> list[str]:
    """Arguments of a run, some steps of which are done."""
    root = tmp_path_factory.mktemp("trained")
    settings = dpo_config(family_dir("llava"), write_pairs(root / "pairs", 12), export={"enabled": False})
    settings["trainer"]["default_root_dir"] = str(root / "run")
    settings["model"]["init_args"] |= {"schedule": "constant", "warmup": 0.0}
    arguments = ["--config", str(write_config(root / "dpo.yaml", settings))]
    main(["fit", *arguments, "--trainer.max_epochs", "1"])
    return [*arguments, f"--trainer.default_root_dir={root / 'run'}"]


def test_a_checkpoint_never_overrules_the_config(trained, tmp_path):
    directory = Path(trained[-1].split("=")[1])
    checkpoint = directory / "checkpoints" / "last.ckpt"
    changed = ["--model.optimizer.lr", "5e-4", "--model.optimizer.weight_decay", "0.3"]
    changed += ["--model.losses+=Sigmoid", "--model.losses.beta", "0.7"]
    elsewhere = f"--trainer.default_root_dir={tmp_path}"
    cli = main(
        ["fit", *trained, *changed, elsewhere, "--ckpt_path", str(checkpoint), "--trainer.max_epochs", "2"]
    )
    assert set(table(tmp_path, "train/lr")) == set(range(6, 12)), "it did resume"
    assert set(table(tmp_path, "train/lr").values()) == {str(torch.tensor(5e-4).item())}
    (group,) = cli.trainer.optimizers[0].param_groups
    assert group["weight_decay"] == 0.3
    assert cli.model.losses[0].beta == 0.7
    assert cli.trainer.optimizers[0].state, "but the optimiser's state is the checkpoint's"


def test_validating_reads_the_checkpoint_and_leaves_the_run_as_it_is(trained, tmp_path, capsys):
    directory = Path(trained[-1].split("=")[1])
    before = {path: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    val = write_pairs(tmp_path / "val", 4, seed=2)
    main(
        [
            "validate",
            *trained,
            f"--data.val={val}",
            "--ckpt_path",
            str(directory / "checkpoints" / "last.ckpt"),
        ]
    )
    assert "val/rewards/margins" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in directory.iterdir() if path.is_file()} == before


def test_a_logger_elsewhere_leaves_the_config_in_the_directory_of_the_run(trained, tmp_path):
    logger = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path / 'logs'}"]
    main(
        ["fit", *trained, f"--trainer.default_root_dir={tmp_path / 'run'}", *logger, "--trainer.max_steps=1"]
    )
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]["max_steps"] == 1
    assert len(list((tmp_path / "logs").rglob("metrics.csv"))) == 1
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_the_examples_of_the_messages_hold():
    assert doctest.testmod(usage_errors).attempted >= 2 and doctest.testmod(usage_errors).failed == 0


def test_threads_are_set_for_the_whole_run(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(Trainer, "fit", lambda *_args, **_options: None)
    try:
        main(["fit", "--config", str(Path(__file__).parents[2] / "configs" / "dpo.yaml"), "--threads", "3"])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
