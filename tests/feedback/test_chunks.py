"""Parts: whole or absent, each made once, whoever makes them and whatever kills them."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlaifv_pl.feedback import chunks as module
from rlaifv_pl.feedback.chunks import Chunks, RankShare, wait_for
from tests.training.tiny import REPOSITORY, environment

COUNT, SIZE = 10, 3


def parts(root: Path, *, stage: str = "think", recipe: dict | None = None, count=COUNT, size=SIZE) -> Chunks:
    return Chunks(root, stage, recipe or {"how": "well"}, count, size)


def squares(some: range) -> Iterator[dict]:
    return ({"number": number, "text": f"{number}²\n\u2028"} for number in some)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_rows_come_back_in_order_whatever_characters_they_hold(tmp_path):
    work = parts(tmp_path)
    assert list(work.make(squares)) == [3, 3, 3, 1]
    assert list(work.rows()) == list(squares(range(COUNT)))
    assert work.read(3) == list(squares(range(9, 10)))
    assert sorted(map(os.path.basename, files(tmp_path))) == [f"part-00000{n}.jsonl" for n in range(4)]


def test_a_part_that_is_dropped_is_made_anew(tmp_path):
    work = parts(tmp_path)
    list(work.make(squares))
    work.drop(1)
    asked = []
    list(work.make(lambda some: asked.append(some) or squares(some)))
    assert asked == [range(3, 6)] and list(work.rows()) == list(squares(range(COUNT)))


def test_work_over_no_records_has_no_parts(tmp_path):
    work = parts(tmp_path, count=0)
    assert list(work.make(squares)) == [] and list(work.rows()) == []
    work.wait(0)


def test_a_part_that_is_there_is_not_made_again(tmp_path):
    list(parts(tmp_path).make(squares))
    again = parts(tmp_path)
    assert list(again.make(lambda some: pytest.fail(f"made {some} again"))) == [3, 3, 3, 1]


def test_an_exception_in_a_part_leaves_the_ones_before_and_nothing_of_its_own(tmp_path):
    def breaks(some: range) -> Iterator[dict]:
        for row in squares(some):
            if row["number"] == 7:
                raise RuntimeError("seven")
            yield row

    with pytest.raises(RuntimeError, match="seven"):
        list(parts(tmp_path).make(breaks))
    left = files(tmp_path)
    assert sorted(map(os.path.basename, left)) == ["part-000000.jsonl", "part-000001.jsonl"]
    made = []
    work = parts(tmp_path)
    list(work.make(lambda some: made.append(some) or squares(some)))
    assert made == [range(6, 9), range(9, 10)]
    assert {name: files(tmp_path)[name] for name in left} == left
    assert list(work.rows()) == list(squares(range(COUNT)))


def test_a_row_that_is_no_json_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        list(parts(tmp_path).make(lambda some: [{"value": float("nan")} for _ in some]))
    assert files(tmp_path) == {}


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.feedback.test_chunks import parts, squares
write = os.fsync
def die(descriptor):
    if os.path.realpath(f"/proc/self/fd/{descriptor}").endswith("part-000002.jsonl.part"):
        os.kill(os.getpid(), signal.SIGKILL)
    write(descriptor)
os.fsync = die
list(parts(Path(sys.argv[1])).make(squares))
"""


def test_a_process_killed_while_it_writes_leaves_whole_parts_only(tmp_path):
    """The third file is full of data, but was not on disk yet when the process died."""
    whole = files_of_whole(tmp_path / "whole")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed")], env=environment(), cwd=REPOSITORY
    )
    assert done.returncode == -signal.SIGKILL
    left = {name: data for name, data in files(tmp_path / "killed").items() if name.endswith(".jsonl")}
    assert len(left) == 2 and left.items() <= whole.items()
    assert [parts(tmp_path / "killed").is_made(number) for number in range(4)] == [True, True, False, False]
    list(parts(tmp_path / "killed").make(squares))
    assert files(tmp_path / "killed") == whole


def files_of_whole(root: Path) -> dict[str, bytes]:
    list(parts(root).make(squares))
    return files(root)


@pytest.mark.parametrize("of", [2, 3, 5])
def test_several_processes_leave_the_files_of_one(tmp_path, of):
    whole = files_of_whole(tmp_path / "whole")
    made = []
    for rank in reversed(range(of)):
        work = parts(tmp_path / "shared")
        list(work.make(lambda some: made.append(some) or squares(some), RankShare(rank, of)))
        assert [number for number in range(4) if number % of == rank and not work.is_made(number)] == []
    assert files(tmp_path / "shared") == whole
    assert sorted(made, key=lambda some: some.start) == parts(tmp_path).slices


@pytest.mark.parametrize(
    "change", [{"recipe": {"how": "badly"}}, {"count": 11}, {"size": 4}, {"stage": "guess"}]
)
def test_another_recipe_count_size_or_stage_has_other_files(tmp_path, change):
    list(parts(tmp_path).make(squares))
    other = parts(tmp_path, **change)
    assert other.directory != parts(tmp_path).directory and other.hash != parts(tmp_path).hash
    assert not any(map(other.is_made, range(len(other.slices))))


def test_waiting_for_a_part_that_never_comes_ends_with_a_message(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    work = parts(tmp_path)
    list(work.make(squares, RankShare(0, 2)))
    with pytest.raises(TimeoutError, match=r"2 parts of other .* first is part-000001\.jsonl.* in 0\.05 sec"):
        work.wait(0.05)
    with pytest.raises(TimeoutError, match=r"Waited 0\.05 seconds for the moon"):
        wait_for(lambda: False, "the moon", 0.05)


def test_each_new_part_renews_the_patience(tmp_path, monkeypatch):
    """Two parts of another process come 0.4 s apart: longer together than a patience of 0.6 s."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    work = parts(tmp_path)
    list(work.make(squares, RankShare(0, 2)))
    pause = threading.Event()

    def slowly(some: range) -> Iterator[dict]:
        pause.wait(0.4)
        return squares(some)

    other = threading.Thread(target=lambda: list(parts(tmp_path).make(slowly, RankShare(1, 2))))
    other.start()
    work.wait(0.6)
    other.join()
    assert list(work.rows()) == list(squares(range(COUNT)))
