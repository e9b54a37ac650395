"""Memory is what a step takes above what is held, and all ways of DPO that are measured train alike."""

import json
from functools import partial

import pytest
import torch

pytest.importorskip("trl")

from benchmarks import memory
from benchmarks.memory import Peak
from benchmarks.memory_ways import OBJECTIVE_WAYS, STEP_WAYS, WAYS, Job, with_second_model
from benchmarks.pairs import draw_pairs
from benchmarks.shapes import SHAPES, build
from benchmarks.trl_side import TRLSide

MB = 1 << 20


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return partial(Job, path=build("toy", tmp_path_factory.mktemp("memory") / "toy"), shape="toy", pairs=2)


def test_what_is_held_and_what_a_step_takes_are_told_apart(monkeypatch, capsys, tmp_path):
    def hungry(_job):
        held = []

        def step():
            held or held.append(torch.ones(60 * MB // 4))
            return torch.ones(150 * MB // 4).sum().item()

        return step

    monkeypatch.setitem(WAYS, "hungry", hungry)
    memory.child(memory.Job("hungry", tmp_path, "toy", 1))
    found = json.loads(capsys.readouterr().out)
    assert found["steady"] == pytest.approx(60 * MB, abs=3 * MB)
    assert found["transient"] == pytest.approx(150 * MB, abs=3 * MB)


def test_a_fresh_process_reports_its_step(toy):
    peak = memory.run(toy("ours, trees"))
    # The second loss, and so one that an update moved, but not far.
    assert 0 < peak.loss < 0.6931 - 1e-5 and peak.transient > 0
    with pytest.raises(RuntimeError, match="no such way"):
        memory.run(toy("no such way"))


def test_all_ways_take_the_same_two_steps(toy):
    losses = []
    for way in STEP_WAYS:
        step = WAYS[way](toy(way))
        losses.append((step(), step()))
    first, second = zip(*losses, strict=True)
    assert first == pytest.approx([0.693147] * 4, abs=1e-5)
    assert max(second) - min(second) < 1e-4 < first[0] - second[0] - 1e-3


@pytest.mark.parametrize("lora", [False, True])
def test_adapters_train_alike_too_and_the_second_model_is_one(toy, lora):
    steps = [WAYS[way](toy(way, lora=lora)) for way in OBJECTIVE_WAYS[1:]]
    one, *others = [(step(), step()) for step in steps]
    assert one[0] == pytest.approx(0.693147, abs=1e-5) and one[1] < one[0] - 1e-5
    assert all(other == pytest.approx(one, abs=1e-5) for other in others)
    module = with_second_model(toy("", lora=lora))
    own = {p.data_ptr() for p in module.policy.parameters()}
    assert own.isdisjoint(p.data_ptr() for p in module.reference.copy.parameters())


def test_trl_computes_activations_again(toy, tmp_path):
    pairs = draw_pairs(2, 0, SHAPES["toy"].vocabulary)
    again, plain = (
        TRLSide(toy("").path, pairs, None, 1e-4, tmp_path, checkpointing=checkpointing)
        for checkpointing in (True, False)
    )
    decoder = again.trainer.model.get_decoder()
    ran = []
    # Before, since the second time ends as soon as all that was not kept is there again.
    decoder.layers[0].mlp.register_forward_pre_hook(lambda *_: ran.append(1))
    found = [side.backward(side.collate(pairs), answers_only=True) for side in (again, plain)]
    assert len(ran) == 2 and found[0] == pytest.approx(found[1], rel=1e-5)


def test_ratios_are_of_the_peers(monkeypatch):
    peaks = {
        "TRL": Peak(800e6, 4000e6, 0.5),
        "TRL, head on answers only": Peak(800e6, 800e6, 0.5),
        "ours, rows": Peak(800e6, 400e6, 0.5),
        "ours, trees": Peak(800e6, 200e6, 0.5),
        "nSFT": Peak(2000e6, 400e6, 9.0),
        "DPO, rows, a second model as reference": Peak(2500e6, 500e6, 0.5),
        "DPO, trees, our reference": Peak(2500e6, 140e6, 0.5),
        "DPO, trees, cached reference": Peak(2000e6, 412e6, 0.5),
    }
    monkeypatch.setattr(memory, "run", lambda job: peaks[job.way])
    steps, whole, lora = memory.measure("toy", repeats=2, weighty="toy")
    assert steps.rows[3] == ["ours, trees", 800, 200, 1000, 0.05, 0.25]
    assert whole.rows[0] == ["nSFT", 2000, 400, 2400, 0.8, 1.0]
    assert whole.rows[3] == ["DPO, trees, cached reference", 2000, 412, 2412, 0.804, 1.005]
    assert [row[0] for row in lora.rows] == list(OBJECTIVE_WAYS)
    peaks["ours, trees"] = Peak(800e6, 200e6, 0.51)
    with pytest.raises(AssertionError, match="losses differ"):
        memory.measure("toy", repeats=1, weighty="toy")
