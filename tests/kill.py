"""Kill runs at random moments, start them again, and compare what they leave with runs that were never killed.

    python -m tests.kill --what fit --kills 100 --seed 0

Ends with exit code 0 when every file is equal. SIGKILL goes to the whole group of processes, workers included.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import yaml
from jsonargparse import auto_cli

from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.records import Correction
from rlaifv_pl.world import shipped
from rlaifv_pl.world.shards import Scenes
from tests.families import build
from tests.rounds import world_run
from tests.run.tiny import REPOSITORY, dpo_config, environment, noise_pairs, write_config

VERB = "import sys; from rlaifv_pl.verbs import main; main(sys.argv[1:])"
OBJECTIVES = {"DPOModule": {"reference": "cached"}, "NSFTModule": {}, "SFTModule": {}}
MOMENTS = (0.5, 1.05)
"""When a run is killed, as shares of how long it takes: most of a short one goes into starting."""


class Work(NamedTuple):
    """What is killed."""

    prepare: Callable[[Path], None]
    """Puts what is given into a directory."""
    commands: Callable[[Path], list[list[str]]]
    """One after the other, each is started again until it ends."""
    outcome: Callable[[Path], dict[str, bytes]]
    """What must not depend on kills."""


def prepare_fit(directory: Path) -> None:
    """A model, shards of pairs with corrections, and a config of each objective."""
    torch.manual_seed(0)  # Of weights that `build` leaves as they are made.
    model = build("llava", directory / "model")
    with ShardWriter(directory / "pairs", recipe={}, samples_per_shard=9) as writer:
        for sample in noise_pairs(40):
            correction = Correction(question=f"Is it {sample.chosen[:9]}?", answer="No.")
            writer.write(replace(sample, corrections=(correction,)))
    for name, options in OBJECTIVES.items():
        settings = dpo_config(model, directory / "pairs", data={"num_workers": 1})
        settings["model"]["class_path"] = f"rlaifv_pl.objectives.{name}"
        settings["model"]["init_args"] |= options
        settings["trainer"] |= {"default_root_dir": str(directory / name), "accumulate_grad_batches": 2}
        write_config(directory / f"{name}.yaml", settings)


def fit(directory: Path) -> list[list[str]]:
    """All three objectives."""
    start = [sys.executable, str(REPOSITORY / "train.py"), "fit", "--ckpt_path", "last", "--config"]
    return [[*start, str(directory / f"{name}.yaml")] for name in OBJECTIVES]


def files(*patterns: str) -> Callable[[Path], dict[str, bytes]]:
    """An outcome: the files that match."""

    def read(directory: Path) -> dict[str, bytes]:
        found = [path for pattern in patterns for path in sorted(directory.glob(pattern))]
        return {str(path.relative_to(directory)): path.read_bytes() for path in found}

    return read


def prepare_feedback(directory: Path) -> None:
    """Scenes to describe, and how their descriptions are judged."""
    Scenes(out=str(directory / "scenes"), split="tune", count=40).ensure()
    how = world_run.config(directory)["rounds"]["feedback"]
    del how["gate"]
    engine = how["conquer"]["init_args"]["engine"]
    engine["init_args"]["path"] = str(shipped("labeler"))
    policy = dict(engine, init_args={"path": str(shipped("base"))})
    settings = {"policy": policy, "feedback": how, "seed": 3}
    (directory / "feedback.yaml").write_text(yaml.safe_dump(settings))


def feedback(directory: Path) -> list[list[str]]:
    """Pairs, and corrections of them."""
    start, pairs = [sys.executable, "-c", VERB, "feedback"], str(directory / "pairs")
    config = ["--config", str(directory / "feedback.yaml"), "--prompts", str(directory / "scenes")]
    corrected = ["--shards", pairs, "--out", str(directory / "corrections")]
    return [[*start, *config, "--out", pairs], [*start, "correct", *corrected]]


def rounds(directory: Path) -> list[list[str]]:
    """Two rounds with everything in them."""
    start = [sys.executable, str(REPOSITORY / "train.py"), "fit", "--ckpt_path", "last", "--config"]
    return [[*start, str(directory / "run.yaml")]]


def prepare_rounds(directory: Path) -> None:
    """The config of a run in a directory of its own."""
    world_run.write(directory / "run.yaml", world_run.config(directory / "run"))


WORKS = {
    "fit": Work(
        prepare_fit,
        fit,
        files("*Module/metrics.csv", "*Module/export/*.safetensors", "pairs/reference-*/*.safetensors"),
    ),
    "feedback": Work(
        prepare_feedback, feedback, files("pairs/*.tar", "pairs/manifest.json", "corrections/*.tar")
    ),
    "rounds": Work(prepare_rounds, rounds, lambda directory: world_run.outcome(directory / "run")),
}


def main(what: Literal["fit", "feedback", "rounds"], kills: int = 100, seed: int = 0) -> None:
    """Kill until it was done so many times.

    Args:
        what: is killed.
        kills: in all.
        seed: of the moments.
    """
    work, rng, done, trials = WORKS[what], random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "here"  # Always the same: paths stand in configs and manifests.
        expected, durations = _whole(work, directory)
        while done < kills:
            shutil.rmtree(directory)
            work.prepare(_made(directory))
            hits = [_killed(command, took, kills - done, rng) for command, took in
                    zip(work.commands(directory), durations, strict=True)]  # fmt: skip
            done, trials = done + sum(hits), trials + 1
            found = work.outcome(directory)
            if found != expected:
                wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
                sys.exit(f"{what}: after {hits} kills {wrong} differ (seed {seed}, trial {trials})")
            print(f"{what}: {done} kills in {trials} trials, {len(found)} files equal", flush=True)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _whole(work: Work, directory: Path) -> tuple[dict[str, bytes], list[float]]:
    """What runs that nobody kills leave, and how long they take."""
    work.prepare(_made(directory))
    durations = []
    for command in work.commands(directory):
        started = time.monotonic()
        _run(command, None)
        durations.append(time.monotonic() - started)
    outcome = work.outcome(directory)
    if not outcome:
        sys.exit("the runs left nothing to compare")
    return outcome, durations


def _killed(command: list[str], took: float, most: int, rng: random.Random) -> int:
    """Run a command to its end; how many times it was killed on the way."""
    for count in range(most):
        if _run(command, took * rng.uniform(*MOMENTS)):
            return count
    _run(command, None)
    return most


def _run(command: list[str], seconds: float | None) -> bool:
    """Whether the command ended before it was killed."""
    process = subprocess.Popen(
        command, env=environment(), cwd=REPOSITORY, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {process.returncode}:\n{said[-3000:]}")
    return True


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
