"""Curves are of real steps, and ones that part or stand still are not shown as equal."""

import pytest

pytest.importorskip("trl")

from benchmarks import curves


def test_curves_lie_on_each_other(monkeypatch):
    # A fast rate, for a model too small for a slow one to move it.
    monkeypatch.setattr(curves, "RATE", 1e-3)
    (table,) = curves.measure("toy", repeats=3, batches=2, pairs=1)
    assert [row[0] for row in table.rows] == list(range(6))
    assert table.rows[0][1:4] == pytest.approx([0.693147] * 3, abs=1e-5)
    for _, trl, rows, trees, off in table.rows:
        assert off == pytest.approx(max(trl, rows, trees) - min(trl, rows, trees), abs=2e-7)
    # Each batch comes again, and is learned.
    assert table.rows[4][1] < table.rows[2][1] < table.rows[0][1] - 1e-3


def test_curves_that_part_are_refused():
    fine = [[0, 0.69, 0.69, 0.69], [1, 0.5, 0.5, 0.5001]]
    assert curves.compare(fine, "").rows[1] == [1, 0.5, 0.5, 0.5001, pytest.approx(1e-4)]
    with pytest.raises(AssertionError, match=r"differ by up to 0\.1"):
        curves.compare([*fine, [2, 0.4, 0.3, 0.4]], "")
    with pytest.raises(AssertionError, match="say nothing"):
        curves.compare(fine[:1] * 3, "")
