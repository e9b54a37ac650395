"""A key comes from the environment, and is nowhere else: not in files, not on the screen, whatever goes wrong."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from rlaifv_pl.cli import commands
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.miniature.shards import Scenes
from tests.feedback.openai_server import ChatServer, hang_up, says, slow, status
from tests.rounds import world_run
from tests.training.tiny import REPOSITORY

KEY = "Marker-0123456789-abcdefghij-0123456789"
PROMPTS = 3

FAULTS = {
    "refused": status(401, f"Incorrect API key provided: {KEY}"),
    # The message is shown in part: this much of it, and then some of the key.
    "refused at length": status(403, "x" * 255 + KEY),
    "silence": slow(2.0),
    "hung up": hang_up,
    "an echo": says(f"<html>Authorization: Bearer {KEY}</html>"),
}


@pytest.fixture
def server(monkeypatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", f"{KEY}-hf")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ChatServer() as running:
        yield running


def engine(server: ChatServer, cache: Path) -> dict:
    options = {"model": "m", "base_url": server.url, "cache": str(cache), "timeout": 1.5, "retries": 0}
    return {
        "class_path": "rlaifv_pl.feedback.engines.openai_engine.OpenAIEngine",
        "init_args": options | {"concurrency": 4},
    }


def told(start: Callable[[], None]) -> str:
    """What a program says as it fails; it has to."""
    with pytest.raises(SystemExit) as stopped:
        start()
    assert stopped.value.code not in (None, 0)
    return str(stopped.value.code)


def assert_nowhere(directory: Path, *said: str) -> None:
    """Not in part either."""
    files = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert len(files) > 5
    for name in (KEY, KEY[:12]):
        assert not [path for path, data in files.items() if name.encode() in data]
        assert not [text[:2000] for text in said if name in text]


def feedback(server: ChatServer, directory: Path) -> dict:
    """Both models are behind the server."""
    return {
        "sampling": {"n": 4, "temperature": 1.0, "max_new_tokens": 60},
        "splitter": "rlaifv_pl.feedback.judges.self_reward.WholeAnswer",
        "labeler": {
            "class_path": "rlaifv_pl.feedback.judges.labeler.ModelLabeler",
            "init_args": {
                "engine": engine(server, directory / "labels.sqlite"),
                "cache": str(directory / "v.sqlite"),
            },
        },
        "combine": "rlaifv_pl.feedback.judges.combine.minus_expected_rejected",
        "pairing": {"min_gap": 0.01},
        "balance": False,
    }


def test_a_pass_of_feedback_keeps_the_key_to_itself(server, tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    prompts = Scenes(out=str(tmp_path / "prompts"), split="tune", count=PROMPTS).ensure()
    settings = {"policy": engine(server, tmp_path / "a.sqlite"), "feedback": feedback(server, tmp_path)}
    (tmp_path / "feedback.yaml").write_text(yaml.safe_dump(settings))
    out = tmp_path / "out"
    start = [
        "feedback",
        "--config",
        str(tmp_path / "feedback.yaml"),
        "--prompts",
        str(prompts),
        "--out",
        str(out),
    ]
    said = []
    for name, fault in FAULTS.items():
        server.plan = lambda body, time, fault=fault: fault
        said.append(told(lambda: commands.main(start)))
        assert said[-1].startswith("error: sample tune_"), name
    assert "Incorrect API key provided: [key]" in said[0]
    server.plan = lambda body, time: None
    commands.main(start)
    assert read_manifest(out).samples > 0 and server.keys == {f"Bearer {KEY}"}
    assert_nowhere(tmp_path, *said, *capfd.readouterr(), caplog.text)


def test_a_run_of_rounds_keeps_the_key_to_itself(server, tmp_path, monkeypatch, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    settings = world_run.config(tmp_path / "run", trainer={"max_epochs": 1})
    how = feedback(server, tmp_path) | {"sampling": {"n": 3, "temperature": 1.0, "max_new_tokens": 60}}
    settings["rounds"] |= {"epochs": 1, "prompts_per_round": PROMPTS, "feedback": how, "evaluator": None}
    settings["data"]["sources"] = settings["data"]["sources"][:1]
    config = world_run.write(tmp_path / "run.yaml", settings)
    monkeypatch.setattr(sys, "argv", ["train.py", "fit", "--config", str(config), "--ckpt_path", "last"])
    said = []
    for fault in ("refused", "silence"):
        server.plan = lambda body, time, fault=fault: FAULTS[fault]
        said.append(told(commands.main))
        assert said[-1].startswith("error: sample tune_")
    server.plan = lambda body, time: None
    commands.main()
    run_files = {path.name for path in (tmp_path / "run").rglob("*")}
    assert {"ledger.json", "summary.json", "metrics.csv", "config.yaml", "last.ckpt", "export"} <= run_files
    assert server.keys == {f"Bearer {KEY}"}
    assert_nowhere(tmp_path, *said, *capfd.readouterr(), caplog.text)


IN_A_CONFIG = {
    "api_key": KEY,
    "api_key_env": KEY,
    "base_url": f"https://user:{KEY}@host/v1",
    "extra": {"extra_headers": {"Authorization": f"Bearer {KEY}"}},
}


@pytest.mark.parametrize("name", IN_A_CONFIG)
def test_a_key_in_a_config_is_refused_and_not_repeated(name, tmp_path, capfd):
    config = yaml.safe_load((REPOSITORY / "configs/feedback.yaml").read_text())
    options = {"model": "m", name: IN_A_CONFIG[name]}
    config["policy"] = {
        "class_path": "rlaifv_pl.feedback.engines.openai_engine.OpenAIEngine",
        "init_args": options,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "out"
    start = ["feedback", "--config", str(tmp_path / "config.yaml"), "--prompts", "none", "--out", str(out)]
    said = told(lambda: commands.main(start))
    assert "environment variable" in said and "api_key_env" in said
    assert KEY[:12] not in said + "".join(capfd.readouterr()) and not out.exists()


def test_training_refuses_it_as_feedback_does(tmp_path, monkeypatch, capfd):
    settings = world_run.config(tmp_path / "run")
    labeler = settings["rounds"]["feedback"]["labeler"]["init_args"]
    for name in ("api_key", "api_key_env"):
        options = {"model": "m", name: IN_A_CONFIG[name]}
        labeler["engine"] = {
            "class_path": "rlaifv_pl.feedback.engines.openai_engine.OpenAIEngine",
            "init_args": options,
        }
        config = world_run.write(tmp_path / "run.yaml", settings)
        monkeypatch.setattr(sys, "argv", ["train.py", "fit", "--config", str(config)])
        assert told(commands.main) == "2"
        said = "".join(capfd.readouterr())
        assert "environment variable" in said and "api_key_env" in said and KEY[:12] not in said
    assert not os.path.exists(tmp_path / "run")
