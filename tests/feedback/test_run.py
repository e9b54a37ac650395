"""A whole pass of feedback: what its pairs say, what it counts, and what it never does twice."""

import itertools
import json
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.data.shards import ShardWriter, load_shards
from rlaifv_pl.feedback import pipeline as run_module
from rlaifv_pl.feedback.chunks import RankShare
from rlaifv_pl.feedback.engines.engine import Completion, EngineError, Sampling
from rlaifv_pl.feedback.judges.combine import minus_expected_rejected, minus_rejected_share
from rlaifv_pl.feedback.judges.gate import Gate
from rlaifv_pl.feedback.judges.self_reward import RatingLabeler, WholeAnswer
from rlaifv_pl.feedback.pairs.pairing import PairRule
from rlaifv_pl.miniature.claims import divide
from rlaifv_pl.miniature.shards import Lessons, Scenes
from rlaifv_pl.models.chat import prompt_question
from rlaifv_pl.records import Correction, Sample
from tests.data.samples import check_streaming
from tests.feedback.scripted import Script, real_run, scripted_run, world_feedback, world_policy
from tests.training.tiny import REPOSITORY, environment

PROMPTS, N = 12, 8


def stored(directory: Path) -> list[Sample]:
    shards = load_shards(directory)
    return [shards[index] for index in range(len(shards))]


