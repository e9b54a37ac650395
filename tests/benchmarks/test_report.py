"""What a benchmark found comes back out of the file of results, and a picture shows what its table says."""

import json

import matplotlib.pyplot as plt
import pytest

from benchmarks.race import Figures, Race
from benchmarks.report import record
from benchmarks.table import Table, draw

CURVE = Table(
    "Cost", ("claims", "naive", "ours", "who"), [[1, 2.0, 2.0, "a"], [8, None, 3.5, "b"]], "A note.", "c"
)


@pytest.fixture
def drawn(monkeypatch):
    """The axes of what was drawn last."""
    found = []
    monkeypatch.setattr(plt, "close", found.append)
    yield found
    monkeypatch.undo()
    plt.close("all")


def test_rows_come_as_they_are_and_absent_figures_stay_absent(tmp_path):
    text = record(tmp_path / "r.json", "cost", {"shape": "toy"}, [CURVE], "Holds for all.")
    assert "| claims | naive | ours | who |\n|---|---|---|---|\n| 1 | 2 | 2 | a |\n| 8 |  | 3.5 | b |" in text
    assert (
        text.index("Shape toy") < text.index("Holds for all.") < text.index("Cost.") < text.index("A note.")
    )
    assert "(pictures/c.png)" in text and (tmp_path / "pictures/c.png").stat().st_size > 1000
    assert text in (tmp_path / "RESULTS.md").read_text()


def test_a_benchmark_that_does_not_run_keeps_its_section(tmp_path):
    race = Race(
        "Step", "a", "losses", {"a": Figures(2.0, 1.0, (1.0, 1.0)), "b": Figures(1.0, 2.0, (1.9, 2.25))}
    )
    file = tmp_path / "r.json"
    before = record(file, "step", {"repeats": 3}, [race], "Of steps.")
    assert "| b | 1.00 | 2.00 | 1.90 to 2.25 |" in before and "Equal: losses." in before
    record(file, "cost", {}, [CURVE])
    after = (tmp_path / "RESULTS.md").read_text()
    assert before in after and "## cost" in after
    record(file, "cost", {}, [])
    assert "Cost." not in (tmp_path / "RESULTS.md").read_text()
    assert list(json.loads(file.read_text())) == ["step", "cost"]


def test_a_picture_has_a_line_for_each_column_of_numbers(tmp_path, drawn):
    draw(CURVE, tmp_path)
    (axes,) = drawn[0].axes
    assert [line.get_label() for line in axes.lines] == ["naive", "ours"]
    naive, ours = (line.get_ydata().tolist() for line in axes.lines)
    assert ours == [2.0, 3.5] and naive[0] == 2.0 and naive[1] != naive[1]
    assert axes.get_xlabel() == "claims" and axes.get_yscale() == "linear"


def test_a_log_picture_names_the_counts_that_were_run(tmp_path, drawn):
    counted = Table("Cost", ("claims", "ours"), [[1, 2.0], [64, 9.0]], "", "c", scale="log", unit="seconds")
    draw(counted, tmp_path)
    (axes,) = drawn[0].axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "64"]
    assert axes.get_ylabel() == "seconds"


def test_a_table_that_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match="expected 2 cells"):
        Table("Cost", ("a", "b"), [[1]])
    with pytest.raises(ValueError, match="numbers in the first column"):
        Table("Cost", ("a", "b"), [["x", 1]], picture="c")
    assert Table("Cost", ("a", "b"), [["x", 1]]).picture is None
