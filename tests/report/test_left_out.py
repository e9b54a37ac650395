"""What feedback left out, on the page: which rows, with which images, and how a person filters them."""

import inspect
import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from rlaifv_pl.cli.report import report, show
from rlaifv_pl.cli.shards import verify
from rlaifv_pl.data.manifest import ManifestError, read_manifest
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.pairs import pairing as pair_module
from rlaifv_pl.feedback.pairs.left_out import LEFT_OUT_NAME, LeftOutRow, write_left_out
from rlaifv_pl.records import Candidate, Claim, Sample, Verdict
from rlaifv_pl.report.content import Limits, run_content, shards_content
from rlaifv_pl.report.left_out import MEANINGS
from rlaifv_pl.report.run_files import read_run
from tests.report.browser import Browser, find_browser
from tests.report.made import HOSTILE, config, image, judged_pair, metrics, write, write_metrics

SMALL_GAP, NO_CLAIMS, UNEQUAL = "pair/small_gap", "candidate/no_claims", "pair/unequal_claims"


def candidate(text: str, score: float | None) -> Candidate:
    """It claims its first five letters, if it has a score: rejected below 0."""
    if score is None:
        return Candidate(text=text, seed=1)
    claim = Claim(text=text[:5], question=f"is there {text[:5]}?", spans=((0, 5),))
    verdict = Verdict(yes=0.25, no=0.75) if score < 0 else Verdict(yes=0.75, no=0.25)
    return Candidate(text=text, seed=1, claims=(claim,), verdicts=(verdict,), score=score)


def row(reason: str, number: int, *candidates: Candidate) -> LeftOutRow:
    return LeftOutRow(reason, number, Sample(key=f"p{number}", prompt="what is there?"), list(candidates))


ROWS = {
    1: [
        row(NO_CLAIMS, 0, candidate(HOSTILE, None)),
        row(SMALL_GAP, 1, candidate("a cat.", 0.0), candidate("a dog.", 0.0)),
        row(SMALL_GAP, 2, candidate("a cat.", -0.5), candidate("a dog.", -1.0)),
    ],
    2: [row(UNEQUAL, 3, candidate("a cat.", 0.0), candidate("a dog.", -2.0))],
}
DROPS = {1: {NO_CLAIMS: 1, SMALL_GAP: 50}, 2: {SMALL_GAP: 7, UNEQUAL: 3}}


def write_run(root: Path) -> Path:
    """Two rounds of two pairs each, and what they left out of 4 prompts with an image each."""
    scenes = [
        Sample(key=f"p{number}", prompt="what is there?", images=(image(10 + number),)) for number in range(4)
    ]
    prompts = write(root / "scenes", scenes)
    run, parents = root / "run", [read_manifest(prompts).hash]
    write_metrics(run, metrics())
    settings = config(trainer={}, rounds={"prompts": str(prompts), "epochs": 1})
    (run / "config.yaml").write_text(json.dumps(settings))
    ledger = {"0": {}} | {str(number): {"pairs": 2, "drops": DROPS[number]} for number in ROWS}
    for number, rows in ROWS.items():
        pairs = [judged_pair(2 * number), replace(judged_pair(2 * number + 1, gap=3), key=f"p{number}_p0")]
        write(run / "rounds" / str(number), pairs, DROPS[number], parents=parents, round=number)
        write_left_out(run / "rounds" / str(number), rows)
    (run / "rounds" / "ledger.json").write_text(json.dumps(ledger))
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("left"))


def test_examples_stand_on_the_page_with_claims_gap_and_image(made):
    content = run_content(read_run(made), Limits())
    rows = content.page["left_out"]
    assert [(each["reason"], each["key"], each["directory"], each["gap"]) for each in rows] == [
        (NO_CLAIMS, "p0", 0, None),
        (SMALL_GAP, "p1", 0, 0.0),
        (SMALL_GAP, "p2", 0, 0.5),
        (UNEQUAL, "p3", 1, 2.0),
    ]
    assert [each["text"] for each in rows[3]["answers"]] == ["a cat.", "a dog."]
    (claim,) = rows[3]["answers"][1]["claims"]
    assert claim["rejected"] is True and claim["spans"] == [[0, 5]] and rows[3]["answers"][1]["score"] == -2
    assert rows[0]["answers"][0]["claims"] == [] and rows[0]["answers"][0]["text"] == HOSTILE
    prompts = load_shards(made.parent / "scenes")
    pictures = [content.thumbnails.add(prompts[number].images[0], "") for number in range(4)]
    assert [each["images"] for each in rows] == [[number] for number in pictures]
    assert not [note for note in content.page["notes"] if "left out" in note]


def test_without_the_prompts_a_pair_of_the_same_prompt_has_the_image(made):
    """Of shards alone it is not known where their prompts lay; p1 made a pair in round 1, p0 and p2 made none."""
    content = shards_content([str(made / "rounds" / "1")], Limits())
    pair = load_shards(made / "rounds" / "1")[1]
    (picture,) = content.page["left_out"][1]["images"]
    assert picture == content.thumbnails.add(pair.images[0], "")
    assert [each["images"] for each in content.page["left_out"]][::2] == [["not at hand"]] * 2
    assert any("2 examples of what" in note and "no image here" in note for note in content.page["notes"])


