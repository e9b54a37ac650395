"""Held-out figures and answers on the page of a run that was measured by hand."""

import json

import pytest

from rlaifv_pl.report.content import Limits, of_run
from rlaifv_pl.report.run_files import ReportError, read_run
from rlaifv_pl.report.verbs import report
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
    page = of_run(read_run(made), Limits()).page
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
    page = of_run(read_run(made), Limits()).page
    chair, pope = page["held_out"]["benchmarks"]
    assert chair["steps"] == [0, 6] and chair["drawn"] == ["CHAIRi"]
    assert {each["figure"]: each["y"] for each in chair["series"]} == {
        "CHAIRi": [50.0, 0.0],
        "words": [4.5, 2.0],
    }
    assert pope["series"] == [{"figure": "f1", "y": [66.7, None]}]
    assert not [chart for chart in page["curves"] if "CHAIRi" in chart["title"]]


def test_answers_are_bounded_and_missing_files_are_said(made, tmp_path):
    content = of_run(read_run(made), Limits(pairs=3))
    assert len(content.page["held_out"]["rows"]) == 3
    assert any("The first 3 of 4 held-out items" in note for note in content.page["notes"])
    questions = made.parent / "questions.jsonl"
    aside = questions.rename(tmp_path / "aside")
    try:
        page = of_run(read_run(made), Limits()).page
    finally:
        aside.rename(questions)
    assert len(page["held_out"]["rows"]) == 2 and len(page["held_out"]["benchmarks"]) == 2
    assert any("cannot be shown. pope:" in note and "questions.jsonl" in note for note in page["notes"])


@pytest.mark.parametrize("text", ['{"a": []}', '{"a": {"metric": "pope", "steps": [3]}}', "{"])
def test_a_damaged_file_of_figures_is_named(tmp_path, text):
    (tmp_path / "held_out").mkdir()
    (tmp_path / "held_out" / "figures.json").write_text(text)
    write_metrics(tmp_path, metrics())
    with pytest.raises(ReportError, match=r"figures\.json"):
        read_run(tmp_path)


@pytest.mark.skipif(
    find_browser() is None, reason="no Chromium here: apt-get install chromium-headless-shell"
)
def test_answers_are_searched_filtered_and_marked(made, tmp_path):
    report(str(made), out=str(tmp_path / "page.html"))
    browser = Browser(find_browser(), tmp_path / "profile")
    cards = "[...document.querySelectorAll('#held-out-list article')]"

    def pick(label: str, value: str) -> None:
        labels = "[...document.querySelectorAll('#held-out label')]"
        found = f"{labels}.find((each) => each.textContent.startsWith('{label}'))"
        browser.run(f"window.picked = {found}.querySelector('select')")
        browser.run(f"picked.value = '{value}'; picked.dispatchEvent(new Event('change'))")

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
