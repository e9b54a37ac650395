"""What runs on a GPU runs at toy size here: equal losses first, failures named, shares of the peak by hand."""

import json

import pytest
import torch

pytest.importorskip("trl")

from benchmarks import gpu
from benchmarks.flops import Lengths
from benchmarks.gpu import SETTINGS, Speed, figures, main, timed
from benchmarks.gpu_sides import Bench, OurSide, Way
from benchmarks.pairs import draw_pairs


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    file = tmp_path_factory.mktemp("gpu") / "results.json"
    only = [
        "LoRA of rank 64",
        "all weights, checkpointing, cached reference",
        "all weights, checkpointing, live reference",
    ]
    main(shape="toy", device="cpu", pairs=2, steps=1, only=only, json=file)
    return file


def test_all_ways_that_a_cpu_has_agree_and_are_timed(results):
    tables = json.loads(results.read_text())["gpu"]["tables"]
    ways = [[row[0] for row in table["rows"]] for table in tables]
    ours = ["rows", "dense", "split"]
    assert ways == [[*ours, "TRL"], ours, [*ours, "TRL"]]
    for table in tables:
        first, *others = table["rows"]
        assert abs(first[1] - 0.693147) > 3e-4 and first[2] > 0
        assert all(other[1:3] == pytest.approx(first[1:3], rel=1e-3) for other in others)
        assert all(row[3] > 0 and row[4:] == [None] * 3 for row in table["rows"])
        assert "flex failed: NotImplementedError" in table["note"] and "flash failed" in table["note"]


def test_the_reference_may_be_known_beforehand(results):
    cached, live = json.loads(results.read_text())["gpu"]["tables"][1:]
    assert cached["rows"][0][1:3] == pytest.approx(live["rows"][0][1:3], rel=1e-4)


@pytest.fixture
def bench():
    return Bench("toy", torch.device("cpu"), [draw_pairs(2, seed, 64) for seed in range(3)], steps=2)


def test_a_way_that_disagrees_or_fails_is_named_and_not_timed(bench):
    stepped = []

    def fail(_number):
        raise RuntimeError("no kernel\nat all")

    ways = {
        "broken": Way(fail, fail),
        "right": Way(lambda _: (0.7, 2.0), lambda number: stepped.append(number)),
        "other loss": Way(lambda _: (0.8, 2.0), fail),
        "other norm": Way(lambda _: (0.7, 2.1), fail),
        "breaks later": Way(lambda _: (0.7, 2.0), fail),
    }
    notes = []
    found = timed(ways, bench, notes)
    assert list(found) == ["right"] and stepped == [0, 1, 2, 0, 1]
    assert [note.split(" ")[0] for note in notes] == ["broken", "other", "other", "breaks"]
    assert notes[0] == "broken failed: RuntimeError: no kernel."
    assert timed({"late": Way(lambda _: (0.8, 2.0), fail)}, bench, notes, found["right"]) == {}


def test_a_pair_is_as_long_as_its_tokens(bench):
    side = OurSide(bench, SETTINGS["LoRA of rank 64"])
    answers = [len(text.split()) + 1 for pair in bench.drawn[0] for text in (pair.chosen, pair.rejected)]
    # <s> user: ... 576 times <image>, the words, assistant: - and what the answers happen to begin with alike.
    for pair, length in zip(bench.drawn[0], side.lengths[:2], strict=True):
        assert length.prompt - len(pair.prompt.split()) - 576 in (3, 4)
    assert [n for length in side.lengths[:2] for n in length[1:]] == pytest.approx(answers, abs=1)


def test_shares_of_the_peak_are_of_this_way_and_of_the_least(monkeypatch):
    monkeypatch.setattr(gpu, "device_name", lambda _: "NVIDIA H100 80GB HBM3")
    bench = Bench("7b", torch.device("cpu"), [], 1)
    pairs, speed = [Lengths(614, 112, 112)], Speed(0.7, 1.0, 8.9, 70e9)
    live = SETTINGS["all weights, checkpointing, live reference"]
    # 44.7 TFLOP a pair with shared prefixes, 33.3 at least, of 989 TFLOP a second.
    *_, pairs_a_second, mfu, share, memory = figures(speed, "split", live, bench, pairs)
    assert (pairs_a_second, memory) == (8.9, 70.0)
    assert (mfu, share) == pytest.approx((44.7 * 8.9 / 989, 33.3 * 8.9 / 989), abs=1e-3)
    assert figures(speed, "rows", live, bench, pairs)[3] == pytest.approx(76.9 * 8.9 / 989, abs=1e-3)
    cached = SETTINGS["all weights, checkpointing, cached reference"]
    assert figures(speed, "flex", cached, bench, pairs)[3] == pytest.approx(33.7 * 8.9 / 989, abs=1e-3)
