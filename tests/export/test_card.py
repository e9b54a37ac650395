"""Cards: what they say is what is there, and nothing of the machine or of secrets stands in them."""

import getpass
import hashlib
import json
import socket

import pytest
import yaml

from rlaifv_pl.cli.export import export
from rlaifv_pl.export.redact import cleaned
from rlaifv_pl.models.policy import LoRA
from rlaifv_pl.rounds.ledger import Ledger
from tests.export.runs import save_run
from tests.training.tiny import write_pairs

SECRET = "hunter2"


@pytest.fixture
def run(family_dir, tmp_path):
    """A run with data, rounds, held-out figures, and secrets in its config."""
    base = tmp_path / "secret place" / "base"
    base.parent.mkdir()
    base.symlink_to(family_dir("llava"))
    directory = save_run(tmp_path / "run", str(base), by=0.05, step=7)
    config = yaml.safe_load((directory / "config.yaml").read_text())
    write_pairs(tmp_path / "pairs", 6)
    config["model"]["class_path"] = "rlaifv_pl.objectives.DPOModule"
    config["model"]["init_args"] |= {
        "losses": [{"class_path": "rlaifv_pl.objectives.terms.Sigmoid", "init_args": {"beta": 0.25}}],
        "reference": "live",
    }
    config["data"] = {
        "train": [str(tmp_path / "pairs"), f"https://me:{SECRET}@inner.example/more?sig={SECRET}"],
        "batch_size": 3,
    }
    config["judge"] = {"api_key": SECRET, "max_new_tokens": 12, "headers": {"Authorization": SECRET}}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    ledger = Ledger(directory / "rounds")
    ledger.note(0, figures={"instance": 0.25, "recall": 0.5, "length": 11.25})
    ledger.note(
        1, pairs=1234, figures={"instance": 0.125, "recall": 0.75}, agreement=0.9, seconds={"train": 1.0}
    )
    write_pairs(directory / "rounds" / "1", 4)
    (directory / "held_out").mkdir()
    steps = [{"step": step, "figures": {"accuracy": step / 10}} for step in (0, 3, 7, 9)]
    (directory / "held_out" / "figures.json").write_text(
        json.dumps({"pope": {"metric": "POPE", "steps": steps}})
    )
    return directory


@pytest.fixture
def card(run, tmp_path):
    export(str(run), str(tmp_path / "model"))
    return (tmp_path / "model" / "README.md").read_text()


