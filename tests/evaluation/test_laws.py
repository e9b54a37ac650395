"""What holds of every metric: two processes are one, order and repetition change nothing, and misuse is refused."""

import json
import math
import pickle
import subprocess
import sys

import pytest
import torch

from tests.evaluation.every import SIZE, metrics
from tests.evaluation.two import SPLITS


def figures(name: str, numbers) -> dict[str, str]:
    metric, completions = metrics()[name]
    metric.update([completions[number] for number in numbers], list(numbers))
    return {figure: repr(value.item()) for figure, value in metric.compute().items()}


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> list[dict]:
    """What each of two processes computed, by split and metric."""
    home = tmp_path_factory.mktemp("two")
    outs = [home / f"{rank}.json" for rank in range(2)]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.evaluation.two", str(rank), str(home / "store"), str(out)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, out in enumerate(outs)
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
    return [json.loads(out.read_text()) for out in outs]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", metrics())
def test_two_processes_have_the_figures_of_one(together, name, split):
    """To the last bit, whatever was seen twice, and though a process has seen nothing."""
    whole = figures(name, sorted({*SPLITS[split][0], *SPLITS[split][1]}))
    assert together[0][split][name] == together[1][split][name] == whole


@pytest.mark.parametrize("name", metrics())
def test_neither_order_nor_repetition_matters(name):
    assert figures(name, [3, 1, 0, 6, 6, 2, 4, 5, 3]) == figures(name, range(SIZE))


@pytest.mark.parametrize("name", metrics())
def test_figures_of_nothing_are_nan_and_counts(name):
    metric, _ = metrics()[name]
    found = {figure: value.item() for figure, value in metric.compute().items()}
    assert (found.pop("n"), found.pop("n_missing")) == (0, SIZE)
    assert all(math.isnan(value) or figure.startswith("n_") for figure, value in found.items())


@pytest.mark.parametrize("name", metrics())
def test_forward_gives_the_batch_a_pickle_goes_on_and_a_reset_forgets(name):
    metric, completions = metrics()[name]
    alone = figures(name, [2])
    metric.update([completions[0]], [0])
    batch = metric([completions[2]], torch.tensor([2]))
    assert {figure: repr(value.item()) for figure, value in batch.items()} == alone
    assert {figure: repr(value.item()) for figure, value in metric.compute().items()} == figures(name, [0, 2])
    again = pickle.loads(pickle.dumps(metric))
    again.update([completions[1]], [1])
    assert {figure: repr(value.item()) for figure, value in again.compute().items()} == figures(
        name, [0, 1, 2]
    )
    metric.reset()
    assert metric.compute()["n"] == 0 and metric.state_dict() == {}


def test_item_numbers_are_checked():
    metric, _ = metrics()["pope"]
    with pytest.raises(ValueError, match="2 completions with 1 item numbers"):
        metric.update(["Yes", "No"], [0])
    with pytest.raises(ValueError, match=r"item numbers \[-1, 7\] are not among the 7 items of pope"):
        metric.update(["Yes", "No", "No"], [-1, 7, 2])
    assert metric.compute()["n"] == 0
