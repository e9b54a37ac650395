"""Held-out figures and answers on the page of a run that was measured by hand."""

import json
from functools import partial

import pytest

from rlaifv_pl.cli.report import report
from rlaifv_pl.records import Answer, Sample
from rlaifv_pl.report.content import Limits, run_content
from rlaifv_pl.report.run_files import ReportError, read_run
from rlaifv_pl.rounds.answers import keep_answers
from rlaifv_pl.rounds.ledger import Ledger
from rlaifv_pl.training.held_out import HeldOutBenchmark
from tests.report.browser import Browser, find_browser
from tests.report.made import HOSTILE, image, metrics, write_metrics

CAPTIONS = {0: ["A cat and \U0001f408 a dog.", "A bus."], 6: ["A dog.", "A bus."]}
ANSWERS = {0: ["Yes", "Yes"], 6: ["No", "Yes"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two images of a dog and of a bus: at first the dog's caption has a cat, and the answer says so as well."""
    root = tmp_path_factory.mktemp("held")
    run, images = root / "run", root / "images"
    images.mkdir()
    for number in (1, 2):
        (images / f"{number}.png").write_bytes(image(number))
    (root / "objects.json").write_text(json.dumps({"1.png": ["dog"], "2.png": ["bus"]}))
    texts = ["Is there a cat?", HOSTILE]
    questions = [
        {"question_id": number, "image": f"{number}.png", "text": texts[number - 1], "label": label}
        for number, label in ((1, "no"), (2, "yes"))
    ]
    (root / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    write_metrics(run, [row | {"held_out/chair/CHAIRi": 1.0} for row in metrics()])
    for name in ("chair", "pope"):
        (run / "held_out" / name).mkdir(parents=True)
    for step in (0, 6):
        captions = [{"image_id": key, "caption": text} for key, text in enumerate(CAPTIONS[step], start=1)]
        answers = [{"question_id": key, "answer": text} for key, text in enumerate(ANSWERS[step], start=1)]
        for name, rows in (("chair", captions), ("pope", answers)):
            (run / "held_out" / name / f"{step:08d}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    common = {"images": str(images), "variant": None, "limit": None}
    values = {
        "chair": ({"CHAIRi": 50.0, "words": 4.5}, {"CHAIRi": 0.0, "words": 2.0}),
        "pope": ({"f1": 66.7}, {"f1": None}),
    }
    files = {"chair": ("objects.json", {"variant": "A"}), "pope": ("questions.jsonl", {})}
    entries = {
        name: common
        | {"metric": name, "ground_truth": str(root / truth), **more}
        | {
            "steps": [
                {"step": step, "figures": found} for step, found in zip((0, 6), values[name], strict=True)
            ]
        }
        for name, (truth, more) in files.items()
    }
    (run / "held_out" / "figures.json").write_text(json.dumps(entries))
    return run


def test_first_and_last_answers_stand_side_by_side(made):
    page = run_content(read_run(made), Limits()).page
    dog, bus, cat, hostile = page["held_out"]["rows"]
    first, last = dog["answers"]
    assert (first["when"], first["text"]) == ("step 0", CAPTIONS[0][0])
    assert (last["when"], last["text"]) == ("step 6", "A dog.")
    assert [(first["text"][start:end], right) for start, end, right in first["marks"]] == [
        ("cat", False),
        ("dog", True),
    ]
    assert [row["changed"] for row in (dog, bus, cat, hostile)] == [True, False, True, False]
    assert [each["right"] for each in cat["answers"]] == [False, True] and cat["prompt"] == "Is there a cat?"
    assert dog["images"] == cat["images"] == [0] and bus["images"] == [1]


def test_held_out_figures_have_charts_of_their_own(made):
    page = run_content(read_run(made), Limits()).page
    chair, pope = page["held_out"]["benchmarks"]
    assert chair["steps"] == [0, 6] and chair["drawn"] == ["CHAIRi"]
    assert {each["figure"]: each["y"] for each in chair["series"]} == {
        "CHAIRi": [50.0, 0.0],
        "words": [4.5, 2.0],
    }
    assert pope["series"] == [{"figure": "f1", "y": [66.7, None]}]
    assert not [chart for chart in page["curves"] if "CHAIRi" in chart["title"]]


def test_answers_are_bounded_and_missing_files_are_said(made, tmp_path):
    content = run_content(read_run(made), Limits(pairs=3))
    assert len(content.page["held_out"]["rows"]) == 3
    assert any("The first 3 of 4 held-out items" in note for note in content.page["notes"])
    questions = made.parent / "questions.jsonl"
    aside = questions.rename(tmp_path / "aside")
    try:
        page = run_content(read_run(made), Limits()).page
    finally:
        aside.rename(questions)
    assert len(page["held_out"]["rows"]) == 2 and len(page["held_out"]["benchmarks"]) == 2
    assert any("cannot be shown. pope:" in note and "questions.jsonl" in note for note in page["notes"])


@pytest.fixture
def probed(tmp_path):
    """A run of two rounds with a probe of two images: at first, the policy makes up a dog on the first one."""
    write_metrics(tmp_path, metrics())
    ledger = Ledger(tmp_path / "rounds")
    for number, said in enumerate(("a cat and a dog.", "a cat and a cup.", "a cat.")):
        first = Answer(
            prompt=Sample(key="a", prompt=HOSTILE, images=(image(1),)),
            text=said,
            mentions=((0, 5, True), *([(10, 15, False)] if number < 2 else [])),
        )
        second = Answer(prompt=Sample(key="b", prompt="what is there?", images=(image(2),)), text=HOSTILE)
        keep_answers(tmp_path / "rounds", number, [first, second])
        ledger.note(number, figures={"instance": 0.1 / (number + 1)}, pairs=0)
    return tmp_path


def test_answers_to_a_probe_stand_side_by_side_as_well(probed):
    content = run_content(read_run(probed), Limits())
    made_up, same = content.page["held_out"]["rows"]
    assert content.page["held_out"]["benchmarks"] == []
    assert [(each["when"], each["text"], each["marks"]) for each in made_up["answers"]] == [
        ("at the start", "a cat and a dog.", [[0, 5, True], [10, 15, False]]),
        ("after round 2", "a cat.", [[0, 5, True]]),
    ]
    assert (made_up["changed"], same["changed"]) == (True, False) and made_up["prompt"] == HOSTILE
    assert made_up["images"] == [content.thumbnails.add(image(1), "")] != same["images"]


def test_answers_of_rounds_that_were_not_measured_are_not_shown(probed):
    """Round 2 was begun anew, as the ledger says; what lies there is of a run before it."""
    ledger = probed / "rounds" / "ledger.json"
    entries = json.loads(ledger.read_text())
    ledger.write_text(json.dumps({number: entries[number] for number in "01"}))
    made_up, _ = run_content(read_run(probed), Limits()).page["held_out"]["rows"]
    assert [each["when"] for each in made_up["answers"]] == ["at the start", "after round 1"]
    (probed / "rounds" / "answers" / "0.jsonl").write_text("[]\n")
    page = run_content(read_run(probed), Limits()).page
    assert page["held_out"]["rows"] == [] and any("0.jsonl" in note for note in page["notes"])


@pytest.mark.skipif(
    find_browser() is None, reason="no Chromium here: apt-get install chromium-headless-shell"
)
def test_answers_to_a_probe_are_marked_and_filtered(probed):
    report(str(probed))
    browser = Browser(find_browser(), probed / "profile")
    cards = "[...document.querySelectorAll('#held-out-list article')]"
    try:
        browser.open(probed / "report.html", width=400)
        assert browser.run("document.querySelector('#held-out h2').textContent") == "Before and after"
        assert "below" in browser.run("document.querySelector('#rounds > .caption').textContent")
        marks = f"[...{cards}[0].querySelectorAll('mark')].map((each) => [each.textContent, each.className])"
        assert browser.run(marks) == [["a cat", "yes"], ["a dog", "no"], ["a cat", "yes"]]
        titles = f"[...{cards}[0].querySelectorAll('h3')].map((each) => each.textContent)"
        assert browser.run(titles) == [
            "first, at the start1 of 2 mentions hallucinated",
            "last, after round 20 of 1 mentions hallucinated",
        ]
        browser.run("window.picked = document.querySelector('#held-out select')")
        browser.run("picked.value = 'changed'; picked.dispatchEvent(new Event('change'))")
        assert (
            browser.run("document.getElementById('held-out-status').textContent") == "1 to 1 of 1, out of 2"
        )
        assert browser.run("document.documentElement.scrollWidth") <= 400
        assert browser.errors == [] and browser.run("typeof window.ran") == "undefined"
    finally:
        browser.close()


@pytest.mark.parametrize("text", ['{"a": []}', '{"a": {"metric": "pope", "steps": [3]}}', "{"])
def test_a_damaged_file_of_figures_is_named(tmp_path, text):
    (tmp_path / "held_out").mkdir()
    (tmp_path / "held_out" / "figures.json").write_text(text)
    write_metrics(tmp_path, metrics())
    with pytest.raises(ReportError, match=r"figures\.json"):
        run_content(read_run(tmp_path), Limits())


@pytest.mark.skipif(
    find_browser() is None, reason="no Chromium here: apt-get install chromium-headless-shell"
)
def test_answers_are_searched_filtered_and_marked(made, tmp_path):
    report(str(made), out=str(tmp_path / "page.html"))
    browser = Browser(find_browser(), tmp_path / "profile")
    cards = "[...document.querySelectorAll('#held-out-list article')]"

    pick = partial(browser.pick, "#held-out")
    try:
        browser.open(tmp_path / "page.html")
        assert browser.run("document.getElementById('held-out-status').textContent") == "1 to 4 of 4"
        marks = browser.run(
            f"{cards}[0] && [...{cards}[0].querySelectorAll('mark')].map((each) => [each.textContent, each.className])"
        )
        assert marks == [["cat", "no"], ["dog", "yes"], ["dog", "yes"]]
        assert browser.run(f"{cards}[3].querySelector('.prompt').textContent") == HOSTILE
        pick("Answers", "changed")
        assert (
            browser.run("document.getElementById('held-out-status').textContent") == "1 to 2 of 2, out of 4"
        )
        pick("Answers", "wrong")
        assert browser.run(f"{cards}.map((card) => card.getAttribute('aria-label'))") == [
            "held-out item 1",
            "held-out item 1",
        ]
        pick("Answers", "changed")
        pick("Benchmark", "pope")
        assert browser.run(f"{cards}.map((card) => card.querySelector('h3 small').textContent)") == [
            "wrong, expected no"
        ]
        pick("Answers", "all")
        browser.click("#held-out-search")
        browser.send("Input.insertText", text="is there")
        assert browser.run(f"{cards}.length") == 1
        assert browser.errors == [] and browser.run("typeof window.ran") == "undefined"
    finally:
        browser.close()


def test_the_file_of_figures_keeps_its_names():
    settings = HeldOutBenchmark(
        metric="pope", ground_truth="Q", prompt_template="{prompt} Yes or no?", limit=3
    )
    entry = settings.to_json()
    assert entry["wording"] == "{prompt} Yes or no?" and "prompt_template" not in entry
    assert HeldOutBenchmark.from_json(entry | {"steps": []}) == settings
