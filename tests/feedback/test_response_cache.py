"""Answers on disk: by several processes, through kills, and what is said of a file that is no cache."""

import multiprocessing
import os
import pickle
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlaifv_pl.feedback.engines.response_cache import CHUNK, CacheFileError, ResponseCache

FORK = multiprocessing.get_context("fork")


def test_what_was_put_is_got_and_stays_as_it_was(tmp_path):
    cache = ResponseCache(tmp_path / "deep" / "answers.db")
    assert cache.get(["a"]) == {}
    cache.put({"a": {"b": [1, 2.5, None, "\u00e9"]}, "c": ""})
    cache.put({"a": "another", "d": 0})
    assert cache.get(["d", "a", "x"]) == {"a": {"b": [1, 2.5, None, "\u00e9"]}, "d": 0}
    assert ResponseCache(cache.path).get(["c"]) == {"c": ""}


def test_more_keys_than_one_statement_takes(tmp_path):
    cache = ResponseCache(tmp_path / "answers.db")
    answers = {str(number): number for number in range(2 * CHUNK + 1)}
    cache.put(answers)
    assert cache.get(list(answers)) == answers


def test_without_a_file_values_last_as_long_as_the_object():
    cache = ResponseCache(":memory:")
    cache.put({"a": 1})
    assert cache.get(["a"]) == {"a": 1}
    assert ResponseCache(":memory:").get(["a"]) == {}


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", float("nan"), float("inf")])
def test_values_are_json_and_all_or_none_are_kept(tmp_path, value):
    cache = ResponseCache(tmp_path / "answers.db")
    with pytest.raises((TypeError, ValueError)):
        cache.put({"good": 1, "bad": value})
    assert cache.get(["good", "bad"]) == {}


def test_a_pickle_in_the_file_is_never_loaded(tmp_path):
    cache = ResponseCache(tmp_path / "answers.db")
    cache.put({"a": 1})
    with sqlite3.connect(cache.path) as file:
        file.execute("UPDATE answers SET value = ?", (pickle.dumps(1),))
    with pytest.raises(CacheFileError, match="move it away"):
        ResponseCache(cache.path).get(["a"])


def _write(path: str, name: str, count: int) -> None:
    cache = ResponseCache(path)
    for number in range(count):
        cache.put({f"{name}{number}": name, f"both{number}": name})


def test_processes_and_threads_write_at_once(tmp_path):
    path = str(tmp_path / "answers.db")
    writers = [FORK.Process(target=_write, args=(path, name, 100)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    with ThreadPoolExecutor(2) as threads:
        shared = ResponseCache(path)
        list(threads.map(lambda number: shared.put({f"c{number}": number}), range(100)))
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    kept = ResponseCache(path).get(
        [f"{name}{number}" for name in ("a", "b", "c", "both") for number in range(100)]
    )
    assert len(kept) == 400
    assert {kept[f"both{number}"] for number in range(100)} <= {"a", "b"}


def _write_and_tell(path: str, finished) -> None:
    cache = ResponseCache(path)
    for number in range(100_000):
        cache.put({f"{number}-{part}": "x" * 500 for part in range(3)})
        finished.value = number + 1


def test_a_killed_writer_loses_nothing_that_was_finished_and_leaves_nothing_half(tmp_path):
    path = str(tmp_path / "answers.db")
    for _ in range(3):
        finished = FORK.Value("i", 0)
        writer = FORK.Process(target=_write_and_tell, args=(path, finished))
        writer.start()
        while finished.value < 20:
            time.sleep(0.002)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        cache = ResponseCache(path)
        keys = [f"{number}-{part}" for number in range(finished.value + 2) for part in range(3)]
        kept = cache.get(keys)
        assert set(keys[: 3 * finished.value]) <= set(kept)
        assert len(kept) % 3 == 0
        cache.put({"after": 1})


def foreign_database(path) -> None:
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE photos (name TEXT)")


def another_schema(path) -> None:
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE answers (id INTEGER, words TEXT)")


def damaged(path) -> None:
    ResponseCache(path).put({str(number): "x" * 100 for number in range(1000)})
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 100_000)


UNUSABLE = {
    "text": lambda path: path.write_text("not a database, but long enough to be looked at\n" * 10),
    "another program's database": foreign_database,
    "a table of another kind": another_schema,
    "damaged": damaged,
    "a directory": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_file_that_is_no_memory_is_named_and_left_alone(tmp_path, what):
    path = tmp_path / "answers.db"
    UNUSABLE[what](path)
    before = path.read_bytes() if path.is_file() else None
    for use in (lambda: ResponseCache(path).get(["1", "999"]), lambda: ResponseCache(path).put({"new": 1})):
        with pytest.raises(CacheFileError, match=r"answers\.db cannot be used as a cache.*another path"):
            use()
    assert before is None or path.read_bytes() == before


def test_a_path_below_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheFileError, match="cannot be used"):
        ResponseCache(tmp_path / "file" / "answers.db").get(["a"])
