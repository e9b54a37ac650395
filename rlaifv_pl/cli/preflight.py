"""What `rlaifv preflight` does."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from rich.filesize import decimal

from rlaifv_pl.cli.dry_run import DryRunCLI
from rlaifv_pl.cli.fit import start
from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.datamodule import Shards, check_budget, require_shards
from rlaifv_pl.data.shards import ShardSet, load_shards
from rlaifv_pl.models.policy import load_model
from rlaifv_pl.models.pretrained import validate_checkpoint
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.objectives.checks import RunError
from rlaifv_pl.preflight import disk, tables, trial
from rlaifv_pl.preflight.advice import Case, advise
from rlaifv_pl.preflight.dataset_stats import Batches, DatasetStats, batches, stand_ins, survey
from rlaifv_pl.preflight.findings import Findings
from rlaifv_pl.preflight.machine import PreflightOptions, machine_of, steps
from rlaifv_pl.preflight.memory import CannotEstimate, MemoryEstimate, Situation
from rlaifv_pl.preflight.parallelism import parallelism_of
from rlaifv_pl.rounds import Rounds
from rlaifv_pl.rounds.compatibility import check_rounds
from rlaifv_pl.training.run_directory import Start

OWN = {f"--{option.name}" for option in fields(PreflightOptions)}


def preflight(arguments: Sequence[str]) -> None:
    """Print what a run needs, and end with exit code 1 if it cannot be.

    Args:
        arguments: of `train.py fit`, and options of `PreflightOptions`.
    """
    named = [_own(argument) for argument in arguments]
    with TemporaryDirectory(prefix="rlaifv-preflight-") as folder:
        directory = Path(start(DryRunCLI, ["fit", *named]).trainer_options["default_root_dir"])
        # Whatever the config derives from the run's directory goes to one that goes away.
        named += ["--trainer.default_root_dir", f"{folder}/made"]
        planned = start(DryRunCLI, ["fit", *named])
        found = _Look(planned, directory, Path(folder), _without_own(named)).look()
    tables.show(found)
    if planned.options.out:
        tables.write(found, Path(planned.options.out))
    if found.problems:
        sys.exit(1)


def _own(argument: str) -> str:
    """Preflight's own options by their place among the others."""
    name = argument.split("=")[0]
    return argument.replace("--", "--preflight.", 1) if name in OWN else argument


def _without_own(arguments: Sequence[str]) -> list[str]:
    kept, skips = [], False
    for argument in arguments:
        is_own = argument.startswith("--preflight.")
        if not is_own and not skips:
            kept.append(argument)
        skips = is_own and "=" not in argument
    return kept


