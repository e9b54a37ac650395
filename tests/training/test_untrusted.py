"""Files of strangers are read and not run: checkpoints, weights, tables, configs. (Classes: test_trust.)"""

import ast
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rlaifv_pl.cli import commands
from rlaifv_pl.cli.fit import main
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.models.policy import PolicyError, PolicySpec, load_model, load_processor
from rlaifv_pl.objectives.checks import RunError
from tests.training.tiny import REPOSITORY, dpo_config, write_config, write_pairs


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.ran),)


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """What is there once a trap was sprung."""
    return tmp_path / "ran"


@pytest.fixture
def start(family_dir, tmp_path, monkeypatch) -> Callable[..., str]:
    """`start(verb, *options)` runs `train.py`; its last words, or nothing."""
    settings = dpo_config(family_dir("llava"), write_pairs(tmp_path / "pairs", 4), export={"enabled": False})
    settings["trainer"] |= {"default_root_dir": str(tmp_path / "run"), "max_epochs": 1}
    settings["data"]["val"] = str(tmp_path / "pairs")
    config = str(write_config(tmp_path / "config.yaml", settings))

    def go(verb: str, *options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["train.py", verb, "--config", config, *options])
        try:
            commands.main()
        except SystemExit as stopped:
            return str(stopped.code)
        return ""

    return go


def save(path: Path, how: str, ran: Path) -> Path:
    """A checkpoint with a trap in it, as torch writes them now, as it did, or as plain pickle."""
    content = {"state_dict": {}, "trap": Trap(ran), "pytorch-lightning_version": "2.6.6"}
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    return path


def test_the_trap_works(ran):
    pickle.loads(pickle.dumps(Trap(ran)))
    assert ran.exists()


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_a_checkpoint_with_code_is_refused(start, tmp_path, ran, verb):
    path = save(tmp_path / "stranger.ckpt", "zip", ran)
    said = start(verb, "--ckpt_path", str(path))
    assert said.startswith(f"error: {path} holds more than tensors and plain values") and not ran.exists()
    assert "weights_only" not in said and "none of its code was run" in said


@pytest.mark.parametrize("how", ["old", "pickle"])
def test_a_file_in_a_format_that_no_run_writes_is_not_opened(start, tmp_path, ran, how):
    path = save(tmp_path / "stranger.ckpt", how, ran)
    for verb in ("fit", "validate"):
        assert start(verb, "--ckpt_path", str(path)).startswith(
            f"error: --ckpt_path: {path} is not a checkpoint"
        )
    assert not ran.exists()


def test_the_last_checkpoint_of_a_run_is_read_no_other_way(start, tmp_path, ran):
    path = save(tmp_path / "run/checkpoints/epoch0-step1.ckpt", "zip", ran)
    assert start("fit", "--ckpt_path", "last").startswith(f"error: {path} holds more than tensors")
    assert not ran.exists()


def test_an_export_reads_a_checkpoint_no_other_way(start, tmp_path, ran):
    assert not start("fit", "--trainer.max_steps", "1")
    save(tmp_path / "run/checkpoints/last.ckpt", "zip", ran)
    with pytest.raises(SystemExit) as stopped:
        commands.main(["export", str(tmp_path / "run"), str(tmp_path / "out")])
    assert "holds more than tensors" in str(stopped.value) and not ran.exists()


def test_no_option_makes_it_unpickle(start, tmp_path, ran, capsys):
    path = save(tmp_path / "stranger.ckpt", "zip", ran)
    assert start("fit", "--ckpt_path", str(path), "--weights_only", "false") == "2"
    assert "weights_only" in capsys.readouterr().err and not ran.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", "tensors"])
def test_what_is_no_checkpoint_is_said_to_be_none(start, tmp_path, content):
    path = tmp_path / "other.ckpt"
    if content == "tensors":
        torch.save({"weight": torch.ones(1)}, path)
    else:
        path.write_bytes(content)
    said = start("fit", "--ckpt_path", str(path)).removeprefix("error: ").removeprefix("--ckpt_path: ")
    assert said.startswith(f"{path} is not a checkpoint")


def test_hyper_parameters_of_a_checkpoint_decide_nothing(start, tmp_path):
    """Lightning's command line would take them in place of what the config says."""
    assert not start("fit", "--trainer.max_steps", "1")
    path = tmp_path / "run/checkpoints/last.ckpt"
    saved = torch.load(path, weights_only=True)
    options = {
        "policy": {"path": "no/such/model"},
        "max_length": 3,
        "_class_path": "rlaifv_pl.objectives.SFTModule",
    }
    torch.save(saved | {"hyper_parameters": options}, tmp_path / "other.ckpt")
    config = ["fit", "--config", str(tmp_path / "config.yaml"), "--trainer.max_epochs", "2"]
    elsewhere = ["--trainer.default_root_dir", str(tmp_path / "other")]
    cli = main([*config, *elsewhere, "--ckpt_path", str(tmp_path / "other.ckpt")])
    assert type(cli.model).__name__ == "DPOModule" and cli.model.max_length is None
    assert cli.trainer.global_step > 1


