"""Models that come with the package are named alike in every command, and what there is can be found out."""

import functools
import sys

import pytest

from rlaifv_pl.cli import answer, commands
from rlaifv_pl.cli import feedback as feedback
from rlaifv_pl.cli import miniature as world
from rlaifv_pl.miniature import packaged_model

BASE, LABELER = str(packaged_model("base")), str(packaged_model("labeler"))


@pytest.fixture
def given(monkeypatch):
    """Arguments that commands were called with; none of them runs."""
    calls = {}
    for module, name in ((world, "measure"), (answer, "answer"), (feedback, "make")):
        command = getattr(module, name)

        def call(*_: object, _name=name, **options: object) -> None:
            calls[_name] = options

        monkeypatch.setattr(module, name, functools.wraps(command)(call))
    return calls


def test_a_shipped_model_is_named_alike_in_every_command(given):
    commands.main(["miniature", "measure", "${shipped:base}"])
    commands.main(["answer", "${shipped:labeler}", "what does it cost, $5 or {more}?"])
    engines = ["--policy.path", "${shipped:base}", "--feedback.labeler.engine.path", "${shipped:labeler}"]
    commands.main(["feedback", "--config", "configs/feedback.yaml", "--prompts", "p", "--out", "o", *engines])
    assert given["measure"]["path"] == BASE
    assert (given["answer"]["model"], given["answer"]["question"]) == (
        LABELER,
        "what does it cost, $5 or {more}?",
    )
    assert given["make"]["policy"].path == BASE and given["make"]["feedback"].labeler.engine.path == LABELER


def test_a_model_that_is_not_shipped_is_a_line(given):
    with pytest.raises(SystemExit) as ended:
        commands.main(["miniature", "measure", "${shipped:bose}"])
    assert "'bose'" in str(ended.value) and "labeler" in str(ended.value)


NEAREST = [
    (["imprt"], "shards import"),
    (["shards", "shwo", "x"], "show"),
    (["shards", "import", "a", "b", "--samples_per_shrd", "3"], "samples_per_shard"),
    (["evaluate", "--metrc", "chair"], "metric"),
    (["reprot", "x"], "report"),
    (["feedback", "run", "--policy", "TransformerEngine"], "TransformersEngine"),
]


@pytest.mark.parametrize(("words", "right"), NEAREST, ids=lambda value: str(value)[:30])
def test_a_wrong_command_option_or_class_gets_the_nearest_right_one(words, right):
    with pytest.raises(SystemExit) as ended:
        commands.main(words)
    said = str(ended.value)
    assert said.split("did you mean ")[1].split("?")[0].split(" or ")[0] == right


OWN = [
    (None, "No module named", "PYTHONPATH"),
    ("raise ValueError('no licence')", "ValueError: no licence", "own_labeler.py, line 1"),
    ("class Laber: pass", "no attribute", "did you mean Laber"),
]


@pytest.mark.parametrize(("source", "fault", "remedy"), OWN, ids=["not there", "raises", "misspelt"])
def test_a_class_of_ones_own_that_cannot_be_had_is_explained(tmp_path, monkeypatch, source, fault, remedy):
    if source is not None:
        (tmp_path / "own_labeler.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_labeler", raising=False)
    options = [
        "--trust-config",
        "own_labeler",
        "--policy",
        "own_labeler.Label",
        "--prompts",
        "p",
        "--out",
        "o",
    ]
    with pytest.raises(SystemExit) as ended:
        commands.main(["feedback", "run", *options])
    assert fault in str(ended.value) and remedy in str(ended.value)


def test_help_names_every_command_and_imports_none_of_them(capsys):
    commands.main(["--help"])
    said = capsys.readouterr().out
    for name in ("shards import", "feedback correct", "miniature measure", "fit", "export"):
        assert f"  {name} " in said
    commands.main(["shards", "--help"])
    assert "verify" in capsys.readouterr().out


def test_help_of_fit_says_where_the_options_of_the_model_are(capsys):
    commands.main(["fit", "--help"])
    said = capsys.readouterr().out
    assert "--model.policy.path" in said and "--model.help DPOModule" in said and "--help=all" in said
    with pytest.raises(SystemExit) as ended:
        commands.main(["fit", "--model.help", "DPOModule"])
    assert ended.value.code == 0 and "--model.reference" in capsys.readouterr().out


def test_help_of_feedback_shows_options(capsys):
    with pytest.raises(SystemExit) as ended:
        commands.main(["feedback", "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "--prompts" in said and "--feedback.sampling.n" in said
    assert "feedback correct" in said
