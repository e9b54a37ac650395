"""A bad row is named and counted, not guessed at, and a bad source says what to do."""

import json
import os
import random
import re
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.formats import FORMATS, group_rows
from rlaifv_pl.data.importers.images import ImageLoader
from rlaifv_pl.data.importers.importer import import_shards
from rlaifv_pl.data.importers.messages import simplify
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.sources import Source, SourceError
from rlaifv_pl.data.manifest import ManifestError, read_manifest
from rlaifv_pl.data.schema import check_sample, encode_sample
from rlaifv_pl.data.shards import load_shards
from tests.data.rows import PAIR, assistant, dropped, imported, odd_value
from tests.data.samples import bomb, picture

JPEG = picture()


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        (PAIR | {"chosen": None}, Reason.MISSING_ANSWER, "chosen is missing"),
        (PAIR | {"chosen": ""}, Reason.EMPTY_ANSWER, "chosen is ''"),
        (PAIR | {"chosen": "Six."}, Reason.EQUAL_ANSWERS, "both 'Six.'"),
        (PAIR | {"prompt": ""}, Reason.EMPTY_PROMPT, "no turn of the user"),
        (PAIR | {"prompt": 4}, Reason.WRONG_TYPE, "prompt: expected a text or messages"),
        (PAIR | {"chosen": 4}, Reason.WRONG_TYPE, "chosen: expected a text or one assistant message"),
        (PAIR | {"chosen": [assistant("A"), assistant("B")]}, Reason.WRONG_TURNS, "chosen: expected one"),
        (
            PAIR | {"prompt": "<image> <image> Compare.", "image": "1.jpg"},
            Reason.IMAGE_COUNT,
            "2 image blocks",
        ),
        (PAIR | {"prompt": "<image> What?"}, Reason.IMAGE_COUNT, "there are 0 images"),
        (PAIR | {"image": "2.jpg"}, Reason.MISSING_IMAGE, "cannot read image '2.jpg'"),
        (PAIR | {"image": "broken.jpg"}, Reason.UNDECODABLE_IMAGE, "cannot decode an image of 9 bytes"),
        (PAIR | {"image": "bomb.png"}, Reason.HUGE_IMAGE, "60000 x 60000|decompression bomb"),
        ({"question": "What?"}, Reason.MISSING_FIELD, "no 'prompt' among the columns"),
        ("no object", Reason.INVALID_JSON, "expected a JSON object, got 'no object'"),
    ],
)
def test_a_bad_row_is_counted_and_named(tmp_path, row, reason, detail):
    (tmp_path / "1.jpg").write_bytes(JPEG)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xffbroken")
    (tmp_path / "bomb.png").write_bytes(bomb(60_000, 60_000))
    samples = imported(tmp_path, [PAIR, row, PAIR])
    assert [sample.key for sample in samples] == ["rows_00000000", "rows_00000002"]
    assert read_manifest(tmp_path / "out").drops == {reason: 1}
    (record,) = dropped(tmp_path)
    assert (record["file"], record["row"]) == (str(tmp_path / "rows.jsonl"), 1)
    assert (record["reason"], record["remedy"]) == (reason, reason.remedy)
    assert any(part in record["detail"] for part in detail.split("|"))


def test_on_bad_raise_ends_the_import_without_a_manifest(tmp_path):
    with pytest.raises(BadSample, match=r"rows.jsonl, row 1: .*chosen is ''") as raised:
        imported(tmp_path, [PAIR, PAIR | {"chosen": ""}], on_bad="raise")
    assert raised.value.reason is Reason.EMPTY_ANSWER
    with pytest.raises(ManifestError):
        load_shards(tmp_path / "out")


def test_only_the_first_twenty_drops_are_printed(tmp_path, capfd):
    imported(tmp_path, [PAIR] + [PAIR | {"chosen": ""}] * 30)
    printed = capfd.readouterr().err
    assert printed.count("[empty_answer]") == 20
    assert "further drops are only listed" in printed
    assert len(dropped(tmp_path)) == 30


