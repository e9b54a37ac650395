"""Corrections by rule, and whole passes over shards."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from jsonargparse import auto_cli

from rlaifv_pl.cli.correct import correct
from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.manifest import Manifest, read_manifest
from rlaifv_pl.data.schema import Kind
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.corrections.codebook import Codebook
from rlaifv_pl.feedback.corrections.diagnosis import diagnose
from rlaifv_pl.feedback.corrections.dialogue_rules import TurnRule, polarity
from rlaifv_pl.feedback.corrections.pipeline import correct_shards
from rlaifv_pl.feedback.corrections.rule_corrector import RuleCorrector, TurnTemplates
from rlaifv_pl.miniature.claims import is_true
from rlaifv_pl.miniature.language import PUNCTUATION, WORDS
from rlaifv_pl.miniature.scenes import Scene
from rlaifv_pl.objectives import NSFTModule
from rlaifv_pl.records import Sample
from tests.data.samples import check_streaming
from tests.feedback.dialogues import judged, world_pairs, write
from tests.objectives.test_modules import make

WORLD = TurnTemplates(yes="yes", no="no", color=None, count=None)


def codes(findings) -> list[str]:
    return [f"{one.claim.text}: {one.code}" for one in findings]


def dialogue(sample: Sample, seed: int = 0, **options) -> set[str]:
    """`question answer (codes)` of each turn."""
    (corrected,) = RuleCorrector(**options).correct([sample], seed)
    assert corrected.removed == {}
    return {
        f"{turn.question.removeprefix('Is it true: ')} {turn.answer} {' '.join(turn.codes)}".strip()
        for turn in corrected.corrections
    }


@pytest.mark.parametrize(
    "chosen, rejected, wrong, missed",
    [
        (["+a cup"], ["-a ring"], ["a ring: obj.absent"], ["a cup: obj.missed"]),
        (["+a red cup"], ["-a blue cup"], ["a blue cup: attr.color"], ["a red cup: attr.color"]),
        (["+the cup is red"], ["-There is a blue cup."], ["There is a blue cup.: attr.color"], None),
        (["+two dogs"], ["-there are 3 dogs"], ["there are 3 dogs: count"], ["two dogs: count"]),
        (["+a red cup"], ["-a blue ring"], ["a blue ring: obj.absent"], ["a red cup: obj.missed"]),
        (["+a cup"], ["-four cups"], ["four cups: count"], ["a cup: obj.missed"]),
        (["-a red cup"], ["-a blue cup"], ["a blue cup: obj.absent"], []),
        (["+a cup", "-a star"], ["-a star", "+a cup"], [], []),
        (["+a cup"], ["+A cup", "-a star", "-a star"], ["a star: obj.absent"], []),
    ],
)
def test_the_words_of_claims_tell_the_kind_of_mistake(chosen, rejected, wrong, missed):
    found = diagnose(judged(chosen, rejected))
    assert codes(found.wrong) == wrong
    assert missed is None or codes(found.missed) == missed


@pytest.mark.parametrize(
    "chosen, rejected, missed",
    [
        # The same in other words is not missed at all.
        (["+a bicycle"], ["+a bike", "-a ring"], []),
        (["+there are bikes"], ["+there are bicycles", "-a ring"], []),
        (["+a person rides a bicycle"], ["+a man is riding a bike", "-a ring"], []),
        (["+a mobile phone"], ["+a cell phone", "-a ring"], []),
        # The thing is named, and something else of it was left unsaid.
        (["+the dog is sleeping"], ["+there is a puppy", "-a ring"], ["the dog is sleeping: None"]),
        (["+a dog"], ["+two dogs", "-a ring"], ["a dog: None"]),
        (["+a person"], ["-a man with a hat"], ["a person: None"]),
        (["+a lamp on the table"], ["+two lamps", "+a dining table"], ["a lamp on the table: None"]),
        # Another thing, or another one of its kind.
        (["+a woman"], ["-a ring"], ["a woman: obj.missed"]),
        (["+a green cup"], ["+a red cup", "-a ring"], ["a green cup: obj.missed"]),
        (["+a man rides a horse"], ["+a man", "-a ring"], ["a man rides a horse: obj.missed"]),
        (["+a lamp"], ["+a vase", "-a ring"], ["a lamp: obj.missed"]),
    ],
)
def test_what_is_said_in_other_words_is_no_object_that_was_missed(chosen, rejected, missed):
    assert codes(diagnose(judged(chosen, rejected)).missed) == missed


def test_what_the_chosen_answer_says_in_other_words_is_not_denied():
    found = diagnose(judged(["+a bike"], ["-a bicycle", "-a ring"]))
    assert codes(found.wrong) == ["a ring: obj.absent"] and codes(found.missed) == ["a bike: None"]
    sexes = diagnose(judged(["+a woman"], ["-a man", "-a ring"]))
    assert codes(sexes.wrong) == ["a man: obj.absent", "a ring: obj.absent"]


def test_a_tie_counts_against_the_claim_as_everywhere():
    sample = judged(["+a cup"], ["+a cup", "+a ring"])
    sample.evidence["rejected"]["claims"][1].update(yes=0.3, no=0.3)
    assert codes(diagnose(sample).wrong) == ["a ring: obj.absent"]


def test_one_mistake_is_denied_and_one_missed_thing_affirmed():
    assert dialogue(judged(["+a cup"], ["-a ring"])) == {"a ring? No. obj.absent", "a cup? Yes. obj.missed"}


def test_what_the_rejected_answer_got_right_fills_up_the_yes_side():
    """Two denials want two affirmations: one missed, one that both say, which is about no mistake."""
    sample = judged(["+a cup", "+a bar"], ["-a ring", "-a star", "+a bar"])
    assert dialogue(sample) == {
        "a ring? No. obj.absent",
        "a star? No. obj.absent",
        "a cup? Yes. obj.missed",
        "a bar? Yes.",
    }


def test_a_spare_claim_about_a_colour_or_a_number_is_asked_openly():
    chosen = ["+a red cup", "+two dogs", "+a bar"]
    assert dialogue(judged(chosen, ["-a blue cup", "-a star", "+a bar"])) >= {
        "a blue cup? No. attr.color",
        "a star? No. obj.absent",
    }
    asked = dialogue(judged(chosen, ["-a blue cup", "+a bar"]))
    assert asked == {
        "a blue cup? No. attr.color",
        "a bar? Yes.",
        "What color is the cup? Red. attr.color",
        "How many dogs are there? Two. obj.missed",
    }


@pytest.mark.parametrize(
    "claim",
    [
        "a red and white cup",
        "red cups",
        "the red cup",
        "two dogs on a sofa",
        "two story house",
        "a red cup is on it",
    ],
)
def test_what_reads_badly_as_an_open_question_is_not_asked_openly(claim):
    sample = judged([f"+{claim}", "+a bar"], ["-a star", "+a bar"])
    assert not any(turn.startswith(("What", "How")) for turn in dialogue(sample))


def test_an_open_question_with_two_right_answers_is_not_asked():
    sample = judged(["+a red cup", "+a green cup", "+a bar"], ["-a blue cup", "+a bar"])
    assert not any(turn.startswith("What") for turn in dialogue(sample))


def test_yes_and_no_are_equally_many_and_turns_never_too_many():
    """Four denials and one affirmation: one of each. Without balance: five turns, denials first."""
    sample = judged(["+a cup"], ["-a ring", "-a star", "-a moon", "-a bar"])
    assert Counter(turn.split("? ")[1][:2] for turn in dialogue(sample)) == {"No": 1, "Ye": 1}
    unbalanced = dialogue(sample, rule=TurnRule(balanced=False, turns=4))
    assert Counter(turn.split("? ")[1][:2] for turn in unbalanced) == {"No": 4}
    assert len(dialogue(judged([], ["-a ring", "-a star"]))) == 1
    assert dialogue(judged(["+a cup", "+a bar"], [])) <= {"a cup? Yes. obj.missed", "a bar? Yes. obj.missed"}


def test_explained_answers_rest_on_accepted_claims_only():
    sample = judged(["+there is a red cup.", "+it rains"], ["-there is a blue cup.", "-it snows"])
    assert dialogue(sample, templates=TurnTemplates(explain=True)) == {
        "there is a blue cup.? No. There is a red cup. attr.color",
        "it snows? No. obj.absent",
        "there is a red cup.? Yes. There is a red cup. attr.color",
        "it rains? Yes. It rains. obj.missed",
    }


def test_the_seed_and_the_key_decide_turns_and_order():
    many = judged([f"+c{n}" for n in range(6)], [f"-r{n}" for n in range(6)])
    drawn = {str(RuleCorrector().correct([many], seed)) for seed in range(20)}
    drawn |= {str(RuleCorrector().correct([replace(many, key="b")], 0))}
    assert len(drawn) > 15
    assert RuleCorrector().correct([many, many], 3) == RuleCorrector().correct([many], 3) * 2


def test_in_the_world_every_answer_is_true_and_every_word_known():
    pairs = list(world_pairs(300))
    corrected = RuleCorrector(templates=WORLD).correct(pairs, 0)
    assert len(pairs) > 100 and all(one.drop is None for one in corrected)
    said = Counter()
    for sample, one in zip(pairs, corrected, strict=True):
        scene = Scene.from_json(sample.extra["scene"])
        for turn in one.corrections:
            assert turn.answer == ("yes" if is_true(scene, turn.question) else "no")
            words = f"{turn.question} {turn.answer}"
            assert set(words.translate({ord(mark): " " for mark in PUNCTUATION}).split()) <= set(WORDS)
            said[polarity(turn.answer)] += 1
            assert set(turn.codes) <= Codebook.load().by_id.keys()
    assert abs(said["yes"] / said.total() - 0.5) < 0.02


@pytest.mark.parametrize("evidence", [{}, {"chosen": {"claims": []}}, {"chosen": {}, "rejected": {}}])
def test_a_sample_without_evidence_is_refused_by_name(evidence):
    with pytest.raises(BadSample, match=r"sample 'a': evidence of \w+ .*LLMCorrector.*\[missing_evidence\]"):
        RuleCorrector().correct([replace(judged([], []), evidence=evidence)], 0)


@pytest.mark.parametrize("change", [{"question": "Rate this.\n\nA cup."}, {"yes": "high"}, {"text": None}])
def test_claims_that_no_user_could_be_asked_are_refused(change):
    sample = judged(["+a cup"], ["-a ring"])
    sample.evidence["rejected"]["claims"][0].update(change)
    with pytest.raises(BadSample, match="missing_evidence"):
        RuleCorrector().correct([sample], 0)


@pytest.fixture
def three(tmp_path) -> str:
    samples = [
        judged(["+a red cup"], ["-a blue cup"], "one"),
        judged(["+a bar"], ["+a bar", "+a bar"], "two"),
        judged(["+a cup"], ["-an error message"], "three"),
    ]
    return write(tmp_path / "pairs", [replace(sample, extra={"kept": 1}) for sample in samples])


def run(shards: str, out: Path, **options) -> Manifest:
    return correct_shards(shards, out, **({"corrector": RuleCorrector()} | options))


def test_corrected_shards_stream_with_their_images_and_are_linked_on_request(tmp_path):
    """Two pairs of one image."""
    one = next(iter(world_pairs(9)))
    shards = write(tmp_path / "pairs", [one, replace(one, key="other")])
    run(shards, tmp_path / "whole")
    assert check_streaming(tmp_path / "whole") == 2
    run(shards, tmp_path / "linked", link_duplicate_images=True)
    assert read_manifest(tmp_path / "linked").schema_version == 2
    assert list(load_shards(tmp_path / "linked")) == list(load_shards(tmp_path / "whole"))


def test_a_pass_keeps_samples_and_counts_what_happened(three, tmp_path):
    manifest = run(three, tmp_path / "out")
    assert manifest.drops == {"no_error": 1}
    assert manifest.kinds == {Kind.NSFT: 2, Kind.PREFERENCE: 2}
    assert manifest.parents == (read_manifest(three).hash,)
    assert manifest.notes == {
        "turns": 3,
        "yes": 2,
        "no": 1,
        "open": 0,
        "codes": {"attr.color": 2, "obj.missed": 1},
        "removed": {"leak": 1},
    }
    before, after = (
        {sample.key: sample for sample in load_shards(path)} for path in (three, tmp_path / "out")
    )
    assert after.keys() == {"one", "three"}
    for key, sample in after.items():
        origin = {"corrector": "RuleCorrector", "codebook": Codebook.load().hash}
        assert sample.provenance == {**before[key].provenance, **origin}
        assert replace(sample, corrections=(), provenance={}) == replace(before[key], provenance={})
        assert sample.corrections


def test_nsft_takes_what_a_pass_makes(three, tmp_path, family_dir):
    run(three, tmp_path / "out")
    module = make(NSFTModule, family_dir("llava"))
    samples = list(load_shards(tmp_path / "out"))
    for sample in samples:
        (joined,) = module.dialogues(sample)
        assert len(joined.parts) == 1 + len(sample.corrections)
    batch = module.collator("raise")(samples)
    assert module.objective(batch).loss > 0


def test_a_second_pass_does_nothing(three, tmp_path, monkeypatch):
    made = run(three, tmp_path / "out")
    monkeypatch.setattr(RuleCorrector, "correct", None)
    assert run(three, tmp_path / "out") == made


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"corrector": RuleCorrector(templates=TurnTemplates(explain=True))}]
)
def test_finished_shards_of_other_settings_are_not_replaced(three, tmp_path, change):
    run(three, tmp_path / "out")
    with pytest.raises(FileExistsError, match="another recipe"):
        run(three, tmp_path / "out", **change)
    with pytest.raises(FileExistsError, match="holds what is read"):
        run(three, Path(three))


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_what_was_lost_is_made_again_with_the_same_bytes(tmp_path, monkeypatch):
    shards = write(tmp_path / "pairs", list(world_pairs(400)))
    out = tmp_path / "out"
    run(shards, out, samples_per_shard=50)
    whole = contents(out)
    (directory,) = (out / "stages").iterdir()
    lost = sorted(directory.iterdir())[1]
    (out / "manifest.json").unlink()
    lost.unlink()
    asked, own = [], RuleCorrector.correct
    monkeypatch.setattr(RuleCorrector, "correct", lambda *args: asked.append(len(args[1])) or own(*args))
    run(shards, out, samples_per_shard=50)
    assert contents(out) == whole and asked == [64]


KILLED = """
import os, signal, sys
from pathlib import Path
from rlaifv_pl.feedback.corrections.pipeline import correct_shards
from rlaifv_pl.feedback.corrections.rule_corrector import RuleCorrector

