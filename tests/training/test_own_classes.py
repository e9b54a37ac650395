"""Classes of a user's own in a config: taken by what they can do, refused with the methods that they lack."""

import json

import pytest

from rlaifv_pl.cli import commands
from rlaifv_pl.cli.own_classes import lacking
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.feedback.engines.engine import Engine
from rlaifv_pl.miniature.shards import Scenes
from tests.feedback.openai_server import ChatServer, completion, says
from tests.training.own_classes import Named, Nameless, Wrapper

OWN = "tests.training.own_classes"
ENGINE = "rlaifv_pl.feedback.engines.openai_engine.OpenAIEngine"


def feedback(tmp_path, url: str = "http://127.0.0.1:9/v1", **own: str) -> None:
    config = {
        "policy": {"class_path": ENGINE, "init_args": {"model": "m", "base_url": url}},
        "feedback": {"splitter": f"{OWN}.Words", "labeler": f"{OWN}.Sure", **own, "balance": False},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    prompts = Scenes(out=str(tmp_path / "prompts"), split="tune", count=2, seed=3).ensure()
    options = ["--config", str(tmp_path / "config.json"), "--prompts", str(prompts), "--trust-config", OWN]
    commands.main(["feedback", *options, "--out", str(tmp_path / "out")])


def test_a_class_without_annotations_will_do(tmp_path):
    with ChatServer() as server:
        server.plan = lambda body, time: says(completion(("a cup", "a ring")[body["seed"] % 2]))
        feedback(tmp_path, server.url)
    assert read_manifest(tmp_path / "out").samples > 0


@pytest.mark.parametrize(
    "own, lacks",
    [
        ({"labeler": f"{OWN}.NoVerdicts"}, r"Labeler\n.*verdicts\(samples, questions, policy\)"),
        ({"labeler": f"{OWN}.TooFew"}, r"verdicts\(samples, questions, policy\), and it has verdicts\(samples\)"),
        ({"splitter": f"{OWN}.Sure"}, r"Splitter\n.*recipe\(\).*split\(answered\)"),
    ],
)  # fmt: skip
def test_what_a_class_lacks_is_named_with_its_parameters(tmp_path, own, lacks):
    with pytest.raises(SystemExit, match=lacks) as told:
        feedback(tmp_path, **own)
    assert "annotation" not in str(told.value)


def test_an_attribute_may_come_with_the_instance():
    assert lacking(Named, Engine) == [] and lacking(Wrapper, Engine) == []
    assert lacking(type("Later", (Named,), {}), Engine) == []
    assert lacking(Nameless, Engine) == ["the attribute identity"]
