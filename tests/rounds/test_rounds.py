"""Rounds in small real runs: what each one trains on, compares with and writes down."""

import copy
import json
import math
import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from rlaifv_pl.cli import commands
from rlaifv_pl.cli.fit import main
from rlaifv_pl.data.datamodule import AlignmentDataModule
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.engines.engine import Engine, EngineError
from rlaifv_pl.feedback.pipeline import FeedbackPipeline
from rlaifv_pl.miniature import packaged_model
from rlaifv_pl.miniature.claims import TRUE, ExactLabeler
from rlaifv_pl.models.policy import PolicyError, PolicySpec, load_model
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.objectives.base import AlignmentModule, RunError
from rlaifv_pl.records import Sample, Verdict
from rlaifv_pl.report.content import Limits, run_content
from rlaifv_pl.report.run_files import read_run
from rlaifv_pl.rounds.answers import read_answers
from rlaifv_pl.training.signals import EXIT_CODE
from tests.data.samples import check_streaming
from tests.rounds.world_run import config, outcome, write
from tests.training.tiny import table

EXACT = "rlaifv_pl.miniature.claims.ExactLabeler"
NSFT = {
    "class_path": "rlaifv_pl.feedback.corrections.rule_corrector.RuleCorrector",
    "init_args": {"templates": {"yes": "yes", "no": "no", "color": None, "count": None}},
}


def settings(directory: Path, *, epochs: int = 1, number: int = 2, evaluator: bool = False, **rounds) -> dict:
    """A run with the labeler that cannot be wrong and no gate; `rounds` replaces settings of the rounds."""
    made = config(directory)
    made["trainer"]["max_epochs"] = epochs * number
    made["checkpoint"] = {"every_n_train_steps": 1, "save_top_k": 50}
    made["model"]["init_args"]["warmup"] = 0.5
    if not evaluator:
        del made["rounds"]["evaluator"]
    del made["rounds"]["feedback"]["gate"]
    made["rounds"]["feedback"] |= {"labeler": EXACT, "balance": False, **rounds.pop("feedback", {})}
    made["rounds"] |= {"epochs": epochs, "prompts_per_round": 6, **rounds}
    return made


def start(made: dict, *arguments: str) -> dict[int, list[str]]:
    """Run it in this process; keys of the samples that each epoch trained on."""
    directory, seen = Path(made["trainer"]["default_root_dir"]), defaultdict(list)
    train = AlignmentModule.training_step

    def watched(self, batch, index):
        seen[self.current_epoch] += batch.keys
        return train(self, batch, index)

    path = write(directory.parent / f"{directory.name}.yaml", made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AlignmentModule, "training_step", watched)
        main(["fit", "--config", str(path), *arguments])
    return dict(seen)


def keys(shards: Path) -> list[str]:
    return sorted(load_shards(shards).keys())


def checkpoint(directory: Path, epochs: int) -> dict:
    """The one saved after so many epochs: of all that were saved in the last of them, the newest."""
    saved = directory.glob(f"checkpoints/epoch{epochs - 1}-step*.ckpt")
    newest = max(saved, key=lambda path: int(path.stem.partition("step")[2]))
    return torch.load(newest, weights_only=False)


def trained(directory: Path, epochs: int) -> dict[str, torch.Tensor]:
    state = checkpoint(directory, epochs)["state_dict"]
    return {name.removeprefix("policy."): value for name, value in state.items()}


def rate(step: int, total: int) -> float:
    """A warm-up over half of the steps, then a cosine."""
    rising = math.ceil(total / 2)
    if step < rising:
        return (step + 1) / rising
    return (1 + math.cos(math.pi * (step - rising) / max(1, total - rising))) / 2


def at(directory: Path, column: str) -> list[float]:
    """A metric of all steps, in order."""
    return [float(value) for value in table(directory, column).values()]


class Run:
    """A finished run.

    Args:
        made: its settings.
    """

    def __init__(self, made: dict) -> None:
        self.settings, self.directory = made, Path(made["trainer"]["default_root_dir"])
        self.seen = start(made)
        per_epoch = [math.ceil(len(self.seen[epoch]) / 4) for epoch in sorted(self.seen)]
        self.batches = per_epoch
        self.firsts = [
            sum(per_epoch[:epoch]) for epoch in range(0, len(per_epoch), made["rounds"].get("epochs", 1))
        ]
        """Steps at which rounds begin."""

    def shards(self, number: int) -> Path:
        return self.directory / "rounds" / str(number)