def test_prompts_beside_the_shards_or_named_have_the_images(made, tmp_path):
    """As `feedback --prompts shards/scenes --out shards/judged` leaves them; then moved away and named."""
    shutil.copytree(made / "rounds" / "1", tmp_path / "judged")
    shutil.copytree(made.parent / "scenes", tmp_path / "scenes")
    show(str(tmp_path / "judged"), html=str(tmp_path / "page.html"))
    content = shards_content([str(tmp_path / "judged")], Limits())
    assert ["not at hand"] not in [each["images"] for each in content.page["left_out"]]
    (tmp_path / "far" / "away").mkdir(parents=True)
    shutil.move(tmp_path / "scenes", tmp_path / "far" / "away" / "scenes")
    lost = shards_content([str(tmp_path / "judged")], Limits())
    assert any("--prompts" in note for note in lost.page["notes"])
    named = shards_content([str(tmp_path / "judged")], Limits(), [str(tmp_path / "far" / "away" / "scenes")])
    assert named.page["left_out"] == content.page["left_out"] and not named.page["notes"]


def test_relative_prompts_of_a_run_are_found_above_it(tmp_path, monkeypatch):
    """The page is made from another working directory than the run."""
    run = write_run(tmp_path)
    (run / "config.yaml").write_text(
        json.dumps(config(rounds={"prompts": "scenes", "epochs": 1}, trainer={}))
    )
    monkeypatch.chdir("/")
    shown = run_content(read_run(run), Limits()).page["left_out"]
    assert ["not at hand"] not in [each["images"] for each in shown]


def test_other_prompts_in_the_same_place_lend_no_images(tmp_path):
    run = write_run(tmp_path)
    write(tmp_path / "scenes", [Sample(key="p0", prompt="?", images=(image(3),))], overwrite=True)
    shown = run_content(read_run(run), Limits()).page["left_out"]
    assert shown[0]["images"] == ["not at hand"] and len(shown) == 4


def test_a_page_has_no_more_of_them_than_pairs_were_asked_for(made):
    assert len(run_content(read_run(made), Limits(pairs=1)).page["left_out"]) == 2
    assert run_content(read_run(made), Limits(pairs=0)).page["left_out"] == []


def test_shards_without_the_file_are_shown_as_before_and_a_damaged_one_is_named(tmp_path):
    run = write_run(tmp_path)
    path = run / "rounds" / "2" / LEFT_OUT_NAME
    path.unlink()
    assert {each["directory"] for each in run_content(read_run(run), Limits()).page["left_out"]} == {0}
    path.write_text("{}\n")
    with pytest.raises(ManifestError, match=r"left_out\.jsonl, line 1"):
        run_content(read_run(run), Limits())


def test_every_reason_of_a_rule_is_explained(made):
    assert {name for drops in DROPS.values() for name in drops} < set(MEANINGS)
    yielded = re.findall(r'yield "(\w+)"', inspect.getsource(pair_module))
    assert len(yielded) == 7 and {name.partition("/")[2] for name in MEANINGS} >= set(yielded)


@pytest.mark.skipif(
    find_browser() is None, reason="no Chromium here: apt-get install chromium-headless-shell"
)
def test_a_person_filters_what_was_left_out_by_reason_round_and_gap(made, tmp_path):
    report(str(made), out=str(tmp_path / "page.html"))
    browser = Browser(find_browser(), tmp_path / "profile")
    options = "[...window.picked.options].map((one) => one.textContent)"
    status = "document.getElementById('status').textContent"
    keys = "[...document.querySelectorAll('#list article')].map((card) => card.getAttribute('aria-label'))"

    choose = partial(browser.pick, "#samples")
    try:
        browser.open(tmp_path / "page.html")
        choose("Show", SMALL_GAP)
        assert browser.run(options) == [
            "kept (4)",
            "left out: candidate: no claims (1)",
            "left out: pair: small gap (2 of 57)",
            "left out: pair: unequal claims (1 of 3)",
        ]
        assert browser.run(keys) == ["left out p1", "left out p2"] and browser.run(status) == "1 to 2 of 2"
        assert browser.run("document.getElementById('meaning').textContent") == MEANINGS[SMALL_GAP]
        marks = "[...document.querySelectorAll('#list mark')].map((each) => each.className)"
        assert browser.run(marks) == ["yes", "yes", "no", "no"]
        assert browser.run("document.querySelectorAll('#list img').length") == 2
        browser.click("#gap")
        browser.send("Input.insertText", text="0.5")
        assert browser.run(keys) == ["left out p2"] and browser.run(status) == "1 to 1 of 1, out of 2"
        choose("From", "1")
        assert browser.run(status) == "Nothing fits these filters."
        choose("Show", UNEQUAL)
        assert browser.run(keys) == ["left out p3"]
        assert browser.run(options)[:3] == [
            "kept (2)",
            "left out: candidate: no claims (0)",
            "left out: pair: small gap (0 of 7)",
        ]
        choose("From", "all")
        browser.run(
            "const gap = document.getElementById('gap'); gap.value = ''; gap.dispatchEvent(new Event('input'))"
        )
        browser.click("#left-out tbody tr:first-child a")
        assert browser.run(keys) == ["left out p0"] and browser.run("window.picked.value") == "all"
        assert browser.run("document.querySelector('#list .text').textContent") == HOSTILE
        assert browser.errors == [] and browser.run("typeof window.ran") == "undefined"
        browser.open(tmp_path / "page.html", width=400)
        choose("Show", UNEQUAL)
        assert browser.run("document.documentElement.scrollWidth") <= 400
    finally:
        browser.close()


def test_shards_with_examples_are_verified_and_shown_as_others(made, tmp_path):
    verify([str(made / "rounds" / "1")])
    assert len(load_shards(made / "rounds" / "1")) == 2
    show([str(made / "rounds" / "1")], out=str(tmp_path / "sheet.png"), html=str(tmp_path / "page.html"))
    assert '"reason":"pair/small_gap"' in (tmp_path / "page.html").read_text()
