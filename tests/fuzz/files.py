"""Sources of an import that are damaged as a whole, are tables of something else, or are no files."""

import json
import os
import random
from collections.abc import Callable
from typing import Any

import pyarrow
from pyarrow import parquet

from tests.fuzz.base import COUNT, Case
from tests.fuzz.sources import FAMILIES, Row, rows


def _damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 20])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


WHOLES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flipped": _damaged,
    "flipped again": _damaged,
    "flipped once more": _damaged,
    "flipped at the end": lambda data, rng: data[:-400] + _damaged(data[-400:], rng),
    "cut": lambda data, rng: data[: rng.randrange(len(data))],
    "cut in front": lambda data, rng: data[rng.randrange(1, len(data)) :],
    "without its middle": lambda data, rng: data[: len(data) // 3] + data[len(data) // 2 :],
    "twice": lambda data, rng: data * 2,
    "empty": lambda data, rng: b"",
    "noise": lambda data, rng: rng.randbytes(1000),
    "zeros": lambda data, rng: bytes(1000),
    "marks alone": lambda data, rng: b"PAR1" + rng.randbytes(40) + (36).to_bytes(4, "little") + b"PAR1",
    "a footer of gigabytes": lambda data, rng: data[:-8] + b"\xff\xff\xff\x7fPAR1",
    "a byte order mark": lambda data, rng: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data, rng: data.decode(errors="replace").encode("utf-16"),
    "HTML": lambda data, rng: b"<html>404</html>",
}


def filed(case: Case) -> None:
    """The file is damaged as a whole."""
    suffix = case.rng.choice(["json", "jsonl", "parquet"])
    path = case.here / "sources" / f"rows.{suffix}"
    if suffix == "parquet":
        _write_parquet(case, rows(case, case.rng.choice(["trl", "rlaifv"]), embedded=True))
    else:
        made = rows(case, case.rng.choice(sorted(FAMILIES)))
        path.write_text(json.dumps(made) if suffix == "json" else "\n".join(map(json.dumps, made)))
    name = case.pick(WHOLES)
    path.write_bytes(WHOLES[name](path.read_bytes(), case.rng))
    case.note(f"{path.name} {name}")


def _write_parquet(case: Case, made: list[Row]) -> None:
    path = case.here / "sources" / "rows.parquet"
    groups = case.rng.choice([3, 100])
    parquet.write_table(
        pyarrow.Table.from_pylist(made), path, row_group_size=groups, write_page_checksum=True
    )


TABLES: dict[str, Callable[[list[Row]], pyarrow.Table]] = {
    "no rows": lambda made: pyarrow.Table.from_pylist(made).slice(0, 0),
    "no columns": lambda made: pyarrow.table({}),
    "other columns": lambda made: pyarrow.table({"a": [1, 2], "b": ["x", None]}),
    "numbers": lambda made: pyarrow.table(
        {"prompt": [1], "chosen": [2.5], "rejected": [True], "images": [3]}
    ),
    "nulls": lambda made: pyarrow.table({"prompt": [None], "chosen": [None], "rejected": [None]}),
    "dates": lambda made: _with(made, "idx", pyarrow.array([10**18] * COUNT, pyarrow.timestamp("ns"))),
    "dates beyond dates": lambda made: _with(
        made, "idx", pyarrow.array([2**62] * COUNT, pyarrow.timestamp("ms"))
    ),
    "durations": lambda made: _with(made, "idx", pyarrow.array([1] * COUNT, pyarrow.duration("s"))),
    "decimals": lambda made: _with(made, "idx", pyarrow.array([1] * COUNT).cast(pyarrow.decimal128(30, 2))),
    "bytes as text": lambda made: _with(made, "prompt", pyarrow.array([b"\xff\xfe"] * COUNT)),
    "text of broken UTF-8": lambda made: _with(made, "prompt", _broken_text()),
    "maps": lambda made: _with(
        made, "idx", pyarrow.array([[("a", 1)]] * COUNT, pyarrow.map_(pyarrow.string(), pyarrow.int64()))
    ),
    "not a number": lambda made: _with(made, "idx", pyarrow.array([float("nan")] * COUNT)),
    "a long text": lambda made: _with(made, "chosen", pyarrow.array([" " * 2**20 + "x"] * COUNT)),
    "two columns of a name": lambda made: pyarrow.Table.from_pylist(made).append_column(
        "chosen", pyarrow.array(["x"] * COUNT)
    ),
}


def _with(made: list[Row], name: str, column: pyarrow.Array) -> pyarrow.Table:
    table = pyarrow.Table.from_pylist(made)
    if name in table.column_names:
        table = table.drop_columns([name])
    return table.append_column(name, column)


def _broken_text() -> pyarrow.Array:
    data = pyarrow.array([b"\xff\xfe"] * COUNT)
    return pyarrow.Array.from_buffers(pyarrow.string(), COUNT, data.buffers())


def tabled(case: Case) -> None:
    """A parquet file of other columns, or of other types."""
    made = rows(case, "trl", embedded=True)
    name = case.pick(TABLES)
    case.note(f"table: {name}")
    parquet.write_table(TABLES[name](made), case.here / "sources" / "rows.parquet", coerce_timestamps=None)


PLACES: dict[str, Callable[[Any], object]] = {
    "no source": lambda path: None,
    "directory with a pipe": lambda path: os.mkfifo(path / "x.json"),
    "directory with a directory": lambda path: (path / "x.json").mkdir(),
    "saved data set without data": lambda path: (path / "dataset_info.json").write_text("{}"),
    "saved data set of noise": lambda path: (
        (path / "dataset_info.json").write_text("{"),
        (path / "state.json").write_text("["),
    ),
    "saved data set of a path": lambda path: (
        (path / "dataset_info.json").write_text("{}"),
        (path / "state.json").write_text(
            '{"_data_files": [{"filename": "../canary/secret.json"}], "_split": "x"}'
        ),
    ),
    "splits that are none": lambda path: (path / "dataset_dict.json").write_text('{"splits": []}'),
    "splits of noise": lambda path: (path / "dataset_dict.json").write_text("{"),
    "splits of nothing": lambda path: (path / "dataset_dict.json").write_text("{}"),
    "a circle": lambda path: (path / "x.json").symlink_to("x.json"),
    "a link to nowhere": lambda path: (path / "x.json").symlink_to("gone.json"),
    "a file that is a pipe": lambda path: os.mkfifo(path / "rows.json"),
}


def placed(case: Case) -> None:
    """What is to be imported is not a file."""
    (case.here / "sources").mkdir()
    name = case.pick(PLACES)
    case.note(f"source: {name}")
    PLACES[name](case.here / "sources")


KINDS = {"import file": filed, "import table": tabled, "import place": placed}