@pytest.fixture(scope="module")
def previous(tmp_path_factory) -> Run:
    """Two rounds of two epochs, all as by default, with an evaluator."""
    return Run(settings(tmp_path_factory.mktemp("previous") / "run", epochs=2, evaluator=True))


@pytest.fixture(scope="module")
def initial(tmp_path_factory) -> Run:
    """One schedule over two rounds, the first one's shards trained on again, one reference."""
    made = settings(
        tmp_path_factory.mktemp("initial") / "run", refresh="initial", reset_optimizer=False, replay=1
    )
    return Run(made)


# What a round trains on.


def test_each_round_trains_on_its_own_shards_of_its_own_prompts(previous):
    asked = []
    for number in (1, 2):
        shards = load_shards(previous.shards(number))
        samples = [shards[index] for index in range(len(shards))]
        assert {sample.provenance["round"] for sample in samples} == {number}
        assert read_manifest(previous.shards(number)).round == number
        for epoch in (2 * number - 2, 2 * number - 1):
            assert sorted(previous.seen[epoch]) == sorted(sample.key for sample in samples)
        asked.append(answered(previous.shards(number)))
    assert [len(some) for some in asked] == [6, 6] and len(set(asked[0]) | set(asked[1])) == 12
    assert sorted(previous.seen) == [0, 1, 2, 3]


def answered(round_directory: Path) -> list[str]:
    """Keys of a round's prompts, from the parts of its first stage."""
    parts = sorted(round_directory.glob("stages/generate-*/*.jsonl"))
    return [json.loads(line)["key"] for part in parts for line in part.read_text().splitlines()]


def test_webdataset_streams_the_pairs_of_each_round(previous):
    assert all(check_streaming(previous.shards(number)) for number in (1, 2))


def test_replay_trains_on_earlier_rounds_again(initial):
    first, second = (keys(initial.shards(number)) for number in (1, 2))
    assert sorted(initial.seen[0]) == first and first and second
    assert sorted(initial.seen[1]) == sorted(first + second)


def test_without_prompts_per_round_all_prompts_are_shared_out(tmp_path):
    start(made := settings(tmp_path / "run", number=1, prompts_per_round=None))
    assert len(answered(Path(made["trainer"]["default_root_dir"]) / "rounds" / "1")) == 24


# What it compares with.


@pytest.mark.parametrize("number", [1, 2])
def test_the_first_step_of_a_round_finds_policy_and_reference_equal(previous, number):
    step = previous.firsts[number - 1]
    for side in ("chosen", "rejected"):
        assert at(previous.directory, f"train/rewards/{side}")[step] == 0
        assert at(previous.directory, f"train/rewards/{side}")[step + 1] != 0
    assert at(previous.directory, "train/loss")[step] == pytest.approx(math.log(2), abs=1e-6)


def test_the_previous_reference_is_the_policy_at_the_end_of_the_round_before(previous):
    reference = load_file(previous.shards(2) / "reference.safetensors")
    policy = trained(previous.directory, 2)
    assert reference.keys() <= policy.keys() and reference
    assert all(torch.equal(reference[name], policy[name]) for name in reference)
    base = base_weights()
    assert max((reference[name] - base[name]).abs().max().item() for name in reference) > 1e-4
    assert not (previous.shards(1) / "reference.safetensors").exists()


def test_the_initial_reference_stays(initial):
    assert not list(initial.directory.glob("rounds/*/reference.safetensors"))
    rewards = at(initial.directory, "train/rewards/chosen")
    assert rewards[0] == 0 and abs(rewards[initial.firsts[1]]) > 1e-4