def front(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def cells(card: str, first: str) -> list[str]:
    """The cells of the one row of a table that begins with a cell."""
    (row,) = (line for line in card.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_hub_reads_what_it_needs_and_nothing_made_up(card):
    assert front(card) == {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["preference-alignment", "hallucination", "rlaifv-pl", "dpo"],
    }


def test_a_license_is_that_of_the_base(family_dir, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for path in family_dir("llava").iterdir():
        (base / path.name).symlink_to(path)
    (base / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n\n# Base\n")
    export(str(save_run(tmp_path / "run", str(base), by=0.05)), str(tmp_path / "model"))
    assert front((tmp_path / "model" / "README.md").read_text())["license"] == "apache-2.0"


def test_what_was_trained_on_what_and_what_came_out(card):
    assert "trained from base with DPOModule, 7 steps, 1 rounds of feedback." in card
    assert cells(card, "term Sigmoid")[1] == "beta 0.25"
    assert cells(card, "reference")[1] == "live"
    role, name, samples, kinds, *_ = cells(card, "train | pairs")
    assert (role, name, samples, kinds) == ("train", "pairs", "6", "preference 6")
    assert cells(card, "train | more")[2] == "unknown"
    assert cells(card, "start") == ["start", "25.0 %", "50.0 %", "11.2", "0", ""]
    assert cells(card, "1") == ["1", "12.5 %", "75.0 %", "", "1,234", "90.0 %"]
    assert cells(card, "pope") == ["pope", "accuracy", "0 (step 0)", "0.7 (step 7)"], (
        "step 9 is after the export"
    )


def test_hashes_are_those_of_the_files(card, run, tmp_path):
    for name in ("model.safetensors", "config.json"):
        data = (tmp_path / "model" / name).read_bytes()
        assert cells(card, name)[1] == f"`{hashlib.sha256(data).hexdigest()}`"
    manifest = json.loads((run / "rounds" / "1" / "manifest.json").read_bytes())
    manifest.pop("notes")
    expected = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    assert expected[:16] in cells(card, "round 1")[5]
    assert json.loads((tmp_path / "model" / "rlaifv.json").read_bytes())["shards"][2]["hash"] == expected


def test_nothing_of_the_machine_and_no_secret_is_published(card, tmp_path):
    texts = [
        card,
        *((tmp_path / "model" / name).read_text() for name in ("rlaifv.json", "training_config.yaml")),
    ]
    for text in texts:
        for private in (SECRET, "inner.example", "secret place", str(tmp_path), socket.gethostname() + "."):
            assert private not in text
        assert f"/{getpass.getuser()}/" not in text
    settings = yaml.safe_load(texts[-1])
    assert settings["judge"]["max_new_tokens"] == 12 and settings["judge"]["api_key"] == "(left out)"
    assert settings["model"]["init_args"]["policy"]["path"] == "base"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("runs/dpo", "runs/dpo"),
        ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-7b-hf"),
        ("~/models/x", "x"),
        ("../../me/x", "x"),
        ("s3://bucket/a/b", "b"),
        ("beta / gamma and 1/2", "beta / gamma and 1/2"),
        ("see /home/me/a and file:///home/me/b", "see a and b"),
        (
            {"hf_token": "x", "tokens": 3, "token": None},
            {"hf_token": "(left out)", "tokens": 3, "token": None},
        ),
        ([1, 0.5, None, True], [1, 0.5, None, True]),
    ],
)
def test_cleaning(value, expected):
    assert cleaned(value) == expected


def test_an_adapter_says_how_to_put_it_on_its_base(family_dir, tmp_path):
    run = save_run(tmp_path / "run", str(family_dir("llava")), LoRA(rank=4), by=0.05)
    export(str(run), str(tmp_path / "adapter"), adapter=True)
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert front(card)["library_name"] == "peft" and "lora" in front(card)["tags"]
    assert "--max-lora-rank 4" in card and "without the adapters" in card
    assert cells(card, "adapter_model.safetensors")[1].strip("`") == (
        hashlib.sha256((tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()
    )


def test_adapters_that_were_never_trained_are_told(family_dir, tmp_path, capsys):
    run = save_run(tmp_path / "run", str(family_dir("llava")), LoRA(rank=4), by=0.0)
    export(str(run), str(tmp_path / "model"))
    assert "nothing was trained" in capsys.readouterr().err
    assert "> **Note:** the adapters are as they were drawn" in (tmp_path / "model" / "README.md").read_text()


def test_a_damaged_table_of_the_run_keeps_no_model_back(run, tmp_path):
    (run / "metrics.csv").write_text("step\nmany\n")
    export(str(run), str(tmp_path / "model"))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "> **Note:** the run's files could not all be read" in card and str(tmp_path) not in card


@pytest.mark.parametrize("text", ["[]", "{", '{"pope": {"steps": [{"step": 1}]}}', '{"pope": 3}'])
def test_damaged_held_out_figures_keep_no_model_back(run, tmp_path, text):
    (run / "held_out" / "figures.json").write_text(text)
    export(str(run), str(tmp_path / "model"))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "could not all be read: run/held_out/figures.json" in card and "## Held-out" not in card
    assert cells(card, "1")[0] == "1", "the rest is told"


def test_what_a_config_says_cannot_break_a_table(run, tmp_path):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["init_args"]["schedule"] = "a | b\n<script>"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    export(str(run), str(tmp_path / "model"))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| schedule | a \\| b &lt;script> |" in card
