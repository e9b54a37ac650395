"""What stands in the page: the numbers of the shards and of the table of steps, and texts that cannot run."""

import base64
import csv
import hashlib
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from PIL import Image

from rlaifv_pl.cli import commands
from rlaifv_pl.cli.report import report, show
from rlaifv_pl.data.manifest import ManifestError, read_manifest
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.records import Correction, Sample
from rlaifv_pl.report import page as page_file
from rlaifv_pl.report.content import Limits, run_content, shards_content
from rlaifv_pl.report.curves import MAX_POINTS, curves
from rlaifv_pl.report.page import safe_json, write_page
from rlaifv_pl.report.pairs import answer_row
from rlaifv_pl.report.run_files import ReportError, read_run
from rlaifv_pl.report.thumbnails import Thumbnails
from rlaifv_pl.rounds.ledger import Ledger
from tests.report.made import (
    HOSTILE,
    STEPS,
    claim,
    config,
    image,
    judged_pair,
    metrics,
    write,
    write_metrics,
    write_run,
)


class Reader(HTMLParser):
    """What a browser would take a file for: its tags, and what stands in each script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.attributes, self._inside = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self._inside = tag in ("script", "style")
        if self._inside:
            self.scripts.append([dict(attributes).get("id", tag), ""])

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.scripts[-1][1] += data

    def parts(self):
        return dict(self.scripts)


def written(run):
    report(str(run))
    return Reader((run / "report.html").read_text())


def data_of(reader):
    return json.loads(reader.parts()["data"])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "made")


@pytest.fixture(scope="module")
def data(made):
    return data_of(written(made))


def test_numbers_are_those_of_the_table_of_steps(made, data):
    with open(made / "metrics.csv", newline="") as file:
        logged = list(csv.DictReader(file))
    charts = {chart["title"]: chart["series"] for chart in data["curves"]}
    assert list(charts) == ["loss", "rewards"]
    found = {(series["side"] or "loss"): series for each in charts.values() for series in each}
    for name, side in (
        ("train/loss", "loss"),
        ("train/rewards/chosen", "chosen"),
        ("train/rewards/rejected", "rejected"),
    ):
        assert found[side]["x"] == list(range(STEPS))
        assert found[side]["y"] == [float(row[name]) for row in logged]
    assert data["round_starts"] == [{"round": 1, "step": 0}, {"round": 2, "step": 3}]


def test_numbers_are_those_of_the_shards(made, data):
    """Counted anew here: 30 gaps of 1, then 9 more with the hostile sample left out, 10 of 2 and 10 of 3."""
    gap, words = data["distributions"]["gap"], data["distributions"]["words"]
    assert gap["edges"] == [0.5, 1.5, 2.5, 3.5]
    assert [each["gap"]["counts"] for each in gap["sets"]] == [[30, 0, 0], [9, 10, 10]]
    assert gap["sets"][1]["gap"]["mean"] == pytest.approx((9 + 20 + 30) / 29)
    for number, counted in enumerate(words["sets"], start=1):
        shards = load_shards(made / "rounds" / str(number))
        for side in ("chosen", "rejected"):
            lengths = Counter(len(getattr(shards[index], side).split()) for index in range(len(shards)))
            middles = [
                (low + high) / 2 for low, high in zip(words["edges"], words["edges"][1:], strict=False)
            ]
            bins = dict(zip(middles, counted[side]["counts"], strict=True))
            assert {length: count for length, count in bins.items() if count} == lengths
    rows = [row for row in data["rows"] if row["directory"] == 0]
    assert [row["key"] for row in rows] == list(load_shards(made / "rounds" / "1").keys())


def test_the_table_of_the_run_is_that_of_its_files(made, data):
    facts = dict(data["facts"])
    assert facts["objective"] == "DPOModule" and facts["policy"] == "tiny" and facts["seed"] == "7"
    assert facts["steps logged"] == str(STEPS) and facts["rounds done"] == "2"
    for number, made_of in enumerate(data["directories"], start=1):
        manifest = read_manifest(made / "rounds" / str(number))
        assert (made_of["hash"], made_of["recipe_hash"]) == (manifest.hash, manifest.recipe_hash)
        assert made_of["shards"][0]["sha256"] == manifest.shards[0].sha256
        assert made_of["drops"] == {"pair/small_gap": 11 * number, "prompt/no_pair": number}
    ledger = json.loads((made / "rounds" / "ledger.json").read_text())
    assert data["rounds"] == [{"round": int(number), **entry} for number, entry in ledger.items()]
    assert data["config"] == (made / "config.yaml").read_text()
    assert data["notes"] == []


def test_claims_keep_their_place_and_their_verdict(data):
    chosen, rejected = data["rows"][0]["answers"]
    (cat,) = chosen["claims"]
    assert (
        [chosen["text"][start:end] for start, end in cat["spans"]] == ["a cat"]
        and cat["yes"] == 0.98
        and cat["rejected"] is False
    )
    assert [(each["question"], each["rejected"]) for each in rejected["claims"]] == [
        ("is there a dog?", False),
        ("is there a kite?", True),
    ]
    assert (chosen["score"], rejected["score"], data["rows"][0]["gap"]) == (0, -1, 1)


def test_hostile_texts_end_no_script_and_open_no_tag(made):
    """As many tags as the empty page has, and all texts whole in the data."""
    reader = written(made)
    assert reader.tags.count("script") == 3 and "img" not in reader.tags
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    row = next(row for row in data_of(reader)["rows"] if row["key"] == "hostile")
    assert row["prompt"] == row["answers"][0]["text"] == HOSTILE
    assert yaml.safe_load(data_of(reader)["config"])["note"] == HOSTILE


@pytest.mark.parametrize(
    "text", ["</script>", "<!--<script>", "]]>", "\u2028", "\ud800", "&lt;", "{{STYLE}}"]
)
def test_json_in_a_script_is_plain(text):
    found = safe_json({text: [text]})
    assert found.isascii() and not set(found) & set("<>&") and json.loads(found) == {text: [text]}


def test_a_title_is_text(tmp_path):
    run = tmp_path / "<script>alert(1)<"
    write_metrics(run, metrics())
    assert written(run).tags.count("script") == 3


def test_nothing_may_load_and_nothing_else_may_run(made):
    """The policy names the hashes of the one style and the one script, computed here from the file."""
    reader = written(made)
    policy = next(value for name, value in reader.attributes if name == "content" and "default-src" in value)

    def hashed(text):
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    rules = dict(rule.split(None, 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:" and "unsafe" not in policy
    assert rules["script-src"] == f"'sha256-{hashed(reader.parts()['script'])}'"
    assert rules["style-src"] == f"'sha256-{hashed(reader.parts()['style'])}'"
    assert not [
        value for name, value in reader.attributes if name in ("src", "href") and not value.startswith("#")
    ]


def test_the_scripts_make_no_markup_of_texts():
    scripts = "".join(page_file.asset(name) for name in page_file.SCRIPTS)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|https?://(?!www\.w3\.org/2000/svg)",
        scripts,
    )


@pytest.mark.parametrize("name", [*page_file.SCRIPTS, "page.css"])
def test_scripts_and_styles_are_as_short_as_other_files(name):
    assert len(page_file.asset(name).splitlines()) <= 300


def test_the_same_run_gives_the_same_bytes(made, tmp_path):
    for name in "ab":
        report(str(made), out=str(tmp_path / f"{name}.html"))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_page_is_there_whole_or_not_at_all(made, tmp_path, monkeypatch):
    """The writing fails at its end: what was there stays, and no half file is left."""
    out = tmp_path / "page.html"
    out.write_text("before")
    content = run_content(read_run(made), Limits())

    def fail(_descriptor):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="the disk is full"):
            write_page(content, out)
    assert out.read_text() == "before" and list(tmp_path.iterdir()) == [out]
    assert write_page(content, out) == out.stat().st_size


def test_each_image_stands_once_and_small(tmp_path):
    """Two samples of one photo of 900 x 600, noise so that it does not compress: one thumbnail of 120 x 80."""
    file, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (600, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    thumbnails = Thumbnails(size=120, limit=None)
    assert [thumbnails.add(file.getvalue(), "a"), thumbnails.add(file.getvalue(), "b")] == [0, 0]
    assert thumbnails.add(image(3), "c") == 1
    first, second = thumbnails.places
    decoded = base64.b64decode(thumbnails.text[first["start"] : first["end"]])
    with Image.open(io.BytesIO(decoded)) as small:
        assert small.size == (120, 80) == (first["width"], first["height"]) and len(decoded) < 12_000
    with Image.open(io.BytesIO(base64.b64decode(thumbnails.text[second["start"] : second["end"]]))) as other:
        assert other.size == (40, 30)


def test_a_small_image_is_kept_as_it_is_where_that_takes_less():
    """Black and white noise: a PNG of a bit a pixel is smaller than any WebP of it."""
    noise, file = np.random.default_rng(0).integers(0, 2, (32, 32), dtype=np.uint8), io.BytesIO()
    Image.fromarray(noise * 255).convert("1").save(file, "PNG")
    thumbnails = Thumbnails(size=120, limit=None)
    thumbnails.add(file.getvalue(), "a")
    assert (
        base64.b64decode(thumbnails.text) == file.getvalue() and thumbnails.places[0]["mime"] == "image/png"
    )


def test_images_and_samples_are_limited_on_request(made, capsys):
    full = run_content(read_run(made), Limits())
    shards = load_shards([made / "rounds" / "1", made / "rounds" / "2"])
    distinct = {image for index in range(60) for image in shards[index].images}
    few = run_content(read_run(made), Limits(images=3, pairs=40))
    assert (len(full.thumbnails.places), len(few.thumbnails.places)) == (len(distinct), 3)
    assert len(few.page["rows"]) == 40 and few.page["samples"] == 60
    assert few.page["distributions"] == full.page["distributions"]
    assert few.page["rows"][39]["images"] == ["left out of this page (--images)"]
    assert few.page["notes"][0].startswith("The first 40 of 60 samples can be looked at")
    report(str(made), images="none")
    assert data_of(Reader((made / "report.html").read_text()))["images"] == []
    printed = capsys.readouterr().err
    size = (made / "report.html").stat().st_size / 1e6
    assert f"report.html, {size:.1f} MB: 60 samples, 0 images" in printed


def test_pages_grow_by_little_a_pair(tmp_path):
    """Of 10,000 pairs like these a page would have less than 15 MB, pictures aside."""
    sizes = []
    for many in (50, 250):
        shards = write(tmp_path / str(many), [judged_pair(number) for number in range(many)])
        sizes.append(write_page(shards_content([str(shards)], Limits(images=0)), tmp_path / "page.html"))
    assert (sizes[1] - sizes[0]) / 200 < 1500


def test_long_tables_are_shown_by_means():
    """Of 3,000 steps pairs of two: the mean of 0 and 1 is 0.5."""
    rows = [{"step": str(step), "train/loss": str(step)} for step in range(2 * MAX_POINTS)]
    (series,) = curves(rows)[0]["series"]
    assert series["mean_of"] == 2 and series["y"][:3] == [0.5, 2.5, 4.5] and len(series["y"]) == MAX_POINTS


def test_a_value_that_is_no_number_leaves_a_gap():
    (series,) = curves(
        [{"step": str(step), "train/loss": cell} for step, cell in enumerate(("1", "nan", "x", "inf"))]
    )[0]["series"]
    assert series["y"] == [1.0, None, None, None]


def test_evidence_in_disorder_is_listed_and_not_placed(tmp_path):
    """Spans beyond the text, verdicts that are missing, and sides without evidence are no reason to stop."""
    text = "a cat."
    told = claim(text, "a cat", 0.9)
    spans = ([[0, 99]], [[0, 5], [2, 1]], [[0]], "ab", 7, [[0.0, 5.0]], [[False, True]])
    broken = [{**told, "spans": one} for one in spans] + [{"question": "is there?"}, "no claim"]
    samples = [
        Sample(key="a", prompt="?", chosen=text, rejected="no", evidence={"chosen": {"claims": broken}}),
        Sample(key="b", prompt="?", completion="It is."),
        Sample(
            key="c", prompt="?", chosen="x", rejected="y", corrections=(Correction(question="q", answer="a"),)
        ),
        Sample(key="d", prompt="?", images=(image(1)[:-40],), completion="cut"),
    ]
    first, second, third, cut = shards_content([str(write(tmp_path / "shards", samples))], Limits()).page[
        "rows"
    ]
    assert [each["spans"] for each in first["answers"][0]["claims"]] == [[]] * 8
    assert [each["rejected"] for each in first["answers"][0]["claims"]] == [False] * 7 + [None]
    assert first["gap"] is None and second["answers"][0]["side"] == "completion"
    assert third["corrections"] == [["q", "a"]] and cut["images"] == ["cannot be shown: undecodable_image"]


def test_a_claim_of_several_stretches_and_one_of_an_earlier_version_have_their_places():
    text = "A man rides a horse and wears a hat."
    several, earlier = claim(text, "A man ... wears a hat", 0.1), claim(text, "rides a horse", 0.9)
    ((start, end),) = earlier.pop("spans")
    found = answer_row("chosen", text, {"claims": [several, {**earlier, "start": start, "end": end}]})[
        "claims"
    ]
    assert [[text[start:end] for start, end in each["spans"]] for each in found] == [
        ["A man", "wears a hat"], ["rides a horse"],
    ]  # fmt: skip


def test_rows_that_an_import_left_out_are_on_the_page(tmp_path):
    rows = [
        {"prompt": "A?", "chosen": "b", "rejected": "c"},
        {"prompt": "A?", "chosen": "b", "rejected": "b"},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    commands.main(["shards", "import", str(tmp_path / "rows.json"), str(tmp_path / "out")])
    (left_out,) = shards_content([str(tmp_path / "out")], Limits()).page["dropped"]
    assert (left_out["reason"], left_out["row"], left_out["directory"]) == ("equal_answers", "1", 0)
    (tmp_path / "out" / "dropped.jsonl").write_text("{}\n")
    with pytest.raises(ManifestError, match=r"dropped.jsonl, line 1"):
        shards_content([str(tmp_path / "out")], Limits())


def test_a_run_without_rounds_shows_what_it_trained_on(tmp_path):
    run, shards = tmp_path / "run", write(tmp_path / "mine", [judged_pair(0)])
    write_metrics(run, metrics())
    train = [str(shards), str(tmp_path / "gone"), "https://user:secret@host/dir"]
    (run / "config.yaml").write_text(
        yaml.safe_dump(config(trainer={"callbacks": None}, data={"train": train}))
    )
    content = run_content(read_run(run), Limits())
    assert [row["key"] for row in content.page["rows"]] == ["k0"] and content.page["round_starts"] == []
    notes = " ".join(content.page["notes"])
    assert f"no longer at {tmp_path / 'gone'}" in notes and "lie at https://***@host/dir" in notes
    assert "secret" not in notes


def test_a_run_under_way_has_a_page_with_a_note(tmp_path):
    """Round 2 has begun and has no manifest yet; the last row of the table is being written."""
    run = write_run(tmp_path / "run", pairs=4)
    (run / "rounds" / "2" / "manifest.json").unlink()
    (run / "summary.json").unlink()
    with open(run / "metrics.csv", "a") as file:
        file.write("2,6,0.")
    content = run_content(read_run(run), Limits())
    assert {row["directory"] for row in content.page["rows"]} == {0}
    assert content.page["curves"][0]["series"][0]["x"] == list(range(STEPS))
    assert [note.split(":")[0] for note in content.page["notes"]] == [
        "Round 2 is in the making, or was broken off",
        "The run has not ended",
    ]


def test_a_run_that_has_done_nothing_yet_has_a_page(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config()))
    notes = data_of(written(tmp_path))["notes"]
    assert notes[0].startswith("There is no metrics.csv") and notes[1] == "No round has begun yet."


def test_what_is_no_number_is_not_known(tmp_path):
    run = write_run(tmp_path / "run", pairs=4)
    Ledger(run / "rounds").note(1, figures={"instance": float("nan")})
    assert data_of(written(run))["rounds"][1]["figures"] == {"instance": None}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("metrics.csv", "epoch,step,train/loss\n0,zero,1\n", "metrics.csv, line 2: expected a whole number"),
        ("metrics.csv", "a,b\n0,1\n", "metrics.csv, line 2: expected a whole number"),
        ("config.yaml", "a: [", "config.yaml cannot be read"),
        ("config.yaml", "trainer: 3", "config.yaml holds something else"),
        ("summary.json", "{", "summary.json cannot be read"),
        ("rounds/ledger.json", "[]", "ledger.json holds something else"),
        ("rounds/ledger.json", '{"one": {}}', "ledger.json is no ledger"),
        ("rounds/ledger.json", '{"1": {"seconds": 3}}', "ledger.json holds something else"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(tmp_path, name, text, said):
    run = write_run(tmp_path / "run", pairs=4)
    (run / name).write_text(text)
    with pytest.raises(ReportError, match=re.escape(said)):
        read_run(run)


def test_what_is_no_run_is_named_on_the_command_line(tmp_path):
    with pytest.raises(SystemExit, match="is no directory: expected that of a run"):
        commands.main(["report", str(tmp_path / "gone")])
    with pytest.raises(SystemExit, match="holds no run"):
        commands.main(["report", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"gone is no directory: make it"):
        commands.main(
            ["report", str(write_run(tmp_path / "run", pairs=4)), "--out", str(tmp_path / "gone" / "a.html")]
        )


def test_damaged_shards_of_a_run_are_named(tmp_path):
    run = write_run(tmp_path / "run", pairs=4)
    (run / "rounds" / "1" / "shard-000000.tar").write_bytes(b"cut")
    with pytest.raises(SystemExit, match=r"error: .*shard-000000.tar has 3 bytes, its manifest says"):
        commands.main(["report", str(run)])


def test_show_makes_a_page_only_when_one_is_named(tmp_path):
    shards = write(tmp_path / "mine", [judged_pair(0)])
    show([str(shards)], out=str(tmp_path / "sheet.png"))
    assert not list(tmp_path.glob("*.html"))
    arguments = ["--out", str(tmp_path / "sheet.png"), "--html", str(tmp_path / "a.html"), "--images", "none"]
    commands.main(["shards", "show", str(shards), *arguments])
    found = data_of(Reader((tmp_path / "a.html").read_text()))
    assert (
        found["kind"] == "shards"
        and [row["key"] for row in found["rows"]] == ["k0"]
        and found["images"] == []
    )