def test_the_ema_reference_keeps_a_share_of_the_last_one(tmp_path):
    """decay = 0.25; each by hand from the last one and the policy's checkpoint of then."""
    run = Run(settings(tmp_path / "run", number=3, refresh="ema", ema_decay=0.25, prompts_per_round=4))
    states = [load_file(run.shards(number) / "reference.safetensors") for number in (2, 3)]
    base = base_weights()
    policies = [trained(run.directory, epochs) for epochs in (1, 2)]
    for name in states[0]:
        second = 0.25 * base[name] + 0.75 * policies[0][name]
        third = 0.25 * second + 0.75 * policies[1][name]
        assert torch.allclose(states[0][name], second, atol=1e-7, rtol=1e-6)
        assert torch.allclose(states[1][name], third, atol=1e-7, rtol=1e-6)
    apart = max((states[1][name] - policies[1][name]).abs().max().item() for name in states[1])
    assert apart > 1e-5
    assert at(run.directory, "train/rewards/chosen")[run.firsts[1]] != 0


def base_weights() -> dict[str, torch.Tensor]:
    """Of the policy as runs are given it."""
    return dict(VLM(load_model(PolicySpec(path=str(packaged_model("base"))))).named_parameters())


@pytest.mark.parametrize("options", [{"refresh": "initial"}, {"reference": "live"}, {}])
def test_adapters_need_a_reference_that_can_be_refreshed(options, tmp_path):
    made = settings(tmp_path / "run", prompts_per_round=4, refresh=options.get("refresh", "previous"))
    made["model"]["init_args"]["policy"]["lora"] = {"rank": 2, "dropout": 0.0}
    made["model"]["init_args"]["reference"] = options.get("reference", "auto")
    if not options:
        with pytest.raises(RunError, match=r"model\.reference: live .* or refresh: initial"):
            start(made)
        return
    run = Run(made)
    assert (run.shards(2) / "reference.safetensors").exists() == ("reference" in options)
    rewards = at(run.directory, "train/rewards/chosen")
    assert (rewards[run.firsts[1]] == 0) == ("reference" in options)


@pytest.mark.parametrize("lora", [False, True], ids=["weights", "adapters"])
def test_a_cached_reference_follows_the_rounds_as_a_live_one(tmp_path, lora):
    for reference in ("live", "cached"):
        made = settings(tmp_path / reference, epochs=2)
        made["model"]["init_args"]["reference"] = reference
        if lora:
            made["model"]["init_args"]["policy"]["lora"] = {"rank": 2, "dropout": 0.0}
        run = Run(made)
        assert (run.shards(2) / "reference.safetensors").exists() == (reference == "live")
        assert len(list(run.shards(2).glob("reference-*/*"))) == (reference == "cached")
    for column in ("train/loss", "train/rewards/margins"):
        live, cached = (at(tmp_path / reference, column) for reference in ("live", "cached"))
        assert cached == pytest.approx(live, rel=1e-3, abs=1e-4)
    assert at(tmp_path / "cached", "train/rewards/chosen")[run.firsts[1]] == pytest.approx(0, abs=1e-5)


def test_a_round_goes_on_with_the_reference_that_it_began_with(tmp_path):
    made = settings(tmp_path / "run", epochs=2)
    made["model"]["init_args"]["reference"] = "cached"
    run = Run(made)
    again = copy.deepcopy(made)
    again["trainer"]["default_root_dir"] = str(shutil.copytree(run.directory, tmp_path / "again"))
    inside = run.firsts[1] + 1
    saved = next((tmp_path / "again/checkpoints").glob(f"epoch2-step{inside}.ckpt"))
    start(again, "--ckpt_path", str(saved))
    assert at(tmp_path / "again", "train/loss")[inside:] == at(run.directory, "train/loss")[inside:]
    for file in (tmp_path / "again/rounds/2").glob("reference-*/*"):
        file.unlink()
    with pytest.raises(PolicyError, match="the policy as the round began"):
        start(again, "--ckpt_path", str(saved))


def test_a_mean_of_references_cannot_be_cached(tmp_path):
    made = settings(tmp_path / "run", refresh="ema", prompts_per_round=4)
    made["model"]["init_args"]["reference"] = "cached"
    with pytest.raises(RunError, match=r"rounds\.refresh: ema .* Set model\.reference: live"):
        start(made)


# Optimiser and schedule.


def test_a_reset_optimizer_warms_up_again_and_forgets_the_optimisers_state(previous):
    rates, expected = at(previous.directory, "train/lr"), []
    for number in (0, 1):
        total = sum(previous.batches[2 * number : 2 * number + 2])
        expected += [1e-4 * rate(step, total) for step in range(total)]
    assert rates == pytest.approx(expected, rel=1e-6)
    assert optimizer_steps(previous.directory, 2) == {sum(previous.batches[:2])}
    assert optimizer_steps(previous.directory, 4) == {sum(previous.batches[2:])}