def test_weights_with_code_are_refused(family_dir, tmp_path, ran):
    model = shutil.copytree(family_dir("llava"), tmp_path / "model")
    (model / "model.safetensors").unlink()
    torch.save({"weight": Trap(ran)}, model / "pytorch_model.bin")
    with pytest.raises(PolicyError, match=r"cannot load .* of which nothing was run"):
        load_model(PolicySpec(path=str(model)))
    assert not ran.exists()


def test_code_beside_a_model_is_off_everywhere(family_dir, tmp_path, ran, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = shutil.copytree(family_dir("llava"), tmp_path / "model")
    (model / "mine.py").write_text(f"import os\nos.mkdir({str(ran)!r})\nclass Mine: pass\n")
    for name in ("processor_config.json", "tokenizer_config.json"):
        file = model / name
        file.write_text(
            file.read_text().rstrip().removesuffix("}") + ', "auto_map": {"AutoProcessor": "mine.Mine"}}'
        )
    load_processor(PolicySpec(path=str(model)))
    assert not ran.exists()
    assert not PolicySpec(path="x").trust_remote_code and not TransformersEngine(path="x").trust_remote_code


def test_a_table_with_code_is_read_as_a_table(tmp_path, ran):
    """Of the kind that old versions of pyarrow unpickled."""
    kind = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Trap(ran)),
    }
    fields = [pa.field(name, pa.string(), metadata=kind) for name in ("prompt", "chosen", "rejected")]
    rows = [["what is it?"], ["a cat."], ["a dog."]]
    pq.write_table(pa.table([pa.array(row) for row in rows], pa.schema(fields)), tmp_path / "rows.parquet")
    commands.main(["shards", "import", str(tmp_path / "rows.parquet"), str(tmp_path / "shards")])
    assert not ran.exists() and (tmp_path / "shards/manifest.json").is_file()


def test_a_script_among_tables_is_not_run(tmp_path, ran):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "source.py").write_text(f"import os\nos.mkdir({str(ran)!r})\n")
    (folder / "rows.jsonl").write_text('{"prompt": "a?", "chosen": "b", "rejected": "c"}\n')
    commands.main(["shards", "import", str(folder), str(tmp_path / "shards")])
    assert not ran.exists() and (tmp_path / "shards/manifest.json").is_file()


def test_a_config_builds_no_objects_of_yaml(tmp_path, ran, monkeypatch):
    (tmp_path / "config.yaml").write_text(f"seed_everything: !!python/object/apply:os.mkdir [{ran}]\n")
    monkeypatch.setattr(sys, "argv", ["train.py", "fit", "--config", str(tmp_path / "config.yaml")])
    with pytest.raises(SystemExit):
        commands.main()
    assert not ran.exists()


UNSAFE = {"pickle.load", "pickle.loads", "np.load", "yaml.load", "yaml.unsafe_load", "eval", "exec", "os.system",
          "joblib.load", "dill.load", "torch.hub.load", "load_state_dict_from_url"}  # fmt: skip


def unsafe(source: str) -> list[str]:
    """Calls that run what they read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            if name in UNSAFE or options.get("shell") == "True" or options.get("trust_remote_code") == "True":
                found.append(name)
            if name == "torch.load" and options.get("weights_only") != "True":
                found.append(name)
    return found


def test_the_package_calls_nothing_that_runs_what_it_reads():
    files = [*(REPOSITORY / "rlaifv_pl").rglob("*.py"), REPOSITORY / "train.py"]
    assert not {path.name: found for path in files if (found := unsafe(path.read_text()))}
    bad = ("torch.load(p)", "torch.load(p, weights_only=False)", "eval(s)", "f(trust_remote_code=True)",
           "subprocess.run(c, shell=True)", "np.load(p)")  # fmt: skip
    assert all(map(unsafe, bad)) and not unsafe("torch.load(p, weights_only=True)")


@pytest.mark.parametrize("how", ["zip", "old", "pickle"])
def test_it_is_refused_where_a_program_reads_it_too(tmp_path, ran, how):
    from rlaifv_pl.training.checkpoint_io import AtomicCheckpointIO

    with pytest.raises(RunError, match="none of its code was run"):
        AtomicCheckpointIO().load_checkpoint(save(tmp_path / "x.ckpt", how, ran), weights_only=False)
    assert not ran.exists()
