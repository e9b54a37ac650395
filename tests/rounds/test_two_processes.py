"""Rounds of two processes, each with a policy or with a slice of it, = rounds of one: shards, losses, ledger."""

import json
from pathlib import Path

import pytest

from tests.rounds.test_rounds import settings
from tests.rounds.world_run import write
from tests.training.tiny import run, table

WAYS = {"one": "auto", "ddp": "ddp", "slices": {"class_path": "rlaifv_pl.training.fsdp.FSDP2Strategy"}}
"""Strategies; all but the first are of two processes."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Directories of the same run by its way."""
    root, directories = tmp_path_factory.mktemp("processes"), {}
    for way, strategy in WAYS.items():
        processes = 1 if way == "one" else 2
        directories[way] = root / way
        made = settings(directories[way], evaluator=True, prompts_per_round=8)
        # A batch that cannot be halved weighs its samples unequally over two processes: leave it out.
        made["data"]["batch_size"] = 4 // processes
        made["trainer"] |= {"devices": processes, "limit_train_batches": 2}
        made["trainer"]["strategy"] = strategy
        made["model"]["init_args"]["optimizer"]["class_path"] = "torch.optim.SGD"
        done = run("fit", "--config", write(root / f"{way}.yaml", made), timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    return directories


@pytest.fixture(params=["ddp", "slices"])
def two(request, runs) -> Path:
    return runs[request.param]


@pytest.mark.slow
def test_two_processes_make_the_shards_of_one(runs, two):
    """The second round's come from policies that differ by rounding."""
    one = runs["one"]
    names = [path.relative_to(one) for path in one.glob("rounds/1/**/*") if path.is_file()]
    assert sum(path.suffix == ".tar" for path in names) == 1
    assert sum(path.suffix == ".jsonl" for path in names) == 7
    for name in names:
        assert (two / name).read_bytes() == (one / name).read_bytes(), name
    for directory in (one, two):
        assert (directory / "rounds/2/manifest.json").is_file()


@pytest.mark.slow
def test_two_processes_train_as_one(runs, two):
    for column in ("train/loss", "train/logps/chosen", "train/rewards/margins"):
        alone, together = (table(run, column) for run in (runs["one"], two))
        assert list(alone) == list(together) == [0, 1, 2, 3]
        for step in (0, 1):
            assert float(together[step]) == pytest.approx(float(alone[step]), rel=1e-5, abs=1e-5), column
    assert float(table(two, "train/rewards/chosen")[2]) == 0, "the policy is its own reference again"


@pytest.mark.slow
def test_two_processes_write_one_ledger(runs, two):
    ledgers = [json.loads((run / "rounds/ledger.json").read_text()) for run in (runs["one"], two)]
    assert [list(entries) for entries in ledgers] == [["0", "1", "2"]] * 2
    for name in ("pairs", "manifest", "drops", "notes", "agreement"):
        assert ledgers[0]["1"][name] == ledgers[1]["1"][name]
    assert ledgers[0]["0"]["figures"] == ledgers[1]["0"]["figures"]
    for entries in ledgers:
        assert {"generate", "train", "measure"} <= set(entries["2"]["seconds"])
    files = [sorted(path.name for path in run.iterdir()) for run in (runs["one"], two)]
    assert files[0] == files[1] and "summary.json" in files[0]
