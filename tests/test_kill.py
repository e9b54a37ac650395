"""The short form of `python -m tests.kill`; rounds have moments of their own in tests/rounds/test_killed.py."""

import pytest

from tests import kill


@pytest.mark.slow
@pytest.mark.parametrize("what", ["fit", "feedback"])
def test_killed_runs_leave_what_unkilled_ones_leave(what, capsys, monkeypatch):
    monkeypatch.setattr(kill, "OBJECTIVES", {"DPOModule": {"reference": "cached"}})  # The long form has all.
    kill.main(what, kills=1, seed=7)
    assert "files equal" in capsys.readouterr().out


def test_a_difference_is_an_error(monkeypatch, tmp_path):
    """Work that leaves something else each time."""
    left = iter(range(100))
    work = kill.Work(
        lambda directory: None,
        lambda directory: [["sleep", "0.2"]],
        lambda directory: {"file": bytes([next(left)])},
    )
    monkeypatch.setitem(kill.WORKS, "fit", work)
    with pytest.raises(SystemExit, match=r"after \[[01]\] kills \['file'\] differ"):
        kill.main("fit", kills=1)
