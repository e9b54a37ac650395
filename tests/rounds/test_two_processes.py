"""Rounds of two processes = rounds of one: shards, losses, ledger."""

import json
from pathlib import Path

import pytest

from tests.rounds.test_rounds import settings
from tests.rounds.world_run import write
from tests.run.tiny import run, table


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[int, Path]:
    """Directories of the same run by the number of its processes."""
    root, directories = tmp_path_factory.mktemp("processes"), {}
    for processes in (1, 2):
        directories[processes] = root / f"run{processes}"
        made = settings(directories[processes], probe=True, prompts_per_round=8)
        # A batch that cannot be halved weighs its samples unequally over two processes: leave it out.
        made["data"]["batch_size"] = 4 // processes
        made["trainer"] |= {"devices": processes, "limit_train_batches": 2}
        made["trainer"]["strategy"] = "ddp" if processes == 2 else "auto"
        made["model"]["init_args"]["optimizer"]["class_path"] = "torch.optim.SGD"
        done = run("fit", "--config", write(root / f"{processes}.yaml", made), timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    return directories


@pytest.mark.slow
def test_two_processes_make_the_shards_of_one(runs):
    """The second round's come from policies that differ by rounding."""
    names = [path.relative_to(runs[1]) for path in runs[1].glob("rounds/1/**/*") if path.is_file()]
    assert sum(path.suffix == ".tar" for path in names) == 1
    assert sum(path.suffix == ".jsonl" for path in names) == 6
    for name in names:
        assert (runs[2] / name).read_bytes() == (runs[1] / name).read_bytes(), name
    for directory in runs.values():
        assert (directory / "rounds/2/manifest.json").is_file()


@pytest.mark.slow
def test_two_processes_train_as_one(runs):
    for column in ("train/loss", "train/logps/chosen", "train/rewards/margins"):
        one, two = (table(runs[processes], column) for processes in (1, 2))
        assert list(one) == list(two) == [0, 1, 2, 3]
        for step in (0, 1):
            assert float(two[step]) == pytest.approx(float(one[step]), rel=1e-5, abs=1e-5), (column, step)
    assert float(table(runs[2], "train/rewards/chosen")[2]) == 0


@pytest.mark.slow
def test_two_processes_write_one_ledger(runs):
    ledgers = [json.loads((runs[processes] / "rounds/ledger.json").read_text()) for processes in (1, 2)]
    assert [list(entries) for entries in ledgers] == [["0", "1", "2"]] * 2
    for name in ("pairs", "manifest", "drops", "notes", "agreement"):
        assert ledgers[0]["1"][name] == ledgers[1]["1"][name]
    assert ledgers[0]["0"]["figures"] == ledgers[1]["0"]["figures"]
    for entries in ledgers:
        assert {"generate", "train", "measure"} <= set(entries["2"]["seconds"])
    files = [sorted(path.name for path in runs[processes].iterdir()) for processes in (1, 2)]
    assert files[0] == files[1] and "summary.json" in files[0]
