"""Every config builds what it says, and opens with the command that runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Trainer

from rlaifv_pl.cli import commands
from rlaifv_pl.cli.fit import main
from rlaifv_pl.feedback.pipeline import FeedbackPipeline
from rlaifv_pl.rounds import Rounds
from rlaifv_pl.training.signals import EXIT_CODE

ROOT = Path(__file__).parents[1]
FEEDBACK = ROOT / "configs" / "feedback.yaml"
AT_SCALE = sorted((ROOT / "configs" / "feedback").glob("*.yaml"))
"""Feedback by the same recipe, on more than one GPU."""
CONFIGS = sorted({*(ROOT / "configs").rglob("*.yaml")} - {FEEDBACK, *AT_SCALE})
LAYERS = {
    "lora.yaml": ["--config", "dpo"],
    "held_out.yaml": ["--config", "dpo"],
    "tiny.yaml": ["--config", "dpo"],
    "rounds_nsft.yaml": ["--config", "rounds"],
    "ddp.yaml": ["--config", "dpo"],
    "fsdp.yaml": ["--config", "dpo"],
    "multinode.yaml": ["--config", "dpo"],
    "slurm.yaml": ["--config", "dpo"],
}
"""What a config that is no run by itself is stacked on."""


def name_of(config: Path) -> str:
    """The name by which `--config` finds a packaged config."""
    return config.relative_to(ROOT / "configs").as_posix().removesuffix(".yaml")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_each_config_builds_its_module_data_and_trainer(config, monkeypatch, tmp_path):
    """Nothing is loaded or trained: a model of 7B is only named here."""
    monkeypatch.chdir(tmp_path)
    if config.name == "slurm.yaml":
        for name in ("NODEID", "LOCALID", "PROCID"):
            monkeypatch.setenv(f"SLURM_{name}", "0")
    started = []
    monkeypatch.setattr(Trainer, "fit", lambda self, model, **options: started.append((self, model, options)))
    main(
        [
            "fit",
            *LAYERS.get(config.name, []),
            "--config",
            name_of(config),
            f"--trainer.default_root_dir={tmp_path}",
            *(
                ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
                if config.parent.name == "machine"
                else []
            ),
        ]
    )
    ((trainer, module, options),) = started
    assert type(module).__module__.startswith("rlaifv_pl.objectives")
    has_rounds = any(isinstance(callback, Rounds) for callback in trainer.callbacks)
    assert has_rounds == (options["datamodule"].train is None)
    assert str(trainer.default_root_dir) == str(tmp_path)


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (0, False), (1, False)])
def test_the_job_of_slurm_puts_itself_back_where_it_was_told_to_stop(tmp_path, code, requeued):
    """With stand-ins for Slurm's commands, which write down how they are called."""
    for name, then in {"srun": f"exit {code}", "scontrol": "exit 0"}.items():
        file = tmp_path / name
        file.write_text(f'#!/bin/bash\necho {name} "$@" >> {tmp_path}/calls\n{then}\n')
        file.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17"}
    job = [ROOT / "configs/machine/slurm.sh", "--config", "a b.yaml"]
    assert subprocess.run(job, env=environment).returncode == code == (EXIT_CODE if requeued else code)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert (
        calls == ["srun rlaifv fit --config a b.yaml --ckpt_path last"] + ["scontrol requeue 17"] * requeued
    )


def feedback_of(config, monkeypatch) -> FeedbackPipeline:
    """The pass of feedback that a config builds; nothing is loaded or asked."""
    monkeypatch.chdir(ROOT)
    made = []
    monkeypatch.setattr(FeedbackPipeline, "make", lambda run: made.append(run) or sys.exit(0))
    monkeypatch.setattr("rlaifv_pl.cli.feedback.load_shards", lambda _: [])
    with pytest.raises(SystemExit):
        commands.main(["feedback", "--config", str(config), "--prompts", "here", "--out", "there"])
    return made[0]


def test_the_feedback_config_builds_policy_and_feedback(monkeypatch):
    run = feedback_of(FEEDBACK, monkeypatch)
    assert run.policy.path == "llava-hf/llava-1.5-7b-hf" and run.feedback.sampling.n == 10


@pytest.mark.parametrize("config", AT_SCALE, ids=lambda path: path.name)
def test_feedback_at_scale_differs_from_the_feedback_config_in_who_runs_it(config, monkeypatch):
    """What is asked of which models, and what becomes of the answers, is the same."""
    run, plain = feedback_of(config, monkeypatch), feedback_of(FEEDBACK, monkeypatch)
    same = ("sampling", "pairing", "balance", "combine")
    assert [getattr(run.feedback, name) for name in same] == [getattr(plain.feedback, name) for name in same]
    assert run.feedback.splitter.recipe() == plain.feedback.splitter.recipe()
    assert run.feedback.labeler.question == plain.feedback.labeler.question and run.seed == plain.seed
    for own, other in (
        (run.policy, plain.policy),
        (run.feedback.labeler.engine, plain.feedback.labeler.engine),
    ):
        assert getattr(own, "path", None) == other.path or getattr(own, "model", None) == other.path
    assert f"rlaifv feedback --config {name_of(config)} " in config.read_text()