def test_without_a_reset_one_schedule_and_one_optimiser_go_through(initial):
    """The schedule spans two epochs of the shards of now, and the second epoch's are more."""
    first, second = initial.batches
    assert second > first
    expected = [rate(step, 2 * first) for step in range(first)]
    expected += [rate(step, 2 * second) for step in range(first, first + second)]
    assert at(initial.directory, "train/lr") == pytest.approx([1e-4 * one for one in expected], rel=1e-6)
    assert optimizer_steps(initial.directory, 2) == {first + second}


def optimizer_steps(directory: Path, epochs: int) -> set[int]:
    (state,) = checkpoint(directory, epochs)["optimizer_states"]
    return {int(one["step"]) for one in state["state"].values()}


# What it writes down.


def test_the_ledger_and_the_summary_tell_of_every_round(previous):
    ledger = json.loads((previous.shards(1).parent / "ledger.json").read_text())
    summary = json.loads((previous.directory / "summary.json").read_text())
    assert summary["seed"] == 3 and [row["round"] for row in summary["rounds"]] == [0, 1, 2]
    for row in summary["rounds"]:
        assert {"round", "instance", "sentence", "recall", "length", "pairs", "agreement", "seconds"} <= set(
            row
        )
        assert row["seconds"]["all"] == pytest.approx(
            sum(spent for stage, spent in row["seconds"].items() if stage != "all"), abs=0.01
        )
        assert 0 <= row["instance"] <= 1 and 0 < row["recall"] <= 1 and row["length"] > 3
    for row in summary["rounds"][1:]:
        entry, manifest = ledger[str(row["round"])], read_manifest(previous.shards(row["round"]))
        assert row["agreement"] == entry["agreement"] == 1.0
        assert row["pairs"] == entry["pairs"] == manifest.samples == len(keys(previous.shards(row["round"])))
        assert (entry["manifest"], entry["drops"], entry["notes"]) == (
            manifest.hash, manifest.drops, manifest.notes,
        )  # fmt: skip
        assert {"generate", "divide", "conquer", "pair", "train", "measure"} <= set(row["seconds"])
    assert summary["rounds"][0]["pairs"] == 0 and summary["rounds"][0]["agreement"] is None


def test_the_answers_that_were_measured_can_be_read(previous):
    """All 8 held-out scenes are kept; of the objects ("a red cup", unlike counts) as many are false as was noted."""
    ledger = json.loads((previous.shards(1).parent / "ledger.json").read_text())
    for number in (0, 1, 2):
        rows = [row for row, _ in read_answers(previous.directory / "rounds", number)]
        objects = [
            right
            for row in rows
            for start, end, right in row["mentions"]
            if row["completion"][start:end].startswith("a ")
        ]
        assert len(rows) == 8
        assert objects.count(False) / len(objects) == pytest.approx(
            ledger[str(number)]["figures"]["instance"]
        )


def test_the_page_of_a_run_has_its_answers_and_what_it_left_out_with_their_images(previous):
    page = run_content(read_run(previous.directory), Limits()).page
    assert [start["round"] for start in page["round_starts"]] == [1, 2]
    assert [[each["when"] for each in row["answers"]] for row in page["held_out"]["rows"]] == 8 * [
        ["at the start", "after round 2"]
    ]
    counted = {name for directory in page["directories"] for name in directory["drops"]}
    assert {row["reason"] for row in page["left_out"]} == counted <= set(page["reasons"])
    assert all(isinstance(place, int) for row in page["left_out"] for place in row["images"])
    assert all(row["images"] for row in (*page["left_out"], *page["held_out"]["rows"]))


def test_the_curve_is_a_picture(previous):
    with Image.open(previous.directory / "rounds.png") as picture:
        assert picture.format == "PNG" and picture.width > 800 and picture.height > 300
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10


