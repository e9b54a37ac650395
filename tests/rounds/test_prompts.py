"""Which prompts a round answers: none that an earlier one has, however often a run is prolonged."""

from pathlib import Path

import pytest

from rlaifv_pl.data.shards import ShardWriter, load_shards
from rlaifv_pl.objectives.base import RunError
from rlaifv_pl.records import Sample
from rlaifv_pl.rounds.prompts import next_prompts
from tests.rounds.test_rounds import answered, settings, start


@pytest.fixture
def shards(tmp_path):
    with ShardWriter(tmp_path / "prompts", recipe={}) as writer:
        for number in range(12):
            writer.write(Sample(key=f"p{number}", prompt="?"))
    return load_shards(tmp_path / "prompts")


def taken_by(shards, *rounds: tuple[int, int | None], repeat: bool = False) -> list[list[str]]:
    """Keys by round, of pairs of the rounds still to come and prompts_per_round."""
    found: list[list[str]] = []
    for left, many in rounds:
        before = {key for keys in found for key in keys}
        found.append(next_prompts(shards, before, 7, rounds=left, count=many, repeat=repeat).keys())
    return found


def test_what_is_left_is_shared_equally(shards):
    assert [len(keys) for keys in taken_by(shards, (3, None), (2, None), (1, None))] == [4, 4, 4]
    assert len({key for keys in taken_by(shards, (2, None), (3, None), (2, None)) for key in keys}) == 10
    assert [len(keys) for keys in taken_by(shards, (2, None), (3, None), (2, None))] == [6, 2, 2]


def test_a_prolonged_run_repeats_no_prompt_unless_told(shards):
    with pytest.raises(RunError, match=r"0 of 12 .*rounds\.repeat_prompts"):
        taken_by(shards, (1, None), (1, None))
    first, second = taken_by(shards, (1, None), (1, None), repeat=True)
    assert sorted(first) == sorted(second) and len(first) == 12
    first, second = taken_by(shards, (1, 8), (1, 8), repeat=True)
    assert len(set(second) - set(first)) == 4 and len(second) == 8


@pytest.mark.slow
def test_a_finished_run_that_is_prolonged_answers_other_prompts(tmp_path):
    """One round, then two, then three."""
    rounds = tmp_path / "run" / "rounds"
    found: list[set[str]] = []
    for number in (1, 2, 3):
        made = settings(tmp_path / "run", number=number, prompts_per_round=4)
        start(made, *(["--ckpt_path", "last"] if number > 1 else []))
        found.append(set(answered(rounds / str(number))))
    assert len(set().union(*found)) == sum(map(len, found)) == 12


@pytest.mark.slow
def test_without_prompts_per_round_a_prolonged_run_says_that_none_are_left(tmp_path):
    start(settings(tmp_path / "run", number=1, prompts_per_round=None))
    with pytest.raises((RunError, SystemExit), match=r"no earlier round has answered"):
        start(settings(tmp_path / "run", number=2, prompts_per_round=None), "--ckpt_path", "last")
    assert not (Path(tmp_path) / "run" / "rounds" / "2" / "stages").exists()
