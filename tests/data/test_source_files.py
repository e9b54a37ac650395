"""Files as people have them: each encoding, quotation, wrapping and folder is read, or named with what to do."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from rlaifv_pl.cli.commands import main
from rlaifv_pl.data.importers.importer import import_shards
from rlaifv_pl.data.importers.sources import SourceError
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.data.shards import load_shards
from tests.data.rows import PAIR, assistant, dropped
from tests.data.samples import picture

SECOND = {"prompt": "R?", "chosen": "C", "rejected": "D"}
LINE = json.dumps(PAIR)
TOLD = [{"role": "user", "content": "How many?"}, assistant("Two.")]
PHOTO, OTHER = picture(), picture(colour=200)


@pytest.fixture(autouse=True)
def photos(tmp_path):
    (tmp_path / "1.jpg").write_bytes(PHOTO)
    (tmp_path / "2.jpg").write_bytes(OTHER)


def read(tmp_path, name, content, **options):
    """Import one file of some content, and give back its samples."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_back(tmp_path, [path], **options)


def read_back(tmp_path, sources, **options):
    import_shards(sources, tmp_path / "out", **options)
    shards = load_shards(tmp_path / "out")
    return [shards[index] for index in range(len(shards))]


def texts(samples):
    return [(sample.prompt, sample.chosen, sample.rejected) for sample in samples]


HEAD = "prompt,chosen,rejected\n"
TSV = "prompt\tchosen\trejected\n"


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        (
            "x.tsv",
            f'{TSV}Q?\t"Red" he said.\tB\nR?\t"Red it is.\tB\nS?\tC\tD\n',
            [("Q?", '"Red" he said.', "B"), ("R?", '"Red it is.', "B"), ("S?", "C", "D")],
        ),
        # A closing mark in a later row makes no one row of both.
        ("x.tsv", f'{TSV}Q?\t"Red\tB\nR?\tIt is 6"\tB\n', [("Q?", '"Red', "B"), ("R?", 'It is 6"', "B")]),
        ("x.tsv", f'{TSV}Q?\t"Red."\tB\n', [("Q?", '"Red."', "B")]),
        ("x.tsv", f'{TSV}"Say ""7""?"\t"A, b"\tB\n', [('Say "7"?', "A, b", "B")]),
        ("x.tsv", '"prompt"\t"chosen"\t"rejected"\n"Q?"\t"A"\t"B"\n', [("Q?", "A", "B")]),
        ("x.tsv", f'{TSV}Q?\t"Red\nblue"\tB\nR?\tC\tD\n', [("Q?", "Red\nblue", "B"), ("R?", "C", "D")]),
        ("x.csv", f'{HEAD}Q?,"Red" it is.,B\nR?,"Red,B\n', [("Q?", '"Red" it is.', "B"), ("R?", '"Red', "B")]),
        ("x.csv", f'{HEAD}"Q, with\nline ""ends""?",A,B\n', [('Q, with\nline "ends"?', "A", "B")]),
        ("x.csv", f'{HEAD}"Q, a?","He said \\"Red\\", so",B\n', [("Q, a?", 'He said "Red", so', "B")]),
        ("x.csv", "prompt;chosen;rejected\nQ, a?;A;B\n", [("Q, a?", "A", "B")]),
        ("x.csv", "sep=;\nprompt;chosen;rejected\nQ, a?;A;B\n", [("Q, a?", "A", "B")]),
        ("x.csv", "prompt\tchosen\trejected\nQ, a?\tA\tB\n", [("Q, a?", "A", "B")]),
        ("x.csv", 'prompt, chosen, rejected\nQ?, "A, b", B\n', [("Q?", "A, b", "B")]),
        ("x.csv", "\ufeff" + HEAD.replace("\n", "\r\n") + "Q?,A,B\r\n", [("Q?", "A", "B")]),
        ("x.csv", HEAD.replace("\n", "\r") + "Q?,A,B\r", [("Q?", "A", "B")]),
        ("x.csv", "prompt,chosen,rejected,,\nQ?,A,B,,\n,,,,\n", [("Q?", "A", "B")]),
        ("x.csv", ",prompt,chosen,rejected\n0,Q?,A,B\n", [("Q?", "A", "B")]),
        ("x.csv", f"{HEAD}Q?,{'A' * 200_000},B\n", [("Q?", "A" * 200_000, "B")]),
        ("x.csv", (HEAD + "Qu\u00e9?,A,B\n").encode("utf-16"), [("Qu\u00e9?", "A", "B")]),
        ("x.csv.gz", gzip.compress(f"{HEAD}Q?,A,B\n".encode(), mtime=0), [("Q?", "A", "B")]),
    ],
)  # fmt: skip
def test_tables_as_their_writers_quote_them(tmp_path, name, content, rows):
    assert texts(read(tmp_path, name, content, on_bad="raise")) == rows