def test_status_tells_of_a_finished_run_and_of_one_under_way(previous, tmp_path, capsys):
    pairs = [read_manifest(previous.shards(number)).samples for number in (1, 2)]
    capsys.readouterr()
    commands.main(["rounds", "status", str(previous.directory)])
    lines = told(capsys)
    assert any(cells[:2] == ["1", str(pairs[0])] for cells in lines)
    assert any(cells[:2] == ["2", str(pairs[1])] for cells in lines)
    assert sum("generate 2" in cells[-1] for cells in lines) == 2
    shutil.copytree(previous.directory / "rounds", tmp_path / "rounds")
    half_done(tmp_path / "rounds")
    commands.main(["rounds", "status", str(tmp_path)])
    lines = told(capsys)
    assert any(cells[:2] == ["2", "in the making"] for cells in lines)
    assert sum("generate 1" in cells[-1] for cells in lines) == 1


def told(capsys) -> list[list[str]]:
    """Cells of the lines that were printed."""
    lines = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in lines]


def half_done(rounds: Path) -> None:
    """As the second round looks while it is made."""
    ledger = json.loads((rounds / "ledger.json").read_text())
    ledger["2"] = {"recipe": ledger["2"]["recipe"], "seconds": {}}
    (rounds / "ledger.json").write_text(json.dumps(ledger))
    (rounds / "2" / "manifest.json").unlink()
    next(iter(sorted(rounds.glob("2/stages/generate-*/part-000001.jsonl")))).unlink()


def test_status_of_a_directory_without_rounds_is_a_message(tmp_path):
    with pytest.raises(SystemExit, match="expected the directory of a run of rounds"):
        commands.main(["rounds", "status", str(tmp_path / "nowhere")])


# Messages.


def broken(directory: Path, change: str) -> dict:
    made = settings(directory)
    if change == "few prompts":
        made["rounds"]["prompts_per_round"] = 13
    if change == "no prompts for each":
        made["rounds"]["prompts_per_round"] = None
        made["trainer"]["max_epochs"] = 25
    if change == "odd epochs":
        made["rounds"]["epochs"], made["trainer"]["max_epochs"] = 2, 3
    if change == "data.train":
        made["data"]["train"] = str(directory)
    if change == "no pairs":
        made["rounds"]["feedback"]["pairing"] = {"min_gap": 50}
    return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "few prompts",
            r"2 rounds of 13 prompts need 26, but there are 24 of 24 that no earlier round has answered",
        ),
        ("no prompts for each", r"25 rounds of 0 prompts need 25, but there are 24"),
        ("odd epochs", r"max_epochs is 3, expected a multiple of rounds\.epochs \(2\)"),
        ("data.train", r"Leave data\.train out, or leave the rounds out"),
        ("no pairs", r"Round 1 made 0 pairs of 6 prompts.*'pair/small_gap'.*loosen feedback\.pairing"),
    ],
)
def test_what_cannot_work_ends_in_a_message(change, message, tmp_path):
    with pytest.raises(RunError, match=message):
        start(broken(tmp_path / "run", change))


@pytest.mark.parametrize(
    "options", [{"feedback": None}, {"epochs": 0}, {"min_pairs": 0}, {"replay": -1}, {"ema_decay": 1.0}]
)
def test_settings_that_make_no_sense_are_refused_by_the_command_line(options, tmp_path, capsys):
    made = settings(tmp_path / "run")
    made["rounds"] |= options
    with pytest.raises(SystemExit):
        start(made)
    assert "rounds: " in capsys.readouterr().err


class FirstPolicysLabeler(ExactLabeler):
    """Knows the truth about the first policy that it meets, and believes every later one."""

    first: str | None = None

    def verdicts(self, samples: Sequence[Sample], questions: Sequence[str], policy: Engine) -> list[Verdict]:
        self.first = self.first or policy.identity
        if policy.identity == self.first:
            return super().verdicts(samples, questions, policy)
        return [TRUE] * len(questions)