class _Look:
    """Finds one thing after the other; each needs the ones before it.

    Args:
        planned: what would be run.
        directory: of the run.
        folder: for what is made on the way.
        arguments: of `train.py fit`.
    """

    def __init__(self, planned: DryRunCLI, directory: Path, folder: Path, arguments: list[str]) -> None:
        self.planned, self.directory, self.folder, self.arguments = planned, directory, folder, arguments
        self.options, self.trainer = planned.options, planned.trainer_options
        self.module, self.data = planned.model, planned.datamodule
        machine = machine_of(self.trainer, self.options)
        self.found = Findings(machine, parallelism_of(self.trainer, machine))
        self.rounds_bytes = 0  # Of the shards that all of them make.

    def look(self) -> Findings:
        """Find all that can be found out."""
        spec = self.module.policy_spec
        # On the meta device: what cannot be loaded or shared is said now, in fit's words.
        validate_checkpoint(spec, self.module.processor, trains=True)
        model = VLM(load_model(spec, empty=True), spec.attention)
        self.layout, self.weights = model.layout, sum(each.nbytes for each in model.parameters())
        self._make_sources()
        rounds = self.planned.rounds
        if kept := Start(directory=self.directory, makes_rounds=rounds is not None).contents_to_keep():
            self.found.notes.append(
                f"{self.directory} holds a run already ({', '.join(kept)}): fit goes on with it by --ckpt_path last, "
                "and wants --overwrite true or another trainer.default_root_dir for a new one"
            )
        if rounds is None:
            samples = self._open(self.data.train, "data.train")
            if self.data.val is not None:
                self._open(self.data.val, "data.val")
            self._samples(samples)
            self._time()
        else:
            self._rounds(rounds)
        return self.found

    def _rounds(self, rounds: Rounds) -> None:
        """Of runs that make their own shards: of pairs that a trial makes, or of the longest that there could be."""
        run: Any = SimpleNamespace(max_epochs=self.trainer["max_epochs"], datamodule=self.data)
        check_rounds(run, self.module, rounds.epochs, rounds.refresh)
        if rounds.feedback is None:
            raise RunError("rounds.prompts needs rounds.feedback: how the answers become pairs")
        prompts, count = self._open(rounds.prompts, "rounds.prompts"), run.max_epochs // rounds.epochs
        each = rounds.prompts_per_round or len(prompts) // count
        timed = self._tried(
            lambda place: trial.feedback(self.arguments, place, rounds.epochs, self.options.trial)
        )
        if timed is None:
            length = rounds.feedback.sampling.max_new_tokens
            made = stand_ins(prompts, length, self.module.processor, self.folder)
            pairs = each * rounds.feedback.pairing.max_pairs
            said = "the most that may come, with answers as long as they may be"
        else:
            made = self.folder / "trial" / "run" / "rounds" / "1"
            pairs = round(each * len(load_shards([made])) / trial.PROMPTS)
            said = f"as the {trial.PROMPTS} prompts show that were answered here"
        self.found.notes.append(f"a round of {each:,} prompts makes {pairs:,} pairs: {said}")
        self.rounds_bytes = disk.of_pairs(made, pairs * count)
        self._samples(load_shards([made]), pairs)
        if timed is None:
            self._time()
        else:
            self._timed(timed, "a trial here, on one device")
            self.found.time |= _of_rounds(self.found.time, timed, each, count)

    def _make_sources(self) -> None:
        for source in self.data.sources:
            out = getattr(source, "out", None)
            if out is not None and self.folder in Path(out).parents:
                source.ensure()
            else:
                self.found.notes.append(f"{type(source).__name__} makes its shards in the run")

    def _open(self, shards: Shards | None, name: str) -> ShardSet:
        try:
            return load_shards(require_shards(shards, name), self.data.cache_dir)
        except ValueError as error:
            raise RunError(str(error)) from error

    def _samples(self, samples: ShardSet, pairs: int | None = None) -> None:
        """Look at samples; where they stand for others, those are `pairs` in number."""
        found, data = self.found, self.data
        found.surveyed = seen = survey(samples, self.module.collator("raise"), self.options.samples)
        if seen.first_fault is not None and data.on_bad_sample == "raise":
            found.problems.append(str(seen.first_fault))
        usable_samples = [read for read in seen.reads if read.tree]
        if not usable_samples:
            found.problems.append("no sample can be trained on")
            return
        tokens = seen.column("rows" if self.layout == "rows" else "tree")
        try:
            check_budget(data.budget, lambda place: samples.where(seen.numbers[place]), tokens)
        except BadSample as error:
            found.problems.append(str(error))
        count = len(samples) if pairs is None else pairs
        found.batches = batches(seen, data, self.layout, found.machine.world, count)
        found.steps = steps(self.trainer, found.batches.per_epoch, found.machine.world)
        self._memory(samples, seen, found.batches)

    def _memory(self, samples: ShardSet, seen: DatasetStats, batches: Batches) -> None:
        found = self.found
        collate = self.module.collator("skip")

        def collated(places: Sequence[int]) -> Any:
            return collate([samples[seen.numbers[place]] for place in places])

        accumulates = self.trainer["accumulate_grad_batches"] > 1
        now = Situation(collated(batches.largest), found.spread, found.machine.is_cuda, accumulates)
        case = Case(self.module, now)
        try:
            found.memory = case.memory()
        except CannotEstimate as error:
            found.notes.append(f"memory is not known: {error}")
            return
        room = found.room
        if found.memory.total > room:
            largest = int(seen.column("tree").argmax())
            found.advice = advise(case, found.machine, lambda: collated([largest]), room)
            found.problems.append(
                f"the run needs {decimal(found.memory.total)} of each device, and {decimal(room)} can be had"
            )
        self._disk(samples, seen, found.memory)
        self.estimate = trial.estimate(self.module, now, self.options.tflops, self.options.mfu)

    def _disk(self, samples: ShardSet, seen: DatasetStats, memory: MemoryEstimate) -> None:
        found = self.found
        keep = self.planned.config.fit.checkpoint.save_top_k
        found.disks.append(disk.run_disk(self.directory, memory, found.spread, keep, self.rounds_bytes))
        if self.module.reference_mode == "cached":
            targets = float(seen.column("targets").mean()) * len(samples)
            found.disks.append(disk.beside_shards(samples.cache_of(0), targets))
        # The disk of a machine that is only described is not this one's.
        said = found.problems if self.options.memory_gb is None else found.notes
        for each in found.disks:
            if each.total > each.free:
                said.append(
                    f"{decimal(each.total)} would be written, and {decimal(each.free)} are free at {each.place}"
                )

    def _time(self) -> None:
        found = self.found
        if (timed := self._tried(self._trained)) is not None:
            self._timed(timed, "a trial here, on one device")
        elif found.memory is not None and found.batches is not None and found.steps is not None:
            tokens = (
                float(found.batches.tokens.mean()) * (1 - found.batches.padding) * found.steps.accumulated
            )
            seconds = self.estimate.seconds(tokens)
            if seconds is None:
                found.notes.append("no trial, and no peak of the device to reckon with: give --tflops")
            else:
                self._timed(trial.Timed(seconds), f"an estimate: FLOPs at an MFU of {self.options.mfu:.0%}")

    def _tried(self, attempt: Callable[[Path], trial.Timed]) -> trial.Timed | None:
        """What a trial finds; None where it is left out, or it fails, which is a problem of the run."""
        found = self.found
        if left_out := self._leaves_out():
            if left_out not in found.untried:
                found.untried.append(left_out)
            return None
        if found.problems:
            return None
        if found.spread.together > 1:
            found.problems.append(
                f"no step could be tried: the model is cut into slices for {found.spread.together} devices, and a "
                "trial has one. Leave it out by --trial 0."
            )
            return None
        if self.weights > found.room:
            found.problems.append(
                f"no step could be tried: the weights alone are {decimal(self.weights)}, and {decimal(found.room)} can "
                "be had"
            )
            return None
        place = self.folder / "trial"
        place.mkdir()
        try:
            return attempt(place)
        except trial.TrialFailed as error:
            found.problems.append(f"the trial failed: {error}")
        return None

    def _leaves_out(self) -> str:
        """Why no step is to be tried; empty if one is."""
        if not self.options.trial:
            return "a step of the run (--trial 0)"
        if self.options.memory_gb is not None:
            return "a step of the run: --memory_gb describes another machine"
        return ""

    def _trained(self, place: Path) -> trial.Timed:
        seen, batches, steps = self.found.surveyed, self.found.batches, self.found.steps
        if seen is None or batches is None or steps is None:
            raise trial.TrialFailed("no sample was read")
        dealt = batches.dealt[: self.options.trial * steps.accumulated]
        numbers = [[seen.numbers[at] for at in batch] for batch in dealt]
        return trial.train(self.arguments, seen.samples, numbers, place)

    def _timed(self, timed: trial.Timed, how: str) -> None:
        found = self.found
        found.time = {"how": how, "seconds a step": timed.step}
        if found.steps is not None:
            found.time |= {
                "seconds an epoch": timed.step * found.steps.per_epoch,
                "seconds in all": timed.step * found.steps.in_all,
            }
        found.time |= {f"seconds of {stage} a prompt": seconds for stage, seconds in timed.stages.items()}


def _of_rounds(time: dict[str, Any], timed: trial.Timed, prompts: int, count: int) -> dict[str, float]:
    feedback, training = sum(timed.stages.values()) * prompts, time.get("seconds in all", 0.0)
    return {
        "seconds of feedback a round": feedback,
        "seconds of training a round": training / count,
        "seconds in all": feedback * count + training,
    }
