"""The built wheel, installed by itself: it works in an empty directory, without the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SOURCES = ("rlaifv_pl", "configs", "pyproject.toml", "README.md", "LICENSE")
FEW = {
    "data": {
        "sources": [
            {
                "class_path": "rlaifv_pl.miniature.shards.Scenes",
                "init_args": {"out": f"${{trainer.default_root_dir}}/{out}", "split": split, "count": count, "seed": 0},
            }
            for out, split, count in (("scenes", "train", 24), ("test_scenes", "test", 12))
        ]
    },
    "rounds": {"feedback": {"gate": None}},
}  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A directory with the wheel's files and nothing else, and an empty one to work in."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        options = (
            {"symlinks": True, "ignore": shutil.ignore_patterns("__pycache__")}
            if copy is shutil.copytree
            else {}
        )
        copy(ROOT / name, source / name, **options)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps"]
    subprocess.run([*pip, "wheel", "--no-build-isolation", *offline, "-w", place, source], check=True)
    (wheel,) = place.glob("*.whl")
    subprocess.run([*pip, "install", *offline, "--target", place / "target", wheel], check=True)
    shutil.rmtree(source)
    return place / "target"


@pytest.fixture
def rlaifv(installed, tmp_path):
    """`rlaifv("configs")` is the text that the installed command prints, in an empty directory."""
    environment = os.environ | {"PYTHONPATH": str(installed)}

    def run(*words: str) -> str:
        command = [sys.executable, installed / "bin" / "rlaifv", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.mark.slow
def test_commands_and_configs_work_without_a_checkout(rlaifv, installed, tmp_path):
    assert "configs copy" in rlaifv("--help")
    assert "machine/fsdp" in rlaifv("configs")
    assert "--strategy" in rlaifv("pope", "--help")
    settings = yaml.safe_load(rlaifv("fit", "--config", "quickstart", "--print_config"))
    assert settings["trainer"]["default_root_dir"] == "runs/quickstart"
    assert settings["model"]["init_args"]["policy"]["path"].startswith(str(installed))
    rlaifv("configs", "copy", "quickstart", "mine.yaml")
    assert (tmp_path / "mine.yaml").is_file()


@pytest.mark.slow
def test_a_short_quickstart_runs_without_a_checkout(rlaifv, tmp_path):
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(FEW))
    small = [
        "--trainer.max_epochs=2",
        "--trainer.limit_train_batches=1",
        "--trainer.enable_progress_bar=false",
    ]
    rlaifv("fit", "--config", "quickstart", "--config", "few.yaml", *small)
    run = tmp_path / "runs" / "quickstart"
    assert (run / "summary.json").is_file() and (run / "export" / "model.safetensors").is_file()
    assert "pairs" in rlaifv("rounds", "status", "runs/quickstart")