def files(directory: Path, pattern: str) -> dict[str, bytes]:
    found = (path for path in directory.rglob(pattern) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def stage(directory: Path, name: str) -> list[dict]:
    """The rows of a stage's parts, read as plain JSON."""
    (found,) = directory.glob(f"stages/{name}-*")
    lines = [line for part in sorted(found.iterdir()) for line in part.read_text().split("\n") if line]
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    return Scenes(out=str(tmp_path_factory.mktemp("prompts")), split="tune", count=PROMPTS, seed=3).ensure()


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Path:
    """40 yes/no questions about scenes."""
    out = tmp_path_factory.mktemp("known")
    return Lessons(out=str(out), split="tune", answer=40, questions=1).ensure()


@pytest.fixture(scope="module")
def by_models(prompts, known, tmp_path_factory) -> Path:
    """Feedback of the shipped policy and labeler."""
    out = tmp_path_factory.mktemp("by_models")
    real_run(out, prompts, world_policy(), world_feedback(known)).make()
    return out


@pytest.fixture(scope="module")
def by_scripts(prompts, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("by_scripts")
    scripted_run(out, prompts, Script(), Script("labeler")).make()
    return out


# What a pair says.


def test_pairs_carry_the_evidence_that_explains_their_scores(by_models, prompts):
    asked = {sample.key: sample for sample in stored(prompts)}
    samples = stored(by_models)
    assert len(samples) >= 4
    for sample in samples:
        prompt = asked[sample.key.rpartition("_p")[0]]
        assert (sample.prompt, sample.images) == (prompt.prompt, prompt.images)
        assert sample.provenance["round"] == 2 and sample.provenance["source"] == "world"
        scores = {}
        for side in ("chosen", "rejected"):
            text, told = getattr(sample, side), sample.evidence[side]
            scores[side] = -sum(claim["no"] >= claim["yes"] for claim in told["claims"])
            assert told["score"] == scores[side]
            assert [claim["question"] for claim in told["claims"]] == [one.question for one in divide(text)]
            assert all(text[slice(*claim["spans"][0])] == claim["text"] for claim in told["claims"])
        assert scores["chosen"] - scores["rejected"] >= 1


def test_webdataset_streams_scenes_and_their_pairs_with_images(by_models, by_scripts, prompts):
    assert check_streaming(prompts) == PROMPTS
    for directory in (by_models, by_scripts):
        assert check_streaming(directory) == len(load_shards(directory))


def test_pairs_of_a_prompt_are_linked_on_request(prompts, by_scripts, tmp_path):
    scripted_run(tmp_path, prompts, Script(), Script("labeler"), link_duplicate_images=True).make()
    assert stored(tmp_path) == [
        replace(one, provenance=other.provenance)
        for one, other in zip(stored(by_scripts), stored(tmp_path), strict=True)
    ]
    linked, whole = (load_shards(path).shards[0].shared.images for path in (tmp_path, by_scripts))
    assert linked > 0 == whole and read_manifest(tmp_path).schema_version == 2


def test_the_seed_in_the_evidence_draws_the_candidate_again(by_models, prompts):
    asked = {sample.key: sample for sample in stored(prompts)}
    sample = stored(by_models)[0]
    prompt, seed = asked[sample.key.rpartition("_p")[0]], sample.evidence["rejected"]["seed"]
    again = world_policy().sample([prompt], [[seed]], Sampling(n=1, temperature=1.0, max_new_tokens=60))
    assert again == [[Completion(sample.rejected, True)]]


@pytest.mark.parametrize("combine", [minus_rejected_share, minus_expected_rejected])
def test_the_score_is_the_configured_rules(prompts, tmp_path, combine):
    policy, labeler = Script(), Script("labeler")
    scripted_run(tmp_path, prompts, policy, labeler, combine=combine, pairing=PairRule(min_gap=0.01)).make()
    for sample in stored(tmp_path):
        for side in ("chosen", "rejected"):
            claims = sample.evidence[side]["claims"]
            share = -sum(claim["no"] >= claim["yes"] for claim in claims) / len(claims)
            expected = -sum(claim["no"] / (claim["yes"] + claim["no"]) for claim in claims)
            score = share if combine is minus_rejected_share else expected
            assert sample.evidence[side]["score"] == pytest.approx(score)


# What is counted.


def usable(candidates: list[dict]) -> tuple[list[dict], Counter]:
    """Candidates that may be paired, and why the others may not."""
    drops, seen, left = Counter(), set(), []
    for one in candidates:
        named = [claim["question"] for claim in one["claims"]]
        if one["text"] in seen:
            drops["candidate/equal_text"] += 1
        elif not named:
            drops["candidate/no_claims"] += 1
        elif len(set(named)) < len(named):
            drops["candidate/repeated_claim"] += 1
        else:
            left.append(one)
        seen.add(one["text"])
    return left, drops


def rejected_claims(candidate: dict) -> int:
    return sum(verdict["no"] >= verdict["yes"] for verdict in candidate["verdicts"])


def test_pairs_and_drops_account_for_every_candidate_and_every_two_of_them(by_scripts):
    manifest, expected, twos = read_manifest(by_scripts), Counter(), 0
    for row in stage(by_scripts, "conquer"):
        left, drops = usable(row["candidates"])
        gaps = [abs(rejected_claims(a) - rejected_claims(b)) >= 1 for a, b in itertools.combinations(left, 2)]
        expected += drops
        expected["pair/small_gap"] += gaps.count(False)
        expected["pair/over_max_pairs"] += max(0, gaps.count(True) - 2)
        expected["prompt/no_pair"] += not any(gaps)
        twos += len(gaps)
    left_out = {name: count for name, count in manifest.drops.items() if name != "pair/length_balance"}
    assert left_out == dict(+expected) and len(left_out) == 6, left_out
    of_pairs = sum(count for name, count in manifest.drops.items() if name.startswith("pair/"))
    assert manifest.samples + of_pairs == twos
    assert manifest.drops["pair/length_balance"] > 0 and manifest.samples > 0


def test_the_manifests_notes_are_right(by_scripts):
    notes, samples = read_manifest(by_scripts).notes, stored(by_scripts)
    candidates = [one for row in stage(by_scripts, "conquer") for one in row["candidates"]]
    masses = [verdict["yes"] + verdict["no"] for one in candidates for verdict in one["verdicts"]]
    assert notes["prompts"] == PROMPTS and notes["candidates"] == len(candidates) == PROMPTS * N
    assert notes["claims"] == len(masses) == sum(one["text"].count(" a ") for one in candidates)
    assert notes["low_mass"] == pytest.approx(sum(mass < 0.5 for mass in masses) / len(masses))
    assert 0.1 < notes["low_mass"] < 0.6
    for side in ("chosen", "rejected"):
        words = [len(getattr(sample, side).split()) for sample in samples]
        assert notes[f"{side}_words"] == pytest.approx(sum(words) / len(words))
    gaps = [sample.evidence["chosen"]["score"] - sample.evidence["rejected"]["score"] for sample in samples]
    assert notes["gap"] == pytest.approx(sum(gaps) / len(gaps))


def test_without_balance_only_the_balances_pairs_come_back(by_scripts, prompts, tmp_path):
    scripted_run(tmp_path, prompts, Script(), Script("labeler"), balance=False).make()
    manifest, balanced = read_manifest(tmp_path), read_manifest(by_scripts)
    assert manifest.samples == balanced.samples + balanced.drops["pair/length_balance"]
    assert "length_threshold" not in manifest.notes
    assert {sample.key for sample in stored(by_scripts)} < {sample.key for sample in stored(tmp_path)}


def test_one_prompts_pairs_have_keys_of_their_own(by_scripts):
    numbers = Counter(sample.key.rpartition("_p")[0] for sample in stored(by_scripts))
    assert max(numbers.values()) == 2
    keys = {f"{key}_p{number}" for key, count in numbers.items() for number in range(count)}
    assert {sample.key for sample in stored(by_scripts)} == keys


# What is not done twice.


def test_equal_questions_about_one_image_are_asked_once(prompts, tmp_path):
    labeler = Script("labeler")
    scripted_run(tmp_path, prompts, Script(), labeler).make()
    rows = stage(tmp_path, "conquer")
    asked = {
        (row["key"], claim["question"])
        for row in rows
        for one in row["candidates"]
        for claim in one["claims"]
    }
    assert (
        len(labeler.chosen)
        == len(asked)
        < sum(len(one["claims"]) for row in rows for one in row["candidates"])
    )


def test_what_is_made_is_not_made_again(by_scripts, prompts):
    before = {path: path.stat().st_mtime_ns for path in by_scripts.rglob("*") if path.is_file()}
    policy, labeler = Script(), Script("labeler")
    manifest = scripted_run(by_scripts, prompts, policy, labeler).make()
    assert policy.calls == labeler.calls == 0 and manifest == read_manifest(by_scripts)
    assert before == {path: path.stat().st_mtime_ns for path in by_scripts.rglob("*") if path.is_file()}


def test_another_labeler_takes_the_candidates_and_another_rule_the_verdicts(prompts, tmp_path):
    policy, labeler = Script(), Script("labeler")
    first = scripted_run(tmp_path, prompts, policy, labeler).make()
    assert len(policy.sampled) == PROMPTS and labeler.chosen
    other = Script("another labeler")
    second = scripted_run(tmp_path, prompts, policy, other).make()
    assert len(policy.sampled) == PROMPTS and len(other.chosen) == len(labeler.chosen)
    asked = len(other.chosen)
    third = scripted_run(
        tmp_path, prompts, policy, other, pairing=PairRule(max_pairs=1), balance=False
    ).make()
    assert len(policy.sampled) == PROMPTS and len(other.chosen) == asked
    assert max(Counter(sample.key.rpartition("_p")[0] for sample in stored(tmp_path)).values()) == 1
    assert len({manifest.recipe_hash for manifest in (first, second, third)}) == 3
    back = scripted_run(tmp_path, prompts, policy, labeler).make()
    assert back == first and len(policy.sampled) == PROMPTS


def test_another_policy_seed_or_sampling_draws_anew(prompts, tmp_path):
    policy = Script()
    for number, changes in enumerate(
        ({}, {"seed": 2}, {"sampling": Sampling(n=N, temperature=0.6)}), start=1
    ):
        scripted_run(tmp_path, prompts, policy, Script("labeler"), **changes).make()
        assert len(policy.sampled) == number * PROMPTS
    other = Script("another policy")
    for out in (tmp_path, tmp_path / "fresh"):
        scripted_run(out, prompts, other, Script("labeler")).make()
    assert len(other.sampled) == 2 * PROMPTS
    assert stored(tmp_path) == stored(tmp_path / "fresh") != []


@pytest.mark.parametrize("size", [1, 5, 100])
def test_the_size_of_the_parts_changes_no_sample(by_scripts, prompts, tmp_path, size):
    scripted_run(tmp_path, prompts, Script(), Script("labeler"), prompts_per_part=size).make()

    def seen(directory):  # Their provenance names the parts.
        return [(sample.key, sample.chosen, sample.rejected, sample.evidence) for sample in stored(directory)]

    assert seen(tmp_path) == seen(by_scripts)


def test_a_model_that_goes_away_costs_one_part(by_scripts, prompts, tmp_path):
    """12 prompts in 3 parts: the policy breaks at its second, then the labeler at its third."""
    with pytest.raises(EngineError, match="went away"):
        scripted_run(tmp_path, prompts, Script(breaks_at=2), Script("labeler")).make()
    policy = Script()
    with pytest.raises(EngineError, match="went away"):
        scripted_run(tmp_path, prompts, policy, Script("labeler", breaks_at=3)).make()
    assert len(policy.sampled) == 8 and not (tmp_path / "manifest.json").exists()
    policy, labeler = Script(), Script("labeler")
    scripted_run(tmp_path, prompts, policy, labeler).make()
    assert policy.calls == 0 and labeler.calls == 1
    whole = files(by_scripts, "*")
    assert whole.pop("manifest.json") and files(tmp_path, "*").items() >= whole.items()
    assert read_manifest(tmp_path) == read_manifest(by_scripts)


def test_the_models_are_let_go_between_the_stages(prompts, tmp_path):
    policy, labeler = Script(), Script("labeler")
    run = scripted_run(tmp_path, prompts, policy, labeler)
    done = {}
    run.clock = lambda stage, _: done.setdefault(stage, (policy.released, labeler.released))
    run.make()
    assert list(done) == ["generate", "divide", "conquer", "pair"]
    assert done["divide"][0] >= 1 and done["pair"] == (3, 1)


# The gate.


class Oracle(Script):
    """Knows the answers of known questions; says the contrary to the first `wrong` that are answered no."""

    def __init__(self, known: Path, wrong: int = 0, identity: str = "oracle") -> None:
        super().__init__(identity)
        self.answers = {(prompt_question(one), one.images): one.completion for one in stored(known)}
        negated = [key for key, answer in self.answers.items() if answer.startswith("no")]
        self.answers |= dict.fromkeys(negated[:wrong], "yes")
        self.negated = len(negated)

    def choose(self, requests, words):
        super().choose(requests, words)
        answers = [self.answers.get((request.text, request.images), "yes") for request in requests]
        return [[0.9, 0.1] if answer.startswith("yes") else [0.1, 0.9] for answer in answers]


def test_a_labeler_below_the_bar_stops_before_anything_is_generated(prompts, known, tmp_path):
    """It is wrong about half of the questions answered no: 100 % and 50 % make 75 %."""
    policy, labeler = Script(), Oracle(known)
    labeler = Oracle(known, wrong=labeler.negated // 2)
    right = 1 - (labeler.negated // 2) / labeler.negated
    gate = Gate(shards=str(known), min_accuracy=0.9)
    for _ in range(2):
        with pytest.raises(EngineError, match=rf"answers {(1 + right) / 2:.1%} of .* asks for 90\.0%"):
            scripted_run(tmp_path, prompts, policy, labeler, gate=gate).make()
    assert policy.calls == 0 and labeler.calls == 1 and labeler.released == 1
    gate.min_accuracy = 0.7
    scripted_run(tmp_path, prompts, policy, labeler, gate=gate).make()
    assert policy.calls == 3 and len(labeler.chosen) > 40
    assert [one.text for one in labeler.chosen[:40]] == [prompt_question(one) for one in stored(known)]


def test_each_labeler_has_to_pass_for_itself(prompts, known, tmp_path):
    gate = Gate(shards=str(known))
    scripted_run(tmp_path, prompts, Script(), Oracle(known), gate=gate).make()
    worse = Oracle(known, wrong=99, identity="worse")
    with pytest.raises(EngineError, match=r"answers 50\.0%"):
        scripted_run(tmp_path, prompts, Script(), worse, gate=gate).make()


def test_a_policy_that_labels_itself_is_asked_the_known_questions(prompts, known, tmp_path):
    policy, gate = Oracle(known), Gate(shards=str(known))
    scripted_run(tmp_path, prompts, policy, None, gate=gate).make()
    assert [one.text for one in policy.chosen[:40]] == [prompt_question(one) for one in stored(known)]
    assert len(policy.sampled) == PROMPTS and len(policy.chosen) > 40


def test_a_gate_without_both_answers_is_refused_before_anybody_is_asked(prompts, known, tmp_path):
    for name, keep in (("none", ()), ("affirmed", ("yes",))):
        with ShardWriter(tmp_path / name, recipe={"keep": keep}) as writer:
            for sample in stored(known):
                if sample.completion.startswith(keep) if keep else False:
                    writer.write(sample)
        policy, labeler = Script(), Oracle(known)
        gate = Gate(shards=str(tmp_path / name))
        with pytest.raises(EngineError, match=f"with the answers {list(keep)}".replace("[", r"\[")):
            scripted_run(tmp_path / "out", prompts, policy, labeler, gate=gate).make()
        assert policy.calls == labeler.calls == 0
    with pytest.raises(ValueError, match=r"expected 0\.5"):
        Gate(shards="known", min_accuracy=0.4)


# Prompts of every kind.


def test_of_a_sample_only_prompt_and_images_go_on(prompts, tmp_path):
    picture, other = (sample.images for sample in stored(prompts)[:2])
    talk = [
        {"role": "user", "content": "what is it?"},
        {"role": "assistant", "content": "a scene."},
        {"role": "user", "content": "what is in it?"},
    ]
    turns = (Correction(question="is it red?", answer="no"),)
    answers = {"chosen": "a cup.", "rejected": "a ring."}
    asked = [
        Sample(key="prompt", prompt="look.", images=picture),
        Sample(key="sft", prompt="look.", images=picture, completion="a cup."),
        Sample(
            key="pair", prompt="look.", images=picture, rejected_images=other, corrections=turns, **answers
        ),
        Sample(key="talk", prompt=talk, images=picture, completion="a cup.", provenance={"source": "me"}),
        Sample(key="blind", prompt="look.", extra={"own": 1}),
    ]
    with ShardWriter(tmp_path / "prompts", recipe={}) as writer:
        for sample in asked:
            writer.write(sample)
    labeler, how = Script("labeler"), {"pairing": PairRule(min_gap=0.01), "combine": minus_expected_rejected}
    scripted_run(
        tmp_path / "out",
        tmp_path / "prompts",
        Script(),
        labeler,
        sampling=Sampling(n=8),
        balance=False,
        **how,
    ).make()
    found = {sample.key.rpartition("_p")[0]: sample for sample in stored(tmp_path / "out")}
    assert found.keys() == {sample.key for sample in asked}
    for sample in asked:
        pair = found[sample.key]
        assert (pair.prompt, pair.images, pair.extra) == (sample.prompt, sample.images, sample.extra)
        assert pair.chosen.startswith("there is") and pair.rejected.startswith("there is")
        assert pair.completion is None and not pair.corrections and not pair.rejected_images
    assert found["talk"].provenance["source"] == "me"
    assert {request.images for request in labeler.chosen} == {picture, ()}


def test_models_answer_prompts_of_several_turns_and_without_an_image(prompts, tmp_path, known):
    (picture,) = stored(prompts)[0].images
    talk = [
        {"role": "user", "content": "is there a red cup?"},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": stored(prompts)[0].prompt},
    ]
    with ShardWriter(tmp_path / "prompts", recipe={}) as writer:
        writer.write(Sample(key="talk", prompt=talk, images=(picture,)))
        writer.write(Sample(key="blind", prompt=stored(prompts)[0].prompt))
    feedback = world_feedback(known)
    feedback.gate, feedback.sampling = None, Sampling(n=3, temperature=1.0, max_new_tokens=60)
    manifest = real_run(tmp_path / "out", tmp_path / "prompts", world_policy(), feedback).make()
    assert manifest.notes["candidates"] == 6 and manifest.notes["claims"] > 0


# Self-reward.


def test_self_reward_rates_whole_answers(prompts, tmp_path):
    """Score: (expected digit - 5) / 4, from the script's own shares of the five digits."""
    policy = Script()
    how = {"splitter": WholeAnswer(), "labeler": RatingLabeler(), "combine": minus_expected_rejected}
    run = scripted_run(tmp_path, prompts, policy, None, pairing=PairRule(min_gap=0.1, max_pairs=1), **how)
    run.make()
    samples = stored(tmp_path)
    shares = {
        (one.text, one.images): policy._shares(one, 5) for one in policy.chosen
    }  # the same again: a script
    assert len(samples) >= 4
    for sample in samples:
        assert sample.evidence["chosen"]["score"] - sample.evidence["rejected"]["score"] >= 0.1
        for side in ("chosen", "rejected"):
            text, (claim,) = getattr(sample, side), sample.evidence[side]["claims"]
            assert (claim["spans"], claim["text"]) == ([[0, len(text)]], text)
            digits = shares[claim["question"], sample.images]
            expected = sum(digit * share for digit, share in enumerate(digits, start=1)) / sum(digits)
            assert sample.evidence[side]["score"] == pytest.approx((expected - 5) / 4)
            assert text in claim["question"] and prompt_question(sample) in claim["question"]


# Several processes.


def test_two_processes_leave_what_one_leaves(by_models, prompts, known, tmp_path):
    command = [sys.executable, "-m", "tests.feedback.scripted", str(tmp_path), str(prompts), str(known)]
    both = [
        subprocess.Popen([*command, str(rank), "2"], env=environment(), cwd=REPOSITORY) for rank in (0, 1)
    ]
    assert [process.wait(timeout=240) for process in both] == [0, 0]
    one, two = files(by_models, "*"), files(tmp_path, "*")
    assert one.keys() == two.keys() and [name for name in one if one[name] != two[name]] == []
    assert sum(name.endswith(".jsonl") for name in one) == 3 * PROMPTS // 2 + 2  # The gate's, and examples.


def test_a_process_waits_as_long_as_another_makes_parts_of_any_stage(prompts, tmp_path, monkeypatch):
    """The other's 3 parts of `generate` take 0.5 s each: more in all than a patience of 1 s."""
    monkeypatch.setattr(run_module, "WAIT_SECONDS", 1.0)

    class Slow(Script):
        def sample(self, samples, seeds, sampling):
            threading.Event().wait(0.5)
            return super().sample(samples, seeds, sampling)

    runs = [
        scripted_run(tmp_path, prompts, policy, Script("labeler"), prompts_per_part=2)
        for policy in (Script(), Slow())
    ]
    for rank, one in enumerate(runs):
        one.executor = RankShare(rank, 2)
    other = threading.Thread(target=runs[1].make)
    other.start()
    manifest = runs[0].make()
    other.join()
    assert manifest.notes["prompts"] == PROMPTS
