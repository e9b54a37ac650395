"""A run on shards behind a URL is the same run as on those shards here, killed or not."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from rlaifv_pl.cli.correct import correct
from rlaifv_pl.cli.feedback import make
from rlaifv_pl.cli.fit import main
from rlaifv_pl.cli.shards import show, verify
from rlaifv_pl.data.datamodule import AlignmentDataModule
from rlaifv_pl.data.manifest import ManifestError
from tests.data.file_server import FileServer
from tests.feedback.scripted import Script, scripted_run
from tests.training.test_resume import killed_at
from tests.training.tiny import dpo_config, table, write_config, write_pairs


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    write_pairs(tmp_path / "origin/pairs", 12)
    write_pairs(tmp_path / "origin/val", 5, seed=1)
    with FileServer(tmp_path / "origin") as server:
        yield server


def config(family_dir, directory: Path, train: str, val: str) -> str:
    data = {"val": val, "cache_dir": str(directory.parent / "cache"), "max_tokens": 400}
    settings = dpo_config(family_dir("llava"), train, data=data, export={"enabled": True})
    settings["model"]["init_args"]["reference"] = "cached"
    settings["trainer"] |= {"default_root_dir": str(directory)}
    return str(write_config(directory.parent / f"{directory.name}.yaml", settings))


def test_a_run_on_a_url_is_the_run_on_its_copy_to_the_last_bit(family_dir, server, tmp_path):
    here = [str(server.root / name) for name in ("pairs", "val")]
    there = [f"{server.url(name)}?token=hunter2" for name in ("pairs", "val")]
    for name, places in {"here": here, "there": there}.items():
        main(["fit", "--config", config(family_dir, tmp_path / name, *places)])
    for file in ("metrics.csv", "export/model.safetensors"):
        here, there = ((tmp_path / name / file).read_bytes() for name in ("here", "there"))
        assert len(here) > 500 and there == here, file
    assert len(table(tmp_path / "there", "train/rewards/margins")) > 8
    assert server.gets == {
        "manifest.json": 4,
        "shard-000000.tar": 2,
        "shard-000001.tar": 1,
        "shard-000002.tar": 1,
    }
    beside = {path.parent.name.split("-")[0] for path in (tmp_path / "cache").glob("pairs-*/*/*.safetensors")}
    assert beside == {"reference", "sizes"}
    for path in (tmp_path / "there").glob("*.yaml"):
        text = path.read_text()
        assert "hunter2" not in text and f"{server.url('pairs')}?***" in text


def test_a_resumed_run_whose_shards_changed_is_stopped(family_dir, server, tmp_path):
    path = config(family_dir, tmp_path / "run", server.url("pairs"), server.url("val"))
    killed_at(4, "--config", path)
    for old in (server.root / "pairs").iterdir():
        old.unlink()
    write_pairs(server.root / "pairs", 12, seed=2)
    with pytest.raises(
        ManifestError, match=r"other shards than when the checkpoint .* samples into the epoch"
    ) as e:
        main(["fit", "--config", path, "--ckpt_path", "last"])
    assert str(tmp_path / "cache") in str(e.value)
    (before,) = (copy for copy in (tmp_path / "cache").glob("pairs-*/") if list(copy.glob("reference-*")))
    main(["fit", "--config", path, "--ckpt_path", "last", "--data.train", str(before)])


class Process(SimpleNamespace):
    """What a data module sees of one process of several."""

    def __init__(self, rank: int, said: list[str]) -> None:
        super().__init__(global_rank=rank, strategy=self)
        self.said = said

    def broadcast(self, name: str) -> str:
        self.said.append(name)
        return self.said[0]


def test_processes_that_find_different_shards_say_so(server, tmp_path):
    said, modules = [], []
    for rank in range(3):
        data = AlignmentDataModule(server.url("pairs"), cache_dir=str(tmp_path / "cache"))
        data.trainer = Process(rank, said)
        modules.append(data)
    (first,), (second,) = (data.fetch(data.train) for data in modules[:2])
    assert first == second and first.parent == tmp_path / "cache"
    (server.root / "pairs/manifest.json").write_bytes((first / "manifest.json").read_bytes() + b"\n")
    with pytest.raises(
        ManifestError, match=r"changed while the run began: .* process 2 and pairs-\w+ in process 0"
    ):
        modules[2].fetch(modules[2].train)
    assert modules[1].fetch([modules[1].train, "shards/mine"]) == [second, Path("shards/mine")], (
        "for the whole run"
    )
    assert server.gets["manifest.json"] == 3


def test_validation_alone_fetches_what_it_reads(server, tmp_path):
    data = AlignmentDataModule(server.url("pairs"), server.url("val"), cache_dir=str(tmp_path / "cache"))
    data.trainer = SimpleNamespace(validating=True)
    data.prepare_data()
    assert [path.name.split("-")[0] for path in (tmp_path / "cache").glob("*/")] == ["val"]
    data.trainer.validating = False
    data.prepare_data()
    assert server.gets["shard-000000.tar"] == 2


def test_the_verbs_take_urls_too(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RLAIFV_PL_CACHE", str(tmp_path / "cache"))
    url = f"{server.url('pairs')}?token=hunter2"
    show(url, out=str(tmp_path / "sheet.png"), count=1)
    verify([url, str(server.root / "val")])
    here = scripted_run(tmp_path / "here", server.root / "pairs", Script(), Script("labeler"))
    made = make(url, str(server.root / "judged"), Script(), here.feedback, seed=here.seed)
    assert made.samples and made.parents == tuple(here.prompts.parents())
    correct(server.url("judged"), str(tmp_path / "corrected"))
    said = capsys.readouterr()
    assert "17" in said.out and "hunter2" not in said.out + said.err
    assert server.gets["shard-000002.tar"] == 1 and server.gets["manifest.json"] == 4
    (copy,) = (tmp_path / "cache").glob("pairs-*/")
    tar = copy / "shard-000002.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    with pytest.raises(SystemExit, match=r"faults in http://.*/pairs\?\*\*\*: changed_shard 1"):
        verify(url)