def frame(**options):
    return pandas.DataFrame([PAIR, SECOND]).to_json(**options)


BOTH = [("How many?", "Two.", "Six."), ("R?", "C", "D")]
JSONS = {
    "lines": f"{LINE}\n\n{json.dumps(SECOND)}\n",
    "an array over several lines": json.dumps([PAIR, SECOND], indent=2),
    "objects over several lines": f"{json.dumps(PAIR, indent=2)}\n{json.dumps(SECOND, indent=2)}\n",
    "columns": json.dumps({name: [PAIR[name], SECOND[name]] for name in PAIR}),
    "pandas, columns": frame(),
    "pandas, index": frame(orient="index"),
    "pandas, split": frame(orient="split"),
    "pandas, table": frame(orient="table"),
    "below a key": json.dumps({"version": 1, "data": [PAIR, SECOND]}, indent=1),
    "UTF-16": f"{LINE}\n{json.dumps(SECOND)}".encode("utf-16"),
    "UTF-16 without a mark": f"[{LINE}, {json.dumps(SECOND)}]".encode("utf-16-le"),
    "gzip": gzip.compress(f"{LINE}\n{json.dumps(SECOND)}\n".encode(), mtime=0),
    "bzip2": bz2.compress(json.dumps([PAIR, SECOND]).encode()),
    "xz": lzma.compress(json.dumps([PAIR, SECOND]).encode()),
}
ENDINGS = {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz"}


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("name", JSONS)
def test_json_however_its_rows_are_wrapped(tmp_path, name, suffix):
    samples = read(tmp_path, f"x{suffix}{ENDINGS.get(name, '')}", JSONS[name], on_bad="raise")
    assert texts(samples) == BOTH
    assert samples[0].key == "x_00000000"


def test_one_object_is_one_row_whatever_its_cells(tmp_path):
    (sample,) = read(tmp_path, "x.json", json.dumps({"messages": TOLD, "images": ["1.jpg"]}, indent=1))
    assert (sample.prompt, sample.completion, sample.images) == ("How many?", "Two.", (PHOTO,))


def test_what_stands_beside_a_list_of_rows_is_said_of_each(tmp_path):
    (sample,) = read(tmp_path, "x.json", json.dumps({"system": "Count.", "version": 2, "data": [PAIR]}))
    assert sample.prompt == [{"role": "system", "content": "Count."}, TOLD[0]]
    assert read_manifest(tmp_path / "out").notes["columns_not_read"] == {"version": 1}


def test_ha_dpos_descriptions_go_by_the_number_of_their_image(tmp_path):
    """Its authors keep an object for each image: the key is the image's number."""
    content = json.dumps(
        {"1": {"chosen": ["A"], "rejected": ["B"]}, "2": {"chosen": ["C"], "rejected": ["D"]}}
    )
    samples = read(tmp_path, "desc_data.json", content, prompt="Describe it.", on_bad="raise")
    assert [(sample.chosen, sample.images) for sample in samples] == [("A", (PHOTO,)), ("C", (OTHER,))]


def test_nan_is_an_empty_cell(tmp_path):
    lines = [
        LINE[:-1] + ', "image": NaN}',
        '{"prompt": "Q?", "chosen": NaN, "rejected": "B"}',
        LINE[:-1] + ', "x": Infinity}',
    ]
    assert texts(read(tmp_path, "x.jsonl", "\n".join(lines))) == BOTH[:1]
    assert [(record["row"], record["reason"]) for record in dropped(tmp_path)] == [
        (1, "missing_answer"),
        (2, "invalid_json"),
    ]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (LINE[:-1] + ",}", "line 2, column 62"),
        (LINE + ",", "line 2, column 62: Extra data: a comma too many"),
        (f'{LINE[:-1]}, "x": "\u00e9"}}'.encode("latin-1"), "line 2: the byte 0xE9 is no UTF-8"),
        (LINE[:-1] + ', "chosen": "C"}', "line 2: the field 'chosen' stands there twice"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_by_its_number(tmp_path, line, named):
    content = b"\n".join([LINE.encode(), line if isinstance(line, bytes) else line.encode(), LINE.encode()])
    assert len(read(tmp_path, "x.jsonl", content)) == 2
    (record,) = dropped(tmp_path)
    assert (record["row"], record["reason"]) == (1, "invalid_json")
    assert named in record["detail"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", f'{HEAD}"Q, a?","Red" he said.,B\n', r"x.csv, line 2: a cell begins with a quotation mark"),
        ("x.csv", "prompt,chosen,chosen\nQ?,A,B\n", r"two columns are called \['chosen'\]"),
        ("x.csv", f"{HEAD}Qu\u00e9?,A,B\n".encode("latin-1"), r"x.csv, line 2: the byte 0xE9 .* iconv -f WINDOWS-1252"),
        ("x.json", f"[\n{LINE},\n]", r"x.json cannot be read, line 3, column 1: .*a comma too many"),
        ("x.json", f'[\n{LINE},\n{LINE[:-1]}"Qu\u00e9"}}]'.encode("latin-1"), r"x.json, line 3: the byte 0xE9"),
        ("x.json", json.dumps({"train": [PAIR], "test": [PAIR]}), r"lists of rows, \['train', 'test'\].*jq \.train"),
        ("x.jsonl.gz", LINE, r"x.jsonl.gz cannot be read: 'Not a gzipped file"),
        ("x.parquet", "version https://git-lfs\noid 1\n", r"Git LFS pointer.*git lfs pull"),
    ],
)  # fmt: skip
def test_a_file_with_no_one_meaning_is_named(tmp_path, name, content, message):
    with pytest.raises(SourceError, match=message):
        read(tmp_path, name, content)


def test_a_row_with_more_cells_than_names_is_dropped_alone(tmp_path):
    assert texts(read(tmp_path, "x.csv", f"{HEAD}Q?,A,B\nR?,A,B,C\n")) == [("Q?", "A", "B")]
    assert "line 3 has 4 cells under 3 column names" in dropped(tmp_path)[0]["detail"]


def test_booleans_of_a_table_are_read(tmp_path):
    marks = {
        "true": 1,
        "True": 1,
        "TRUE": 1,
        "1": 1,
        "1.0": 1,
        "yes": 1,
        "": 1,
        "False": 0,
        "0": 0,
        "no": 0,
        "good": 0,
    }
    lines = [f"Q?,{number},{mark}" for number, mark in enumerate(marks)]
    samples = read(tmp_path, "x.csv", "\n".join(["prompt,completion,label", *lines]))
    assert [int(sample.completion) for sample in samples] == [0, 1, 2, 3, 4, 5, 6]
    assert read_manifest(tmp_path / "out").drops == {"unpaired": 3, "wrong_type": 1}
    assert "expected true or false, got 'good'" in dropped(tmp_path)[-1]["detail"]


CELLS = [
    ("messages", json.dumps(TOLD), "completion"),
    ("messages", str(TOLD), "completion"),
    ("conversations", json.dumps(TOLD).replace("role", "from").replace("content", "value"), "completion"),
    ("conversations", {"from": ["human", "gpt"], "value": ["How many?", "Two."]}, "completion"),
    ("chosen", json.dumps(TOLD), "chosen"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "cell", "side"), CELLS)
@pytest.mark.parametrize(
    "images", ['["1.jpg", "2.jpg"]', "['1.jpg', '2.jpg']", np.array(["1.jpg", "2.jpg"], object)]
)
def test_json_in_the_cells_of_a_parquet_file(tmp_path, name, cell, side, images):
    other = {"rejected": json.dumps([TOLD[0], assistant("Six.")])} if side == "chosen" else {}
    pandas.DataFrame([{name: cell, **other, "images": images}]).to_parquet(tmp_path / "x.parquet")
    (sample,) = read_back(tmp_path, [tmp_path / "x.parquet"], on_bad="raise")
    assert (sample.prompt, getattr(sample, side), sample.images) == ("How many?", "Two.", (PHOTO, OTHER))


def test_json_in_the_cells_of_a_table(tmp_path):
    pandas.DataFrame([{"messages": json.dumps(TOLD), "images": '["1.jpg"]'}]).to_csv(
        tmp_path / "x.csv", index=False
    )
    (sample,) = read_back(tmp_path, [tmp_path / "x.csv"], on_bad="raise")
    assert (sample.prompt, sample.completion, sample.images) == ("How many?", "Two.", (PHOTO,))


@pytest.mark.parametrize("text", ["[1] says no.", '["A", "B"]', "{'a': 1}", "[img] it is"])
def test_a_text_that_only_looks_like_json_stays_a_text(tmp_path, text):
    (sample,) = read(tmp_path, "x.jsonl", json.dumps(PAIR | {"chosen": text}), on_bad="raise")
    assert sample.chosen == text


def test_maps_of_arrow_are_objects(tmp_path):
    pairs = [[list(turn.items()) for turn in TOLD]]
    column = pyarrow.array(pairs, pyarrow.list_(pyarrow.map_(pyarrow.string(), pyarrow.string())))
    parquet.write_table(pyarrow.table({"messages": column}), tmp_path / "x.parquet")
    (sample,) = read_back(tmp_path, [tmp_path / "x.parquet"], on_bad="raise")
    assert (sample.prompt, sample.completion) == ("How many?", "Two.")


@pytest.mark.parametrize("kind", [pyarrow.ipc.new_file, pyarrow.ipc.new_stream])
def test_arrow_files_of_both_kinds(tmp_path, kind):
    table = pyarrow.Table.from_pylist([PAIR, SECOND])
    with kind(str(tmp_path / "x.arrow"), table.schema) as writer:
        writer.write_table(table)
    assert texts(read_back(tmp_path, [tmp_path / "x.arrow"])) == BOTH


CARD = """---
configs:
- config_name: a
  data_files: a/*.jsonl
- config_name: b
  data_files:
  - split: train
    path: b/*
  - split: test
    path: [c/*]
---
"""


def folder(tmp_path, *names, card="# Of pairs\n"):
    """The folder of a downloaded data set; each file's row has the file's name as prompt."""
    for name in names:
        path = tmp_path / "repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(PAIR | {"prompt": name}))
    (tmp_path / "repo" / "README.md").write_text(card)
    (tmp_path / "repo" / "dataset_infos.json").write_text("{}")
    return f"{tmp_path}/repo"


PARTS = [f"data/train-0000{number}-of-00002.jsonl" for number in range(2)]
TWO_SPLITS = ["data/train-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl"]
CONFIGS = ["a/1.jsonl", "b/1.jsonl", "c/1.jsonl"]


@pytest.mark.parametrize(
    ("names", "card", "told", "read"),
    [
        (PARTS, "", "", PARTS),
        (TWO_SPLITS, "", ":test", TWO_SPLITS[1:]),
        (["train/1.jsonl", "train/2.jsonl"], "", "", ["train/1.jsonl", "train/2.jsonl"]),
        (CONFIGS, CARD, ":a", ["a/1.jsonl"]),
        (CONFIGS, CARD, ":b:test", ["c/1.jsonl"]),
    ],
)
def test_the_folder_of_a_downloaded_data_set(tmp_path, names, card, told, read):
    samples = read_back(tmp_path, [folder(tmp_path, *names, card=card) + told])
    assert [sample.prompt for sample in samples] == read


@pytest.mark.parametrize(
    ("names", "card", "told", "message"),
    [
        (TWO_SPLITS, "", "", r"holds the splits \['test', 'train'\]\. Import one of them, as .*repo:test"),
        (TWO_SPLITS, "", ":dev", r"holds the splits \['test', 'train'\]"),
        (["train.jsonl", "test.jsonl"], "", "", r"holds the splits \['test', 'train'\]"),
        (["train.jsonl", "more.jsonl"], "", "", r"\['train'\], and \['more.jsonl'\] beside them"),
        (PARTS[:1], "", "", r"1 of the 2 parts of train: \[1\] are missing"),
        (CONFIGS, CARD, "", r"holds the configs \['a', 'b'\]\. Import one of them, as .*repo:a:SPLIT"),
        (
            CONFIGS,
            CARD,
            ":b",
            r"holds the splits \['train', 'test'\]\. Import one of them, as .*repo:b:train",
        ),
    ],
)
def test_a_folder_with_no_one_meaning_is_named(tmp_path, names, card, told, message):
    with pytest.raises(SourceError, match=message):
        read_back(tmp_path, [folder(tmp_path, *names, card=card) + told])


def test_several_files_of_a_shell_or_of_a_pattern(tmp_path):
    for number in (1, 2):
        (tmp_path / f"part-{number}.jsonl").write_text(json.dumps(PAIR | {"prompt": f"{number}?"}))
    parts = [str(tmp_path / f"part-{number}.jsonl") for number in (1, 2)]
    main(["shards", "import", *parts, str(tmp_path / "a"), "--format", "trl"])
    main(["shards", "import", str(tmp_path / "part-*.jsonl"), str(tmp_path / "b")])
    for out in ("a", "b"):
        assert [sample.prompt for sample in load_shards(tmp_path / out)] == ["1?", "2?"]
    main(["shards", "verify", str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(SystemExit, match=r"part-2\.jsonl is a file, not a directory"):
        main(["shards", "import", *parts])
    with pytest.raises(SystemExit, match=r"no file matches .*other-\*\.jsonl"):
        main(["shards", "import", str(tmp_path / "other-*.jsonl"), str(tmp_path / "c")])


def test_a_path_with_nothing_to_import_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*gone\.jsonl"):
        read_back(tmp_path, [tmp_path / "gone.jsonl"])
    (tmp_path / "saved").mkdir()
    with pytest.raises(FileNotFoundError, match="is no file ending in"):
        read_back(tmp_path, [tmp_path / "saved"])
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": []}')
    with pytest.raises(FileNotFoundError, match="is no file ending in"):
        read_back(tmp_path, [tmp_path / "saved"])


def test_a_file_is_imported_once(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINE)
    (tmp_path / "b.jsonl").write_text(LINE)
    with pytest.raises(SourceError, match=r"a\.jsonl is named twice"):
        read_back(tmp_path, [tmp_path / "a.jsonl", Path(f"{tmp_path}/../{tmp_path.name}/a.jsonl")])
    with pytest.raises(SourceError, match=r"b\.jsonl is a copy of .*a\.jsonl"):
        read_back(tmp_path, [tmp_path / "a.jsonl", tmp_path / "b.jsonl"])


def test_shards_of_another_import_are_replaced_on_request(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINE)
    command = ["shards", "import", str(tmp_path / "a.jsonl"), str(tmp_path / "out")]
    main(command)
    with pytest.raises(SystemExit, match="--overwrite true"):
        main([*command, "--prompt", "Why?"])
    main([*command, "--prompt", "Why?", "--overwrite", "true"])
    recipe = read_manifest(tmp_path / "out").recipe
    assert (recipe["prompt"], "overwrite" in recipe) == ("Why?", False)
