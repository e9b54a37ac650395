"""Costs are of equal answers, and a way that takes too long is let go."""

import pytest

pytest.importorskip("trl")

from benchmarks import cost
from benchmarks.dpo_step import OurSide
from benchmarks.shapes import build


def test_all_ways_answer_alike_at_all_counts():
    claims, candidates, pairs = cost.measure("toy", repeats=1, counts=(1, 3))
    assert claims.columns == ("claims", "one forward a claim", "shared prefix", "times as fast")
    assert candidates.columns[1:3] == ("n calls", "shared prefix")
    assert pairs.columns[1:4] == ("rows", "a tree for each pair", "one tree")
    for table in (claims, candidates, pairs):
        assert [row[0] for row in table.rows] == [1, 3] and table.scale == "log"
        assert all(seconds > 0 for row in table.rows for seconds in row[1:-1])
        assert isinstance(table.rows[0][-1], str)


@pytest.fixture
def side(tmp_path):
    return OurSide(build("toy", tmp_path / "toy"), None)


def test_gradients_of_pairs_tell_right_from_wrong(side, monkeypatch):
    cost._move(side)
    answers = [way() for way in cost.pair_ways(side, "toy", 3).values()]
    for loss, norm in (answer[0] for answer in answers[1:]):
        assert (loss, norm) == pytest.approx(answers[0][0], abs=1e-5)
    assert abs(answers[0][0][0] - 0.6931) > 1e-3
    other = cost.pair_ways(side, "toy", 2)["one tree"]()
    assert other[0] != pytest.approx(answers[0][0], abs=1e-3)


def test_a_slow_way_is_asked_for_no_more_and_unequal_answers_are_refused(monkeypatch):
    spent = {"naive": lambda count: 4.0 * count, "ours": lambda count: 20.0 + count}
    now = [0.0]

    def ways(count):
        def way(name):
            now[0] += spent[name](count)
            return [[1.0]]

        return {name: lambda name=name: way(name) for name in spent}

    monkeypatch.setattr(cost, "time", type("Clock", (), {"process_time": lambda: now[0]}))
    table = cost.cost("claims", ways, (1, 2, 4, 8), repeats=2)
    # Beyond the limit once, at 4, and absent from then on; ours is never let go.
    assert [row[1] for row in table.rows] == [4.0, 8.0, 16.0, None]
    assert [row[2] for row in table.rows] == [21.0, 22.0, 24.0, 28.0]
    assert [row[3] for row in table.rows] == ["0.19", "0.36", "0.67", None]
    with pytest.raises(AssertionError, match="answers differ"):
        cost.cost("claims", lambda _: {"naive": lambda: [[1.0]], "ours": lambda: [[1.1]]}, (1,), 1)
