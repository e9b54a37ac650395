"""The benchmark of trees runs, and what it times is equal work; the figures themselves are nobody's test."""

import json

from benchmarks import prefix_tree


def test_trees_are_timed_against_rows_of_equal_loss(tmp_path):
    file = tmp_path / "prefix_tree.json"
    prefix_tree.main(shape="toy", repeats=1, pairs=2, json=file)
    found = json.loads(file.read_text())
    assert list(found["results"]) == ["rows", "dense", "split"]
    assert found["results"]["rows"]["ratio"] == 1.0
    assert 1.5 < found["token_ratio"] < 2
    losses = [way["loss"] for way in found["results"].values()]
    assert max(losses) - min(losses) < 1e-4 and abs(losses[0] - 0.693147) > 1e-5
