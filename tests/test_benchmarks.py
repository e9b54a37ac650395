"""The benchmarks run, and what they time is equal work; the figures themselves are nobody's test."""

import json

from benchmarks import feedback


def test_feedback_is_timed_against_its_peers(tmp_path):
    file = tmp_path / "feedback.json"
    feedback.main(shape="toy", repeats=1, claims=[3], candidates=[2], new_tokens=4, json_file=file)
    results = json.loads(file.read_text())["results"]
    assert list(results) == ["conquer, 3 claims", "generate, n=2"]
    for ways in results.values():
        first, *_, ours = ways.values()
        assert first["ratio"] == 1.0 and ours["seconds"] > 0