def test_a_later_round_with_too_few_pairs_ends_the_run_in_order(tmp_path, capsys):
    labeler = f"{__name__}.FirstPolicysLabeler"
    run = Run(settings(tmp_path / "run", number=3, evaluator=True, feedback={"labeler": labeler}))
    assert "Round 2 made 0 pairs, fewer than min_pairs (1): the run ends here." in flat(capsys)
    summary = json.loads((run.directory / "summary.json").read_text())
    assert [row["round"] for row in summary["rounds"]] == [0, 1] and list(run.seen) == [0]
    assert summary["rounds"][1]["instance"] is not None
    assert (run.directory / "export" / "model.safetensors").exists() and not run.shards(3).exists()
    # And the same when the run is started again where it ended.
    assert start(run.settings, "--ckpt_path", "last") == {}
    again = json.loads((run.directory / "summary.json").read_text())
    assert [row["round"] for row in again["rounds"]] == [0, 1]


def flat(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_a_run_that_ends_by_steps_makes_no_round_that_it_does_not_train(previous, tmp_path):
    made = settings(tmp_path / "run", epochs=2)
    made["trainer"]["max_steps"] = sum(previous.batches[:2])
    run = Run(made)
    assert sorted(run.seen) == [0, 1] and not run.shards(2).exists()


# Corrections, other seeds, resumed runs.


@pytest.fixture(scope="module")
def corrected(tmp_path_factory) -> Run:
    """nSFT in two rounds."""
    return Run(nsft(tmp_path_factory.mktemp("nsft") / "run"))


def nsft(directory: Path, seed: int = 3) -> dict:
    made = settings(directory, evaluator=True, corrector=NSFT)
    made["seed_everything"] = seed
    made["model"]["class_path"] = "rlaifv_pl.objectives.NSFTModule"
    made["trainer"]["max_epochs"] = 2
    for source in made["data"]["sources"]:
        source["init_args"]["seed"] = 5
    return made


def test_nsft_trains_on_the_corrections_of_each_round(corrected):
    for number in (1, 2):
        out = corrected.shards(number) / "corrections"
        assert read_manifest(out).kinds["nsft"] == read_manifest(out).samples > 0
        assert sorted(corrected.seen[number - 1]) == keys(out)
        assert set(keys(out)) <= set(keys(corrected.shards(number)))
    summary = json.loads((corrected.directory / "summary.json").read_text())
    assert all("correct" in row["seconds"] for row in summary["rounds"][1:])


@pytest.mark.parametrize("used", ["finished", "stopped before its first checkpoint"])
def test_a_second_start_with_another_seed_mixes_nothing(corrected, tmp_path, used):
    """In a used directory it leaves what it leaves in one of its own."""
    moved_run(corrected, tmp_path / "used")
    if used != "finished":
        for part in ("checkpoints", "export"):
            shutil.rmtree(tmp_path / "used" / part)
    results = []
    for name in ("used", "fresh"):
        start(nsft(tmp_path / name, seed=4), "--overwrite", str(used == "finished").lower())
        rows = json.loads((tmp_path / name / "summary.json").read_text())["rounds"]
        spent = [sorted(row.pop("seconds")) for row in rows]
        ledger = json.loads((tmp_path / name / "rounds" / "ledger.json").read_text())
        results.append((outcome(tmp_path / name), rows, spent, list(ledger)))
    assert list(results[0][0]) == list(results[1][0])
    assert [name for name in results[0][0] if results[0][0][name] != results[1][0][name]] == []
    assert results[0][1:] == results[1][1:]
    old = outcome(corrected.directory)
    assert [name for name in old if "shard" in name and old[name] == results[0][0].get(name)] == []


def middle(run: Run, directory: Path, number: int) -> dict:
    """A copy of a run as if killed in the middle of a round's first epoch, with its settings."""
    made = moved_run(run, directory)
    for path in directory.glob("checkpoints/*.ckpt"):
        if path.stem == "last" or int(path.stem.partition("step")[2]) > run.firsts[number - 1] + 1:
            path.unlink()
    shutil.rmtree(directory / "export")
    return made


def moved_run(run: Run, directory: Path) -> dict:
    """A copy of a run, with its settings."""
    shutil.copytree(run.directory, directory)
    made = copy.deepcopy(run.settings)
    made["trainer"]["default_root_dir"] = str(directory)
    return made


@pytest.mark.parametrize("number", [1, 2])
def test_a_run_resumed_in_the_middle_of_a_round_ends_as_it_did(previous, tmp_path, number):
    made = middle(previous, tmp_path / "run", number)
    if number == 1:
        shutil.rmtree(tmp_path / "run" / "rounds" / "2")
    saved = checkpoint(tmp_path / "run", 2 * number - 1)
    assert saved["AlignmentDataModule"]["batches"] == 1
    start(made, "--ckpt_path", "last")
    expected, found = outcome(previous.directory), outcome(tmp_path / "run")
    assert list(expected) == list(found)
    assert [name for name in expected if expected[name] != found[name]] == []
    rows = [
        json.loads((one / "summary.json").read_text())["rounds"]
        for one in (previous.directory, tmp_path / "run")
    ]
    for row in (*rows[0], *rows[1]):
        del row["seconds"]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("change", ["generate", "seed", "pair", "missing"])
def test_other_feedback_in_the_middle_of_a_round_is_refused(previous, tmp_path, change):
    made = middle(previous, tmp_path / "run", 2)
    if change == "generate":
        made["rounds"]["feedback"]["sampling"]["n"] = 3
    if change == "seed":
        made["seed_everything"] = 4
        for source in made["data"]["sources"][:1]:
            source["init_args"]["seed"] = 3
    if change == "pair":
        made["rounds"]["feedback"]["pairing"] = {"max_pairs": 1}
    if change == "missing":
        (tmp_path / "run" / "rounds" / "2" / "manifest.json").unlink()
    with pytest.raises(RunError, match="made with other settings of feedback"):
        start(made, "--ckpt_path", "last")


def test_other_corrections_in_the_middle_of_a_round_are_refused(corrected, tmp_path):
    made = middle(corrected, tmp_path / "run", 2)
    made["rounds"]["corrector"]["init_args"]["templates"]["no"] = "not"
    with pytest.raises(RunError, match="made with other settings of feedback, prompts, corrections"):
        start(made, "--ckpt_path", "last")


def test_a_gate_that_is_not_passed_stops_the_run_before_it_trains(tmp_path):
    made = config(tmp_path / "run")
    made["rounds"]["feedback"]["gate"]["min_accuracy"] = 1.0
    made["rounds"]["feedback"]["labeler"]["init_args"]["engine"]["init_args"]["path"] = str(
        packaged_model("base")
    )
    del made["rounds"]["evaluator"]
    with pytest.raises(EngineError, match=r"asks for 100\.0%"):
        start(made)
    assert not list((tmp_path / "run" / "rounds" / "1" / "stages").glob("generate*"))


def test_a_signal_while_a_later_round_is_made_stops_at_once(tmp_path, monkeypatch):
    make, is_reached = FeedbackPipeline.make, []

    def signalled(self):
        if self.round == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            is_reached.append(True)
        return make(self)

    monkeypatch.setattr(FeedbackPipeline, "make", signalled)
    with pytest.raises(SystemExit) as stopped:
        start(settings(tmp_path / "run", prompts_per_round=4))
    assert stopped.value.code == EXIT_CODE and not is_reached
    assert checkpoint(tmp_path / "run", 1)["epoch"] == 0


def test_data_is_only_loaded_where_lightning_asks_for_it(tmp_path, monkeypatch):
    """Nothing is generated inside of `train_dataloader`."""
    make, load, events = FeedbackPipeline.make, AlignmentDataModule.train_dataloader, []

    def made(self):
        events.append(f"make {self.round}")
        return make(self)

    def loaded(self):
        events.append("load")
        loader = load(self)
        events.append("loaded")
        return loader

    monkeypatch.setattr(FeedbackPipeline, "make", made)
    monkeypatch.setattr(AlignmentDataModule, "train_dataloader", loaded)
    start(settings(tmp_path / "run", prompts_per_round=4))
    assert events == ["make 1", "load", "loaded", "make 2", "load", "loaded"]


def test_a_run_without_rounds_is_left_alone(previous, tmp_path):
    made = settings(tmp_path / "run", number=1)
    made["rounds"] = {}
    made["data"] = {"train": str(previous.shards(1)), "batch_size": 4, "num_workers": 0}
    run = Run(made)
    assert sorted(run.seen[0]) == keys(previous.shards(1))
    assert not (run.directory / "rounds").exists() and not (run.directory / "summary.json").exists()
    assert yaml.safe_load((run.directory / "config.yaml").read_text())["rounds"]["prompts"] is None
    assert "Rounds" not in checkpoint(run.directory, 1)["callbacks"]