def test_feedback_at_scale_fits_the_machines_that_it_names(monkeypatch):
    """8 GPUs a machine: processes or actors times GPUs; and each server's GPUs are nobody else's."""
    texts = {config.name: config.read_text() for config in AT_SCALE}
    runs = {config.name: feedback_of(config, monkeypatch) for config in AT_SCALE}
    eight, cluster, served = (runs[f"{name}.yaml"] for name in ("eight_gpus", "cluster", "servers"))
    processes = int(re.search(r"--nproc-per-node (\d+)", texts["eight_gpus.yaml"])[1])
    for engine in (eight.policy, eight.feedback.labeler.engine):
        assert processes * engine.tensor_parallel_size == 8
    actors = cluster.executor
    assert actors.actors * actors.gpus_per_actor == 2 * 8 and actors.address == "auto"
    for engine in (cluster.policy, cluster.feedback.labeler.engine):
        assert engine.tensor_parallel_size == actors.gpus_per_actor
    started = re.findall(
        r"CUDA_VISIBLE_DEVICES=(\S+) vllm serve (\S+) --port (\d+)(.*)", texts["servers.yaml"]
    )
    assert sorted(gpu for gpus, *_ in started for gpu in gpus.split(",")) == [str(gpu) for gpu in range(8)]
    for engine in (served.policy, served.feedback.labeler.engine):
        ports = [port for _, model, port, _ in started if model == engine.model]
        assert engine.base_url == [f"http://127.0.0.1:{port}/v1" for port in ports]


OLD_KEYS = {
    "sampling": ("generate", "feedback.generate is now feedback.sampling"),
    "splitter": ("divide", "feedback.divide is now feedback.splitter"),
    "labeler": ("conquer", "feedback.conquer is now feedback.labeler"),
    "pairing": ("pair", "feedback.pair is now feedback.pairing"),
}


@pytest.mark.parametrize("new", OLD_KEYS)
def test_an_old_key_of_feedback_is_answered_with_the_new_one(new, tmp_path):
    old, answer = OLD_KEYS[new]
    (tmp_path / "old.yaml").write_text(FEEDBACK.read_text().replace(f"\n  {new}:", f"\n  {old}:"))
    assert answer in refused_feedback(tmp_path / "old.yaml")


def test_the_memory_of_a_labeler_is_now_its_cache(tmp_path):
    (tmp_path / "old.yaml").write_text(FEEDBACK.read_text().replace("      cache:", "      memory:"))
    assert "memory is now cache" in refused_feedback(tmp_path / "old.yaml")


def refused_feedback(config: Path) -> str:
    """Answer of `rlaifv feedback` to a config that it refuses."""
    with pytest.raises(SystemExit) as refused:
        commands.main(["feedback", "--config", str(config), "--prompts", "prompts", "--out", "out"])
    return str(refused.value)


def test_rounds_are_the_papers_recipe(monkeypatch):
    """4 rounds of 4,000 instructions, 10 candidates at 0.7, DPO with beta 0.1, lr 5e-7, batch 8, 4 epochs."""
    config = yaml.safe_load((ROOT / "configs" / "rounds.yaml").read_text())
    rounds, model, trainer = config["rounds"], config["model"]["init_args"], config["trainer"]
    assert trainer["max_epochs"] / rounds["epochs"] == 4 == rounds["epochs"]
    assert rounds["prompts_per_round"] == 4000 and rounds["feedback"]["sampling"]["n"] == 10
    assert rounds["feedback"]["sampling"]["temperature"] == 0.7
    assert model["losses"][0]["init_args"]["beta"] == 0.1 and model["optimizer"]["init_args"]["lr"] == 5e-7
    assert config["data"]["batch_size"] * trainer["accumulate_grad_batches"] == 8


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_each_config_opens_with_its_command(config):
    head = "".join(line for line in config.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert f"rlaifv fit --config {name_of(config)}" in head or (
        config.name in LAYERS and f"--config {name_of(config)}" in head
    )


def test_the_three_objectives_differ_only_in_what_they_minimise_and_read():
    """Line by line, what is not common to dpo, sft and nsft names a loss, a rate, shards or the run."""
    own = (
        "class_path",
        "losses",
        "Sigmoid",
        "reference",
        "merge",
        "reduction",
        "optimizer",
        "train:",
        "default_root_dir",
        "#",
    )
    texts = [(ROOT / "configs" / f"{name}.yaml").read_text().splitlines() for name in ("dpo", "sft", "nsft")]
    common = set(texts[0]) & set(texts[1]) & set(texts[2])
    assert len(common) > 10
    for line in {line for text in texts for line in text} - common:
        assert any(mark in line for mark in own), line
