"""Packaged configs: found by name in every command, listed, and copied."""

import os
from pathlib import Path

import pytest

from rlaifv_pl.cli import commands
from rlaifv_pl.cli.configs import ConfigError, find_config, packaged_configs, resolve_configs

CONFIGS = Path(__file__).parents[2] / "configs"


def test_each_file_of_the_repository_is_packaged_under_its_name():
    files = {path.resolve() for path in CONFIGS.rglob("*") if path.is_file()}
    known = packaged_configs()
    assert {path.resolve() for path in known.values()} == files
    assert known["machine/fsdp"].name == "fsdp.yaml" and "machine/slurm.sh" in known


@pytest.mark.parametrize("name", ["dpo", "dpo.yaml", "configs/dpo.yaml"])
def test_a_name_is_found_in_any_directory(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert find_config(name).resolve() == CONFIGS / "dpo.yaml"
    found = resolve_configs(["--config", name, "--config=machine/fsdp"])
    assert Path(found[1]).resolve() == CONFIGS / "dpo.yaml"
    assert Path(found[2].removeprefix("--config=")).resolve() == CONFIGS / "machine" / "fsdp.yaml"


def test_files_pipes_urls_and_texts_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dpo").write_text("seed_everything: 3\n")
    (tmp_path / "sft").mkdir()
    os.mkfifo(tmp_path / "pipe")
    own = ["dpo", "pipe", "http://127.0.0.1/dpo.yaml", '{"seed_everything": 1}', "-"]
    assert [resolve_configs([f"--config={value}"])[0].partition("=")[2] for value in own] == own
    assert resolve_configs(["--config", "sft"])[1] != "sft", "a directory is no config"
    assert resolve_configs(["--data.train", "dpo", "--out=sft"]) == ["--data.train", "dpo", "--out=sft"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("qickstart", "quickstart"),
        ("fsdp", "machine/fsdp"),
        ("feedback/server", "feedback/servers"),
        ("mine.yml", "mine.yaml"),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones_in_every_command(tmp_path, monkeypatch, name, near, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(ConfigError, match=f"Did you mean .*{near}"):
        resolve_configs(["--config", name])
    for command in ("feedback", "fit", "preflight"):
        with pytest.raises(SystemExit) as ended:
            commands.main([command, "--config", name])
        assert near in (str(ended.value) if command == "feedback" else capsys.readouterr().err)


def test_configs_are_listed_with_a_line_each(capsys):
    commands.main(["configs"])
    lines = capsys.readouterr().out.splitlines()
    for name in packaged_configs():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert 20 < len(line.removeprefix(name).strip()) <= 110 and line.rstrip().endswith(".")


def test_a_config_is_copied_and_no_file_replaced_unasked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands.main(["configs", "copy", "dpo"])
    assert (tmp_path / "dpo.yaml").read_bytes() == (CONFIGS / "dpo.yaml").read_bytes()
    (tmp_path / "dpo.yaml").write_text("mine")
    with pytest.raises(SystemExit, match="--overwrite"):
        commands.main(["configs", "copy", "dpo"])
    assert (tmp_path / "dpo.yaml").read_text() == "mine"
    commands.main(["configs", "copy", "dpo", "--overwrite", "true"])
    assert (tmp_path / "dpo.yaml").read_bytes() == (CONFIGS / "dpo.yaml").read_bytes()
    commands.main(["configs", "copy", "machine/slurm.sh", "jobs/"])
    assert (tmp_path / "jobs" / "slurm.sh").read_text().startswith("#!/bin/bash")
    with pytest.raises(SystemExit, match="quickstart"):
        commands.main(["configs", "copy", "quickstrat"])
