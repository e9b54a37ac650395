"""Examples of what feedback left out: which are kept, what is written of them, and what reads it."""

import json
from collections import Counter, defaultdict

import pytest

from rlaifv_pl.data.manifest import MANIFEST_NAME, ManifestError, read_manifest
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.candidates.candidate_json import decode_candidates, encode_candidates
from rlaifv_pl.feedback.claims.llm_splitter import LLMSplitter
from rlaifv_pl.feedback.pairs.left_out import EXAMPLES, LEFT_OUT_NAME, Examples, read_left_out
from rlaifv_pl.feedback.pairs.pairing import LeftOut, PairRule
from rlaifv_pl.miniature.shards import Scenes
from rlaifv_pl.records import Candidate, Claim
from tests.feedback.scripted import Script, scripted_run

PROMPTS = 12


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    return Scenes(out=str(tmp_path_factory.mktemp("prompts")), split="tune", count=PROMPTS, seed=3).ensure()


@pytest.fixture(scope="module")
def made(prompts, tmp_path_factory):
    out = tmp_path_factory.mktemp("made")
    scripted_run(out, prompts, Script(), Script("labeler"), pairing=PairRule(equal_claims=True)).make()
    return out


def test_examples_are_of_as_many_prompts_as_there_are():
    """Prompts 0, 1 and 2 leave out 4, 1 and 2 for one reason. Of 5, all have their first, then 0 and 2 a second."""
    examples = Examples(most=5)
    for place, many in enumerate((4, 1, 2)):
        for number in range(many):
            one = Candidate(text=f"{place}.{number}", seed=0)
            examples.add(place, LeftOut("candidate/no_claims", (one,)))
            examples.add(place, LeftOut("another", (one,)))
    found = [(place, left_out.candidates[0].text) for place, left_out in examples]
    assert found == 2 * [(0, "0.0"), (1, "1.0"), (2, "2.0"), (0, "0.1"), (2, "2.1")]


def test_each_reason_of_the_manifest_has_its_examples(made, prompts):
    drops, rows = read_manifest(made).drops, list(read_left_out(made))
    assert len(drops) >= 6
    assert Counter(row.reason for row in rows) == {name: min(many, EXAMPLES) for name, many in drops.items()}
    asked, by_reason = load_shards(prompts), defaultdict(list)
    for row in rows:
        assert asked[row.number].key == row.prompt.key and asked[row.number].prompt == row.prompt.prompt
        by_reason[row.reason].append(row)
    for row in by_reason["pair/small_gap"]:
        better, worse = row.candidates
        assert abs(better.score - worse.score) < 1
    for row in by_reason["pair/unequal_claims"]:
        better, worse = row.candidates
        assert better.score > worse.score and len(better.claims) != len(worse.claims)
    for row in by_reason["candidate/repeated_claim"]:
        (one,) = row.candidates
        assert len({claim.question for claim in one.claims}) < len(one.claims) == len(one.verdicts)
    for row in by_reason["candidate/no_claims"]:
        assert row.candidates[0].score is None


def test_examples_are_candidates_of_their_prompt_as_the_last_stage_left_them(made):
    """The parts of conquer, read as plain JSON, hold each of them, but for its score."""
    (stage,) = made.glob("stages/conquer-*")
    lines = [line for part in sorted(stage.iterdir()) for line in part.read_text().split("\n") if line]
    judged = {row["key"]: row["candidates"] for row in map(json.loads, lines)}
    for row in read_left_out(made):
        for one in json.loads(json.dumps(encode_candidates(row.candidates))):
            assert one | {"score": None} in judged[row.prompt.key]


def test_the_same_feedback_leaves_the_same_bytes_before_its_manifest(made, prompts, tmp_path):
    run = scripted_run(tmp_path, prompts, Script(), Script("labeler"), pairing=PairRule(equal_claims=True))
    run.make()
    assert (tmp_path / LEFT_OUT_NAME).read_bytes() == (made / LEFT_OUT_NAME).read_bytes()
    written = [(tmp_path / name).stat().st_mtime_ns for name in (LEFT_OUT_NAME, MANIFEST_NAME)]
    assert written == sorted(written)


def test_shards_of_before_have_none_and_a_damaged_file_is_named(tmp_path):
    assert list(read_left_out(tmp_path)) == []
    (tmp_path / LEFT_OUT_NAME).write_text('{"reason": "pair/small_gap"}\n')
    with pytest.raises(ManifestError, match=r"left_out\.jsonl, line 1: .*Delete the file"):
        list(read_left_out(tmp_path))


def test_candidates_of_an_earlier_version_are_read():
    """It had one stretch of a claim, as `start` and `end`."""
    claim = Claim(text="a dog", question="is there a dog?", spans=((3, 8), (10, 12)))
    (row,) = encode_candidates([Candidate(text="is a dog or so", seed=1, claims=(claim,))])
    assert decode_candidates([json.loads(json.dumps(row))])[0].claims == (claim,)
    old = {"text": claim.text, "question": claim.question, "start": 3, "end": 8}
    (read,) = decode_candidates([{**row, "claims": [old]}])
    assert read.claims[0].spans == ((3, 8),)


class Quoting(Script):
    """A splitter's model that writes four claims of each answer, of which only the first can be used, if at all."""

    def fill(self, requests, form):
        return [form.model_validate({"claims": self._claims(request.text[-40:])}) for request in requests]

    def _claims(self, answer):
        texts = [
            ("here", answer, f"{answer}?"),
            ("cow", "A cow.", "A cow?"),
            ("here", "It.", "It"),
            ("here", "", "?"),
        ]
        return [dict(zip(("quote", "claim", "question"), each, strict=True)) for each in texts]


def test_claims_that_a_splitter_leaves_out_are_counted_in_the_manifest_and_shown(prompts, tmp_path):
    splitter = LLMSplitter(engine=Quoting("quoting"))
    run = scripted_run(tmp_path, prompts, Script(), Script("labeler"), splitter=splitter)
    manifest = run.make()
    candidates = [one for judged in run.candidates() for one in judged.candidates]
    divided = sum("here" in one.text for one in candidates)
    refused = len(candidates) - divided
    assert divided and refused
    assert {name: count for name, count in manifest.drops.items() if name.startswith("claim/")} == {
        "claim/incomplete": divided + refused,
        "claim/misquoted": divided + 3 * refused - refused,
        "claim/no_question": divided + refused,
    }
    assert manifest.drops["candidate/misquoted"] == refused
    shown = [row for row in read_left_out(tmp_path) if row.reason == "claim/no_question"]
    assert len(shown) == min(EXAMPLES, divided + refused)
