"""The commands of the README and the guides, run one after the other as a newcomer would, on small data."""

import json
import re
import shlex
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from rlaifv_pl.cli import commands, fit
from rlaifv_pl.evaluation.pope_builder import build_pope
from rlaifv_pl.miniature import packaged_model
from tests import coco

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
COMMAND = re.compile(r"^    (?:.*&& )?((?:python train\.py|rlaifv) .*)$", re.MULTILINE)
COMMANDS = list(dict.fromkeys(line for page in PAGES for line in COMMAND.findall(page.read_text())))
LINK = re.compile(r"\]\(([^)#:]+)(?:#([^)]*))?\)")
SMALL = (
    " --trainer.limit_train_batches 2 --trainer.max_epochs 1 --trainer.accelerator cpu"
    " --trainer.precision 32-true --trainer.enable_progress_bar false --trainer.accumulate_grad_batches 1"
)
SHORT = (
    ".sampling.n 4 --{0}.sampling.temperature 2.0 --{0}.sampling.max_new_tokens 60"
    " --{0}.labeler.engine.dtype float32"
)


def in_small(command: str) -> str:
    """What a test adds to a command of the README: fewer steps, and a CPU instead of a GPU."""
    added = ""
    if "train.py" in command or command.startswith("rlaifv fit"):
        added += SMALL
    if "--config rounds" in command:
        added += " --rounds.epochs 1 --trainer.max_epochs 2 --rounds.feedback" + SHORT.format(
            "rounds.feedback"
        )
    if command.startswith("rlaifv feedback --config"):
        added += " --limit 24 --policy.dtype float32 --feedback" + SHORT.format("feedback")
    if "--model.images" in command:
        added += " --model.max_new_tokens 4"
    if command.startswith("rlaifv miniature measure"):
        added += " --count 8"
    return command + added


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with the repository's configs, a source file, a small model and what it said."""
    home = tmp_path_factory.mktemp("home")
    for name in ("configs", "train.py", "rlaifv_pl"):
        (home / name).symlink_to(ROOT / name)
    (home / "photos").symlink_to(coco.ROOT / "images")
    (home / "DIR").symlink_to(packaged_model("base"))
    coco.write_trl(home).rename(home / "my_pairs.parquet")
    write_rows(home)
    write_responses(home)
    return home


def write_rows(home: Path) -> None:
    """Twenty rows as somebody would write them by hand."""
    rows = [
        {
            "image": photo.path.name,
            "question": "What is there?",
            "chosen": photo.chosen,
            "rejected": photo.rejected,
        }
        for photo in coco.photos()[:20]
    ]
    (home / "my_rows.jsonl").write_text("\n".join(map(json.dumps, rows)))


def write_responses(home: Path) -> None:
    """Descriptions of the photos, each with one object that is not there, and a yes to whatever POPE asks."""
    objects = {photo.name: sorted(photo.counts) for photo in coco.photos()}
    (home / "objects.json").write_text(json.dumps(objects))
    captions = [{"image_id": photo.name, "caption": photo.rejected} for photo in coco.photos()]
    (home / "captions.jsonl").write_text("\n".join(map(json.dumps, captions)))
    answers = [{"question": one.text, "answer": "Yes."} for one in build_pope(objects, "adversarial")]
    (home / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))


def run(command: str, monkeypatch) -> None:
    """What the shell would do, without the seconds that each new process takes to import torch."""
    words = shlex.split(command)
    monkeypatch.setattr(sys, "argv", words[1:] if words[0] == "python" else words)
    (fit.main if words[0] == "python" else commands.main)()


def test_the_commands_of_the_readme_and_the_guides_run_in_their_order(home, monkeypatch):
    monkeypatch.chdir(home)
    quickstart, *others = COMMANDS
    assert len(others) >= 9 and quickstart.endswith("configs/quickstart.yaml")
    few = (
        (home / "configs" / "quickstart.yaml")
        .read_text()
        .replace("count: 600", "count: 24")
        .replace("count: 500", "count: 12")
    )
    (home / "few.yaml").write_text(few)
    run(f"{quickstart} --config few.yaml{SMALL} --trainer.max_epochs 4", monkeypatch)
    summary = json.loads((home / "runs" / "quickstart" / "summary.json").read_text())
    assert [row["round"] for row in summary["rounds"]] == [0, 1, 2] and summary["seed"] == 0
    assert all(
        {"instance", "sentence", "recall", "length", "pairs", "agreement", "seconds"} <= set(row)
        for row in summary["rounds"]
    )
    for command in others:
        run(in_small(command), monkeypatch)
    chair, pope = (json.loads((home / f"{name}.json").read_text()) for name in ("chair", "pope"))
    assert chair["n"] == 128 and chair["CHAIRs"] > 90 and pope["accuracy"] == 50 and pope["recall"] == 100
    asked, said = ((home / name).read_text().splitlines() for name in ("questions.json", "mine.jsonl"))
    assert json.loads((home / "mine.json").read_text())["n"] == len(asked) == len(said)
    assert (home / "my-model" / "model.safetensors").is_file() and (home / "mine.png").stat().st_size > 10_000
    assert all("</html>" in (home / f"{name}.html").read_text() for name in ("quickstart", "mine"))


@pytest.mark.parametrize(
    "page", [*PAGES, *ROOT.glob("*.md"), ROOT / "shards" / "README.md"], ids=lambda page: page.name
)
def test_links_of_a_page_lead_somewhere(page):
    for path, heading in LINK.findall(page.read_text()):
        target = page.parent / path
        assert target.exists(), f"{page.name} links to {path}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings]


def test_the_console_script_is_installed():
    (script,) = entry_points(group="console_scripts", name="rlaifv")
    assert script.load() is commands.main