def test_a_source_without_one_good_row_makes_no_shards(tmp_path):
    with pytest.raises(ValueError, match="not one of the 2 rows makes a sample"):
        imported(tmp_path, [PAIR | {"chosen": ""}] * 2)
    assert len(dropped(tmp_path)) == 2


def test_malformed_lines_are_dropped_and_blank_ones_ignored(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": \n\n' + json.dumps(PAIR).encode() + b"\n\xff\n")
    assert import_shards([path], tmp_path / "out").drops == {"invalid_json": 2}
    assert list(load_shards(tmp_path / "out").keys()) == ["rows_00000002"]
    assert [record["row"] for record in dropped(tmp_path)] == [0, 3]


@pytest.mark.parametrize(
    ("content", "name", "error", "message"),
    [
        (b"[{}", "x.json", ValueError, "x.json cannot be read"),
        (b"PAR1", "x.parquet", SourceError, "x.parquet cannot be read"),
        (b"PAR1" + bytes(40) + b"\x24\0\0\0PAR1", "x.parquet", SourceError, "x.parquet cannot be read"),
        (b"[" * 10**5, "x.json", SourceError, "x.json cannot be read"),
        (b"[" + b"9" * 5000 + b"]", "x.json", SourceError, "x.json cannot be read"),
        (
            b"<html>\n</html>",
            "x.jsonl",
            SourceError,
            r"x.jsonl cannot be read, line 1, column 1: Expecting value",
        ),
        (b'{"a": 1}', "x.jsonl", ValueError, r"no known format has the columns \['a'\]"),
        (b"", "x.txt", FileNotFoundError, "is no file ending in .parquet, .json, .jsonl"),
    ],
)
def test_sources_that_cannot_be_read_say_why(tmp_path, content, name, error, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        import_shards([tmp_path / name], tmp_path / "out")


def test_a_pipe_among_sources_is_not_read(tmp_path):
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in" / "a.json")
    (tmp_path / "in" / "b.jsonl").write_text(json.dumps(PAIR))
    assert import_shards([tmp_path / "in"], tmp_path / "out").samples == 1


@pytest.mark.parametrize(
    "line", [b"[" * 900 + b"]" * 900, json.dumps(PAIR)[:-1].encode() + b', "chosen": "c"}']
)
def test_a_line_that_is_too_deep_or_says_two_things_is_dropped(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(PAIR).encode() + b"\n" + line)
    assert import_shards([path], tmp_path / "out").drops == {"invalid_json": 1}


def test_a_row_of_lists_in_lists_is_dropped(tmp_path):
    deep = "x"
    for _ in range(600):
        deep = [deep]
    imported(tmp_path, [PAIR, PAIR | {"images": deep}])
    assert [record["reason"] for record in dropped(tmp_path)] == ["invalid_json"]


def test_a_damaged_page_of_a_parquet_file_is_noticed(tmp_path):
    """Where the writer left checksums; without, another text would come."""
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([PAIR]), path, write_page_checksum=True, compression="none")
    path.write_bytes(path.read_bytes().replace(b"Two.", b"Ten.", 1))
    with pytest.raises(SourceError, match=r"x.parquet cannot be read: .*CRC"):
        import_shards([path], tmp_path / "out")


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_is_a_sample_or_a_named_fault_whatever_it_holds(tmp_path, name):
    rng = random.Random(0)
    columns = [
        *re.findall(r"[a-z_0-9]+", FORMATS[name].columns),
        "images",
        "image",
        "system",
        "history",
        "idx",
    ]
    for number in range(1000):
        cells = {column: odd_value(rng) for column in columns if rng.random() < 0.8}
        row = SourceRow(cells, Source(Path("rows.jsonl"), "rows"), number, ImageLoader(tmp_path))
        try:
            (read,) = group_rows([row], FORMATS[name])
            for sample in FORMATS[name].read(read):
                check_sample(sample, row.where)
                encode_sample(replace(sample, prompt=simplify(sample.prompt)))
        except BadSample as fault:
            assert fault.reason in Reason
