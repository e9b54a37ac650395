"""Real photos through feedback: prompts, candidates, verdicts, pairs, corrections, and a step of training on them.

The model is random and writes gibberish, so what is tested is that everything passes on to the next stage.
"""

import csv
from pathlib import Path

import pytest
import yaml

from rlaifv_pl.cli import commands
from rlaifv_pl.cli.fit import main
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.data.shards import ShardWriter, load_shards
from rlaifv_pl.feedback.claims.splitter import PromptedAnswer, RuleSplitter
from rlaifv_pl.feedback.config import FeedbackConfig
from rlaifv_pl.feedback.engines.engine import Completion, Sampling
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.feedback.judges.combine import minus_expected_rejected
from rlaifv_pl.feedback.judges.labeler import ModelLabeler
from rlaifv_pl.feedback.pairs.pairing import PairRule
from rlaifv_pl.records import Sample
from tests import coco
from tests.feedback.scripted import real_run

CONFIGS = Path(__file__).parents[2] / "configs"
PHOTOS, N = 6, 3


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    """The first photos, to be described."""
    out = tmp_path_factory.mktemp("prompts")
    with ShardWriter(out, recipe={"photos": PHOTOS}) as writer:
        for photo in coco.photos()[:PHOTOS]:
            writer.write(Sample(key=f"coco_{photo.name}", prompt=coco.PROMPT, images=(photo.data,)))
    return out


TRUSTED = ("--trust-config", "tests.feedback.ending")


def engine(model: Path) -> dict:
    return {
        "class_path": "rlaifv_pl.feedback.engines.transformers_engine.TransformersEngine",
        "init_args": {"path": str(model), "batch_size": 6},
    }


def settings(model: Path, prompts: Path, out: Path, **feedback) -> dict:
    """A file for `rlaifv feedback`: the model answers, and judges by probabilities."""
    how = {
        "sampling": {"n": N, "temperature": 1.0, "max_new_tokens": 12},
        "splitter": "rlaifv_pl.feedback.judges.self_reward.WholeAnswer",
        "labeler": {
            "class_path": "rlaifv_pl.feedback.judges.labeler.ModelLabeler",
            "init_args": {"engine": engine(model)},
        },
        "combine": "rlaifv_pl.feedback.judges.combine.minus_expected_rejected",
        "pairing": {"min_gap": 1e-6},
        "balance": False,
        "prompts_per_part": 4,
    }
    policy = engine(model) | {"class_path": "tests.feedback.ending.Ending"}
    return {"prompts": str(prompts), "out": str(out), "policy": policy, "feedback": how | feedback}


def write(path: Path, made: dict) -> Path:
    path.write_text(yaml.safe_dump(made))
    return path


@pytest.fixture(scope="module")
def pairs(prompts, family_dir, tmp_path_factory) -> Path:
    """Pairs of whole answers, judged by the model itself."""
    root = tmp_path_factory.mktemp("pairs")
    made = settings(family_dir("llava"), prompts, root / "out")
    commands.main(["feedback", *TRUSTED, "--config", str(write(root / "feedback.yaml", made))])
    return root / "out"


def stored(directory: Path) -> list[Sample]:
    shards = load_shards(directory)
    return [shards[index] for index in range(len(shards))]


def test_photos_become_pairs_with_their_bytes_and_evidence(pairs, prompts):
    photos = {sample.key: sample for sample in stored(prompts)}
    samples, manifest = stored(pairs), read_manifest(pairs)
    assert manifest.notes["prompts"] == PHOTOS and manifest.notes["candidates"] == PHOTOS * N
    assert manifest.kinds == {"preference": len(samples)} and len(samples) >= PHOTOS
    for sample in samples:
        photo = photos[sample.key.rpartition("_p")[0]]
        assert sample.images == photo.images and sample.prompt == coco.PROMPT
        for side in ("chosen", "rejected"):
            (claim,) = sample.evidence[side]["claims"]
            assert claim["text"] == getattr(sample, side) and 0 < claim["yes"] + claim["no"] <= 1
            expected = -claim["no"] / (claim["yes"] + claim["no"])
            assert sample.evidence[side]["score"] == pytest.approx(expected)