own, calls = RuleCorrector.correct, []

def correct(self, samples, seed):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return own(self, samples, seed)

RuleCorrector.correct = correct
correct_shards(sys.argv[1], Path(sys.argv[2]), RuleCorrector())
"""


def test_a_killed_pass_goes_on_and_ends_with_the_same_bytes(tmp_path):
    shards = write(tmp_path / "pairs", list(world_pairs(400)))
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, shards, str(out)], capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "manifest.json" not in os.listdir(out)
    run(shards, out)
    run(shards, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_prompts_without_answers_are_refused(tmp_path):
    shards = write(tmp_path / "prompts", [Sample(key="p", prompt="Describe it.")])
    with pytest.raises(BadSample, match=r"sample 'p': corrections are made from a chosen and a rejected"):
        run(shards, tmp_path / "out")


def test_the_verb_corrects_by_rule_unless_told_otherwise(three, tmp_path, capsys):
    auto_cli(correct, args=["--shards", three, "--out", str(tmp_path / "out")], as_positional=False)
    table = capsys.readouterr().out
    for row in ("samples .* 2", "dropped: no_error .* 1", "share of yes .* 66.7%", "about attr.color .* 2"):
        assert re.search(row, table), table


def test_the_verb_takes_options_of_a_corrector(three, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        json.dumps({"class_path": "RuleCorrector", "init_args": {"templates": {"yes": "yes", "no": "no"}}})
    )
    args = [three, str(tmp_path / "out"), "--corrector", str(config), "--corrector.rule.turns", "2"]
    auto_cli(correct, args=args, as_positional=True)
    recipe = read_manifest(tmp_path / "out").recipe["correct"]
    assert (recipe["wording"]["yes"], recipe["rule"]["turns"]) == ("yes", 2)


def test_the_old_key_of_the_templates_is_answered_with_the_new_one(tmp_path):
    config = tmp_path / "old.yaml"
    config.write_text("class_path: RuleCorrector\ninit_args: {wording: {color: null}}\n")
    command = [sys.executable, "-m", "rlaifv_pl.cli.commands", "feedback", "correct", "in", "out"]
    done = subprocess.run([*command, "--corrector", str(config)], capture_output=True, text=True, timeout=120)
    assert done.returncode and "wording is now templates" in done.stderr, done.stderr
