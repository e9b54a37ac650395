"""The page as a person meets it: in a browser, without a network, by mouse and by keys."""

import io
import json

import pytest
from PIL import Image

from rlaifv_pl.cli.report import report, show
from rlaifv_pl.cli.shards import import_
from rlaifv_pl.records import Sample
from tests.report.browser import Browser, find_browser
from tests.report.made import HOSTILE, claim, judged_pair, write, write_run

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium here: apt-get install chromium-headless-shell"
)

FOCUSED = "document.activeElement.getAttribute('aria-label')"
KEYS = "[...document.querySelectorAll('#list article')].map((card) => card.getAttribute('aria-label'))"
STATUS = "document.getElementById('status').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(find_browser(), tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("runs") / "made")
    report(str(run))
    return run / "report.html"


@pytest.fixture
def opened(browser, page):
    browser.open(page)
    yield browser
    assert browser.errors == []


def choose(browser, label, value):
    """What a person picks in the list behind a label."""
    select = f"[...document.querySelectorAll('label')].find((each) => each.textContent.startsWith('{label}'))"
    browser.run(f"window.picked = {select}.querySelector('select')")
    browser.run(f"picked.value = '{value}'; picked.dispatchEvent(new Event('change'))")


def test_the_page_asks_nobody_for_anything(opened, page):
    opened.run("document.getElementById('list').scrollIntoView()")
    assert {url for url in opened.requests if not url.startswith("data:")} == {page.as_uri()}
    assert opened.run("document.querySelectorAll('#list img').length") == 20
    assert opened.run("[...document.images].every((image) => image.complete && image.naturalWidth === 40)")


def test_texts_of_models_are_shown_and_never_run(opened):
    choose(opened, "From", "1")
    assert opened.run("document.querySelector('#list .prompt').textContent") == HOSTILE
    assert opened.run("document.querySelector('#list .chosen .text').textContent") == HOSTILE
    assert HOSTILE[:40] in opened.run("document.querySelector('#made pre').textContent")
    assert opened.run("typeof window.ran") == "undefined"


def test_nothing_runs_even_if_it_became_markup(browser, page):
    """The policy in the head is a second wall: markup with a handler or a script of its own does nothing."""
    browser.open(page)
    browser.run(
        "document.getElementById('main').insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"ran = 1\">')"
    )
    browser.run("document.body.append(Object.assign(document.createElement('script'), {text: 'ran = 1'}))")
    browser.wait("true")
    assert browser.run("typeof window.ran") == "undefined"
    assert any("Content Security Policy" in error for error in browser.errors)


def test_claims_are_marked_where_they_stand(opened):
    """The emoji counts as one character in the shards and as two in JavaScript."""
    card = "document.querySelector('#list article')"
    marks = opened.run(
        f"[...{card}.querySelectorAll('mark')].map((mark) => [mark.textContent, mark.className])"
    )
    assert marks == [["a cat", "yes"], ["a dog", "yes"], ["a kite", "no"]]
    badges = opened.run(f"[...{card}.querySelectorAll('p .badge')].map((badge) => badge.textContent)")
    assert badges == [" (accepted \u2713 0.98)", " (accepted \u2713 0.75)", " (rejected \u2717 0.03)"]


def test_a_claim_of_several_stretches_leaves_what_lies_between_them(browser, tmp_path):
    text = "A man rides a horse and wears a hat."
    evidence = {"claims": [claim(text, "rides a horse", 0.9), claim(text, "A man ... wears a hat", 0.1)]}
    sample = Sample(key="a", prompt="?", chosen=text, rejected="no", evidence={"chosen": evidence})
    show([str(write(tmp_path / "shards", [sample]))], str(tmp_path / "page.html"))
    browser.open(tmp_path / "page.html")
    marks = browser.run(
        "[...document.querySelectorAll('#list .chosen mark')].map((mark) => [mark.textContent, mark.className])"
    )
    assert marks == [["A man", "no"], ["rides a horse", "yes"], ["wears a hat", "no"]]
    assert browser.run("document.querySelectorAll('#list .chosen p .badge').length") == 2