def test_the_shards_hold_and_the_command_goes_on_where_it_was(pairs, capsys):
    before = (pairs / "shard-000000.tar").stat().st_mtime_ns
    commands.main(["shards", "verify", str(pairs)])
    commands.main(["feedback", *TRUSTED, "run", "--config", str(pairs.parent / "feedback.yaml")])
    assert (pairs / "shard-000000.tar").stat().st_mtime_ns == before
    said = " ".join(capsys.readouterr().err.split())
    assert "candidates" in said and "seconds: conquer" in said


def test_limit_answers_the_first_prompts_alone(prompts, family_dir, tmp_path):
    made = settings(family_dir("llava"), prompts, tmp_path / "out") | {"limit": 2}
    commands.main(["feedback", *TRUSTED, "--config", str(write(tmp_path / "feedback.yaml", made))])
    assert read_manifest(tmp_path / "out").notes["candidates"] == 2 * N
    first = [sample.key for sample in stored(prompts)[:2]]
    assert {sample.key.rpartition("_p")[0] for sample in stored(tmp_path / "out")} <= set(first)


def test_the_shipped_config_runs_on_photos(prompts, family_dir, tmp_path):
    """Other models, shorter answers; splitter, labeler and rule are the config's own."""
    model = family_dir("llava")
    command = [
            "feedback", "--config", str(CONFIGS / "feedback.yaml"), "--prompts", str(prompts),
            "--out", str(tmp_path / "out"), "--policy.path", str(model), "--policy.dtype", "float32",
            "--feedback.labeler.engine.path", str(model), "--feedback.labeler.engine.dtype", "float32",
            "--feedback.labeler.cache", str(tmp_path / "verdicts.sqlite"),
            "--feedback.sampling.max_new_tokens", "8", "--feedback.sampling.n", "3",
        ]  # fmt: skip
    with pytest.raises(SystemExit, match=r"No pair .*raise feedback\.sampling\.max_new_tokens"):
        commands.main(command)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.notes["candidates"] == PHOTOS * 3 == manifest.drops["candidate/truncated"]
    assert manifest.recipe["settings"]["divide"]["splitter"] == "rules"
    assert manifest.recipe["settings"]["pair"]["pair"]["min_gap"] == 1
    commands.main(["shards", "verify", str(tmp_path / "out")])


def correct(shards: Path, out: Path) -> None:
    commands.main(["feedback", "correct", "--shards", str(shards), "--out", str(out)])


def descriptions(directory: Path) -> Path:
    """Photos described by rule, rightly and wrongly, as scripted candidates with the evidence of a good labeler."""
    with ShardWriter(directory, recipe={"photos": "judged"}) as writer:
        for photo in coco.photos()[:PHOTOS]:
            sides = {"chosen": photo.chosen, "rejected": photo.rejected}
            writer.write(
                Sample(
                    key=f"coco_{photo.name}",
                    prompt=coco.PROMPT,
                    images=(photo.data,),
                    evidence={side: judged(text, photo) for side, text in sides.items()},
                    **sides,
                )
            )
    return directory


def judged(text: str, photo: coco.Photo) -> dict:
    """The claims of a description by the shipped splitter; wrong are those about the absent class."""
    (claims,) = RuleSplitter().split([PromptedAnswer(coco.PROMPT, text)])
    made = []
    for claim in claims:
        wrong = float(photo.absent in claim.text)
        told = {"text": claim.text, "question": claim.question, "spans": [list(span) for span in claim.spans]}
        made.append({**told, "yes": 1 - wrong, "no": wrong})
    return {"score": -sum(claim["no"] for claim in made), "claims": made}


