"""What would fail after hours of work fails before the first token, and one bad prompt does not end a pass."""

import io
from pathlib import Path

import pytest
from PIL import Image

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.data.shards import ShardWriter, load_shards
from rlaifv_pl.feedback.corrections.pipeline import correct_shards
from rlaifv_pl.feedback.corrections.rule_corrector import RuleCorrector
from rlaifv_pl.feedback.engines.engine import EngineError, Sampling
from rlaifv_pl.feedback.engines.openai_engine import OpenAIEngine
from rlaifv_pl.feedback.pairs.pairing import PairRule
from rlaifv_pl.records import Sample
from tests.feedback.scripted import Script, scripted_run


def store(out: Path, *samples: Sample) -> Path:
    with ShardWriter(out, recipe={"of": "a test"}) as writer:
        for sample in samples:
            writer.write(sample)
    return out


def prompt(key: str, **fields) -> Sample:
    return Sample(key=key, prompt="What is it?", **fields)


def refused(out: Path, prompts, error, match: str, **how) -> None:
    policy = Script()
    with pytest.raises(error, match=match):
        scripted_run(out, prompts, policy, Script("labeler"), **how).make()
    assert policy.calls == 0


def test_shards_that_something_else_was_replacing_when_it_was_killed_are_not_touched(tmp_path):
    out = store(tmp_path / "out", prompt("cat"))
    (out / "UNFINISHED").touch()
    prompts = store(tmp_path / "prompts", prompt("dog"))
    refused(out, prompts, FileExistsError, "something else made")
    assert list(load_shards(out).keys()) == ["cat"]


def test_equal_keys_of_two_directories_are_told_with_both_places(tmp_path):
    one, two = (store(tmp_path / name, prompt("cat"), prompt(f"dog-{name}")) for name in ("one", "two"))
    refused(tmp_path / "out", [one, two], BadSample, r"one/.*cat.* and .*two/.*cat.*--out.*duplicate_key")


@pytest.mark.parametrize("length, max_pairs, fits", [(77, 2, True), (78, 2, False), (77, 11, False)])
def test_keys_leave_room_for_the_numbers_of_pairs(tmp_path, length, max_pairs, fits):
    prompts = store(tmp_path / "prompts", *(prompt(f"{n}" * length) for n in range(4)))
    how = {"pairing": PairRule(max_pairs=max_pairs)}
    if fits:
        made = scripted_run(tmp_path / "out", prompts, Script(), Script("labeler"), **how).make()
        assert made.samples
    else:
        refused(tmp_path / "out", prompts, BadSample, r"at most \d\d characters.*bad_key", **how)


def test_shards_of_others_are_not_overwritten(tmp_path):
    prompts = store(tmp_path / "prompts", prompt("a"))
    others = store(tmp_path / "others", prompt("b"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    refused(prompts, prompts, FileExistsError, "--out")
    refused(tmp_path / "x" / ".." / "prompts", prompts, FileExistsError, "--out")
    refused(others, prompts, FileExistsError, "something else")
    assert all(path.read_bytes() == data for path, data in before.items())


def test_settings_that_can_make_no_pair_are_refused(tmp_path):
    prompts = store(tmp_path / "prompts", prompt("a"))
    refused(tmp_path / "out", prompts, EngineError, r"sampling\.n", sampling=Sampling(n=1))
    refused(tmp_path / "out", store(tmp_path / "none"), EngineError, "--prompts")


def test_corrections_refuse_equal_keys_before_a_corrector_is_asked(tmp_path):
    pair = {"chosen": "a", "rejected": "b"}
    both = [store(tmp_path / name, prompt("cat", **pair)) for name in ("one", "two")]

    class Unasked(RuleCorrector):
        def correct(self, samples, seed):
            raise AssertionError("asked")

    with pytest.raises(BadSample, match="duplicate_key"):
        correct_shards(both, tmp_path / "out", Unasked())


def test_a_prompt_that_cannot_be_shown_is_left_out_by_name_and_ends_nothing(tmp_path, capsys):
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "PNG")
    whole, broken = file.getvalue(), file.getvalue()[:60]
    prompts = [prompt(f"p{n}", images=(broken if n == 1 else whole,)) for n in range(5)]
    stored = store(tmp_path / "prompts", *prompts)
    manifest = scripted_run(tmp_path / "out", stored, Script(), Script("labeler")).make()
    assert manifest.drops["prompt/undecodable_image"] == 1 and manifest.notes["prompts"] == 5
    assert "p1" in " ".join(capsys.readouterr().err.split())
    assert not any(sample.key.startswith("p1_") for sample in load_shards(tmp_path / "out"))
    assert read_manifest(tmp_path / "out").samples > 0


@pytest.mark.parametrize("name, value", [("temperature", 0), ("seed", 1), ("n", 2), ("max_tokens", 5)])
def test_what_each_request_decides_cannot_be_replaced_in_silence(name, value):
    with pytest.raises(ValueError, match=rf"extra has {name}"):
        OpenAIEngine(model="m", extra={name: value})
    OpenAIEngine(model="m", extra={name: None, "top_p": 0.9})