def test_samples_are_filtered_sorted_and_turned_over(opened):
    assert opened.run(STATUS) == "1 to 20 of 60"
    opened.click(".pager [aria-label='last page']")
    assert (
        opened.run(STATUS) == "41 to 60 of 60" and opened.run("document.activeElement.tagName") == "ARTICLE"
    )
    choose(opened, "Order", "widest")
    assert opened.run("document.querySelector('#list .gap').textContent") == "gap 3"
    opened.click("#gap")
    opened.send("Input.insertText", text="2")
    # Of 30 gaps 1, 2, 3 in turn, 20 are at least 2; the hostile one, without a gap, stands in the place of a 1.
    assert opened.run(STATUS) == "1 to 20 of 20, out of 60"
    choose(opened, "From", "0")
    assert opened.run(STATUS) == "Nothing fits these filters."


def test_keys_step_search_and_turn_pages(opened):
    opened.press("j")
    assert opened.run(FOCUSED) == "sample k1000"
    opened.press("j", "ArrowRight", "ArrowDown", "k")
    assert opened.run(FOCUSED) == "sample k1002"
    opened.press("n")
    assert opened.run(FOCUSED) == "sample k1020" and opened.run(STATUS) == "21 to 40 of 60"
    opened.press("k")
    assert opened.run(FOCUSED) == "sample k1019"
    opened.press("/")
    opened.send("Input.insertText", text="KITE 2007")
    assert opened.run(KEYS) == ["sample k2007"]
    opened.press("Escape")
    assert opened.run(FOCUSED) == "sample k2007"
    assert opened.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_charts_are_read_by_key(opened):
    opened.run("document.querySelector('#curves svg[role=img]').focus()")
    opened.press("ArrowRight", "ArrowRight", "ArrowRight")
    assert opened.run("document.querySelector('#curves .readout').textContent") == "step 2: loss 0.5"
    labels = opened.run("[...document.querySelectorAll('#curves .legend')].map((each) => each.textContent)")
    assert labels == ["", "chosenrejected"]


@pytest.mark.parametrize("width", [1280, 360])
def test_it_fits_screens_wide_and_narrow(browser, page, width):
    browser.open(page, width=width, height=1000)
    widths = browser.run("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] == widths[1] <= width
    with Image.open(io.BytesIO(browser.screenshot())) as picture:
        assert picture.size == (width, 1000) and len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_it_is_dark_where_that_is_preferred(browser, page):
    def ground(scheme):
        browser.open(page, scheme=scheme)
        with Image.open(io.BytesIO(browser.screenshot())) as picture:
            return picture.convert("L").getpixel((2, 2))

    assert ground("light") > 200 and ground("dark") < 60


def test_shards_have_the_same_page(browser, tmp_path):
    shards = write(tmp_path / "mine", [judged_pair(number) for number in range(3)])
    show([str(shards)], out=str(tmp_path / "sheet.png"), html=str(tmp_path / "mine.html"))
    browser.open(tmp_path / "mine.html")
    assert browser.run(KEYS) == ["sample k0", "sample k1", "sample k2"] and browser.errors == []
    assert browser.run("[...document.querySelectorAll('section')].map((each) => each.id)") == [
        "distributions",
        "samples",
        "made",
    ]


def test_rows_that_an_import_left_out_can_be_read(browser, tmp_path):
    """Two of three are the same answer twice; each says where it stood and what to do."""
    rows = [{"prompt": "A?", "chosen": "b", "rejected": side} for side in ("c", "b", "b")]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    import_([str(tmp_path / "rows.json")], str(tmp_path / "out"))
    show([str(tmp_path / "out")], out=str(tmp_path / "sheet.png"), html=str(tmp_path / "out.html"))
    browser.open(tmp_path / "out.html")
    choose(browser, "Show", "equal_answers")
    assert browser.run(STATUS) == "1 to 2 of 2" and browser.run(KEYS) == ["left out: equal_answers"] * 2
    assert "rows.json, row 2" in browser.run("document.querySelectorAll('#list .text')[1].textContent")
    assert browser.errors == []
