"""What is killed: runs of training, feedback and rounds, in as many variants as there are ways to go wrong."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import yaml

from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.miniature import packaged_model
from rlaifv_pl.miniature.shards import Scenes
from rlaifv_pl.records import Correction
from tests.families import build
from tests.kill.start import Command
from tests.rounds import world_run
from tests.rounds.test_rounds import nsft, settings
from tests.training.tiny import dpo_config, noise_pairs, write_config

Again = Callable[[Command, random.Random], Command]
"""How a command may differ when it is started again, or for the first time."""


class Work(NamedTuple):
    """Something to kill."""

    commands: list[Command]
    """One after the other, each is started again until it ends."""
    outcome: Sequence[str]
    """Patterns of the files that must not depend on kills."""
    again: Again = lambda command, _: command
    is_elastic: bool = False
    """Whether starts may differ in what rounds differently: figures are then compared as figures."""


FSDP = {"class_path": "rlaifv_pl.training.fsdp.FSDP2Strategy"}
FIT = {
    "dpo, cached": {"init": {"reference": "cached"}, "trainer": {"accumulate_grad_batches": 2}},
    "dpo, live": {
        "init": {"reference": "live"},
        "data": {"batch_size": 3, "val": "val"},
        "trainer": {"accumulate_grad_batches": 3},
    },
    "dpo, adapters": {
        "init": {"reference": "adapter_off"},
        "policy": {"freeze": [], "lora": {"rank": 2, "alpha": 8.0, "dropout": 0.5}},
    },
    "dpo, budget": {
        "data": {"batch_size": None, "max_tokens": 150, "group_by": "prompt", "length_bucket": 9},
        "trainer": {"accumulate_grad_batches": 2},
    },
    "dpo, tower": {"init": {"reference": "cached"}, "data": {"cache_vision": True}},
    "nsft": {"class": "NSFTModule", "trainer": {"accumulate_grad_batches": 2}},
    "sft": {"class": "SFTModule", "trainer": {"max_steps": 17}},
    "dpo, two processes": {"init": {"reference": "cached"}, "trainer": {"devices": 2, "strategy": "ddp"}},
    "dpo, slices": {"trainer": {"devices": 2, "strategy": FSDP}},
    "dpo, one process or two": {
        "init": {"reference": "cached", "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}}},
        "data": {"batch_size": 4},
    },
}  # fmt: skip
"""Changes of a small run by the name of the variant."""
PAIRS, PROMPTS = 24, 10


def fit(directory: Path) -> dict[str, Work]:
    """A model, shards of pairs with corrections, and a config of each variant."""
    torch.manual_seed(0)  # Of weights that `build` leaves as they are made.
    model = build("llava", directory / "model")
    _write_pairs(directory / "pairs", PAIRS, seed=0)
    _write_pairs(directory / "val", 5, seed=1)
    outcome = ("run/metrics.csv", "run/export/*.safetensors", "pairs/*/*.safetensors")
    works = {}
    for name, changes in FIT.items():
        data = {"num_workers": 1, **changes.get("data", {})}
        if "val" in data:
            data["val"] = str(directory / data["val"])
        made = dpo_config(model, directory / "pairs", data=data)
        made["model"]["class_path"] = f"rlaifv_pl.objectives.{changes.get('class', 'DPOModule')}"
        made["model"]["init_args"] |= changes.get("init", {})
        made["model"]["init_args"]["policy"] |= changes.get("policy", {})
        made["trainer"] |= {"default_root_dir": str(directory / "run"), **changes.get("trainer", {})}
        config = write_config(directory / f"{name.replace(', ', '_').replace(' ', '_')}.yaml", made)
        command = training(config, made["trainer"].get("devices", 1))
        is_elastic = name == "dpo, one process or two"
        again = _as_one_or_two if is_elastic else _with_other_workers
        works[name] = Work([command], outcome, again, is_elastic)
    return works


def _write_pairs(directory: Path, count: int, seed: int) -> None:
    """Pairs of several to a prompt, with corrections."""
    samples = noise_pairs(count, seed)
    with ShardWriter(directory, recipe={}, samples_per_shard=7) as writer:
        for number, sample in enumerate(samples):
            asked = samples[number % PROMPTS]
            correction = Correction(question=f"Is it {sample.chosen[:9]}?", answer="No.")
            sample = replace(sample, prompt=asked.prompt, images=asked.images, corrections=(correction,))
            writer.write(sample)


def training(config: Path, processes: int = 1) -> Command:
    """The command that a run is started with, and started again."""
    return Command("train", ["fit", "--ckpt_path", "last", "--config", str(config)], processes)


def _with_other_workers(command: Command, rng: random.Random) -> Command:
    return command._replace(arguments=[*command.arguments, f"--data.num_workers={rng.choice((0, 1, 2))}"])


def _as_one_or_two(command: Command, rng: random.Random) -> Command:
    """A process with the whole batch, or two with half of it each."""
    processes = rng.choice((1, 2))
    options = {"trainer.devices": processes, "trainer.strategy": "ddp" if processes == 2 else "auto"}
    options["data.batch_size"] = 4 // processes
    more = [f"--{name}={value}" for name, value in options.items()]
    return Command("train", [*command.arguments, *more], processes)


def feedback(directory: Path) -> dict[str, Work]:
    """Scenes to describe, and how their descriptions are judged; pairs, and corrections of them."""
    Scenes(out=str(directory / "scenes"), split="tune", count=40).ensure()
    how = world_run.config(directory)["rounds"]["feedback"]
    del how["gate"]
    engine = how["labeler"]["init_args"]["engine"]
    engine["init_args"]["path"] = str(packaged_model("labeler"))
    policy = dict(engine, init_args={"path": str(packaged_model("base"))})
    made = {"policy": policy, "feedback": how, "seed": 3}
    config, pairs = directory / "feedback.yaml", str(directory / "pairs")
    config.write_text(yaml.safe_dump(made))
    options = ["--config", str(config), "--prompts", str(directory / "scenes"), "--out", pairs]
    answer = Command("rlaifv", ["feedback", *options])
    correct = Command(
        "rlaifv", ["feedback", "correct", "--shards", pairs, "--out", str(directory / "corrections")]
    )
    outcome = ("pairs/*.tar", "pairs/manifest.json", "corrections/*.tar", "corrections/manifest.json")
    return {"feedback": Work([answer, correct], outcome, _shared_by_one_or_two)}


def _shared_by_one_or_two(command: Command, rng: random.Random) -> Command:
    can_share = "correct" not in command.arguments
    return command._replace(processes=rng.choice((1, 2)) if can_share else 1)


def rounds(directory: Path) -> dict[str, Work]:
    """Two rounds each, with epochs and rounds of different lengths."""
    run = directory / "run"
    many = {"devices": 2, "strategy": "ddp"}
    variants = {
        "rounds": world_run.config(run),
        "rounds, nsft": nsft(run),
        "rounds, cached": settings(run, epochs=2, replay=1, reset_optimizer=False),
        "rounds, two processes": settings(run, epochs=2, evaluator=True, prompts_per_round=8),
        "rounds, slices": settings(run, epochs=2, evaluator=True, prompts_per_round=8),
    }
    variants["rounds, cached"]["model"]["init_args"]["reference"] = "cached"
    variants["rounds, cached"]["trainer"]["accumulate_grad_batches"] = 2
    variants["rounds, two processes"]["trainer"] |= many
    variants["rounds, slices"]["trainer"] |= many | {"strategy": FSDP}
    works = {}
    for name, made in variants.items():
        made["checkpoint"] = {"every_n_train_steps": 2}
        config = world_run.write(directory / f"{name.replace(', ', '_').replace(' ', '_')}.yaml", made)
        command = training(config, made["trainer"].get("devices", 1))
        works[name] = Work([command], tuple(f"run/{pattern}" for pattern in world_run.OUTCOME))
    return works


WORKS: dict[str, Callable[[Path], dict[str, Work]]] = {"fit": fit, "feedback": feedback, "rounds": rounds}
"""Each puts what is given into a directory, and names its variants."""