def test_divided_descriptions_of_photos_are_corrected(tmp_path):
    """The splitter finds the absent class in every wrong description, and the dialogue denies it."""
    correct(descriptions(tmp_path / "pairs"), tmp_path / "corrections")
    samples = stored(tmp_path / "corrections")
    assert len(samples) >= PHOTOS - 1
    for sample in samples:
        absent = next(photo.absent for photo in coco.photos() if f"coco_{photo.name}" == sample.key)
        denied = [turn.question for turn in sample.corrections if turn.answer == "No."]
        assert any(absent in question for question in denied), (absent, sample.corrections)


def test_whole_answers_are_no_ground_for_corrections(pairs, tmp_path):
    with pytest.raises(SystemExit, match="Judge both answers claim by claim first"):
        correct(pairs, tmp_path / "corrections")


class Describer:
    """Describes each photo twice, rightly and wrongly."""

    identity = "describer"

    def sample(self, samples, seeds, sampling):
        known = {
            photo.data: [Completion(text, True) for text in (photo.chosen, photo.rejected)]
            for photo in coco.photos()
        }
        return [known[sample.images[0]] for sample in samples]

    def release(self):
        pass


def test_divided_descriptions_are_judged_by_a_model_and_corrected(prompts, family_dir, tmp_path):
    """A random model accepts and rejects at random: what it leaves to correct is told from the evidence."""
    labeler = TransformersEngine(path=str(family_dir("llava")))
    feedback = FeedbackConfig(
        splitter=RuleSplitter(),
        labeler=ModelLabeler(engine=labeler),
        sampling=Sampling(n=2),
        combine=minus_expected_rejected,
        pairing=PairRule(min_gap=1e-6),
        balance=False,
    )
    real_run(tmp_path / "pairs", prompts, Describer(), feedback).make()
    correct(tmp_path / "pairs", tmp_path / "corrections")
    samples, manifest = stored(tmp_path / "pairs"), read_manifest(tmp_path / "corrections")
    assert len(samples) >= PHOTOS - 1 and manifest.samples + sum(manifest.drops.values()) == len(samples)
    told = [tuple(claims(sample, side) for side in ("chosen", "rejected")) for sample in samples]
    wrong = [{one for one in bad if bad[one] and one not in good} for good, bad in told]
    missed = [{one for one in good if not good[one] and one not in bad} for good, bad in told]
    hopeless = sum(not one and not other for one, other in zip(wrong, missed, strict=True))
    assert manifest.drops.get("no_error", 0) == hopeless
    assert sum(len(good) + len(bad) for good, bad in told) > 2 * len(samples)


def claims(sample: Sample, side: str) -> dict[str, bool]:
    """Questions of one side, and whether each was rejected."""
    return {one["question"]: one["no"] >= one["yes"] for one in sample.evidence[side]["claims"]}


def train(config: str, data: Path, model: Path, directory: Path) -> list[float]:
    """Losses of two steps by a shipped config."""
    main(
        [
            "fit", f"--config={CONFIGS / config}", f"--model.policy.path={model}", f"--data.train={data}",
            "--data.batch_size=2", "--trainer.accumulate_grad_batches=1", "--trainer.precision=32-true",
            "--trainer.accelerator=cpu", f"--trainer.default_root_dir={directory}", "--trainer.max_steps=2",
            "--data.num_workers=0", "--trainer.enable_progress_bar=false",
        ]
    )  # fmt: skip
    with open(directory / "metrics.csv", newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_dpo_learns_from_the_pairs(pairs, family_dir, tmp_path):
    losses = train("dpo.yaml", pairs, family_dir("llava"), tmp_path / "run")
    assert losses[0] == pytest.approx(0.693147, abs=1e-5) and len(losses) == 2


def test_nsft_learns_from_the_corrections(family_dir, tmp_path):
    correct(descriptions(tmp_path / "pairs"), tmp_path / "corrections")
    losses = train("nsft.yaml", tmp_path / "corrections", family_dir("llava"), tmp_path / "run")
    assert len(losses) == 2 and all(loss > 0 for loss in losses)
