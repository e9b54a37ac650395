"""Rows of each family become the samples that they mean, and a bad row is named, not guessed at."""

import base64
import json

import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as Pillow

from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.importers.pictures import load_pictures
from rlaifv_pl.data.importers.run import import_shards
from rlaifv_pl.data.manifest import ManifestError, read_manifest
from rlaifv_pl.data.shards import load_shards
from tests.data.samples import bomb, picture

JPEG = picture()
TURN = {"role": "user", "content": "And now?"}
PAIR = {"prompt": "How many?", "chosen": "Two.", "rejected": "Six."}


def imported(tmp_path, rows, name="rows.jsonl", **options):
    """Write rows as JSON lines, import them and read the samples back."""
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_shards([path], tmp_path / "out", **options)
    shards = load_shards(tmp_path / "out")
    return [shards[index] for index in range(len(shards))]


def dropped(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]


def user(*content):
    blocks = [{"type": "image"} if part == "<image>" else {"type": "text", "text": part} for part in content]
    return {"role": "user", "content": blocks}


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("row", "prompt", "chosen", "rejected"),
    [
        (PAIR, "How many?", "Two.", "Six."),
        (
            {"prompt": [user("How?")], "chosen": [assistant("A.")], "rejected": [assistant("B.")]},
            "How?",
            "A.",
            "B.",
        ),
        ({"prompt": [user("How?")], "chosen": assistant("A."), "rejected": "B."}, "How?", "A.", "B."),
        (
            {"chosen": [user("How?"), assistant("A.")], "rejected": [user("How?"), assistant("B.")]},
            "How?",
            "A.",
            "B.",
        ),
        ({"chosen": "How many? Seven.", "rejected": "How many? Six."}, "How many?", "Seven.", "Six."),
        (
            {"prompt": [TURN, assistant("This."), TURN], "chosen": "A.", "rejected": "B."},
            [TURN, assistant("This."), TURN],
            "A.",
            "B.",
        ),
    ],
)
def test_trl_preference_rows_in_all_their_spellings(tmp_path, row, prompt, chosen, rejected):
    (sample,) = imported(tmp_path, [row], format="trl")
    assert (sample.prompt, sample.chosen, sample.rejected) == (prompt, chosen, rejected)
    assert (sample.key, sample.provenance) == ("rows_00000000", {"source": "rows.jsonl", "row": 0})


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [
        ({"prompt": "How?", "completion": "So."}, "How?", "So."),
        ({"messages": [user("How?"), assistant("So.")]}, "How?", "So."),
        ({"prompt": "How?"}, "How?", None),
    ],
)
def test_trl_rows_without_a_pair(tmp_path, row, prompt, completion):
    (sample,) = imported(tmp_path, [row])
    assert (sample.prompt, sample.completion, sample.chosen) == (prompt, completion, None)


def test_a_trl_parquet_with_embedded_images(tmp_path):
    message = List(
        {"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})}
    )
    features = Features({"prompt": message, "chosen": message, "rejected": message, "images": List(Image())})
    row = {
        "prompt": [user("<image>", "vs", "<image>")],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A."}]}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "B."}]}],
        "images": [{"bytes": JPEG}, {"bytes": picture("PNG")}],
    }
    dataset = Dataset.from_list([row, row], features=features)
    dataset.to_parquet(tmp_path / "rows.parquet")
    dataset.save_to_disk(tmp_path / "saved")
    import_shards([tmp_path / "rows.parquet", tmp_path / "saved"], tmp_path / "out")
    shards = load_shards(tmp_path / "out")
    assert list(shards.keys()) == ["rows_00000000", "rows_00000001", "saved_00000000", "saved_00000001"]
    for index in range(4):
        assert shards[index].images == (JPEG, picture("PNG"))
        assert shards[index].prompt == [user("<image>", "vs", "<image>")]


def test_a_split_of_a_saved_dataset_must_be_chosen(tmp_path):
    DatasetDict({"train": Dataset.from_list([PAIR])}).save_to_disk(tmp_path / "saved")
    with pytest.raises(FileNotFoundError, match=r"holds the splits \['train'\]\. Import one of them"):
        import_shards([tmp_path / "saved"], tmp_path / "out")
    assert import_shards([tmp_path / "saved" / "train"], tmp_path / "out").samples == 1


def test_rlaifv_parquet_keeps_its_origin(tmp_path):
    origin = {"ds_name": "d", "origin_dataset": "COCO", "origin_split": '{"model": "m"}', "idx": "7"}
    row = {"question": "What?", "chosen": "A.", "rejected": "B.", "image_path": "7.jpg", **origin}
    dataset = Dataset.from_list([row | {"image": {"bytes": JPEG, "path": "7.jpg"}}])
    dataset.cast_column("image", Image()).to_parquet(tmp_path / "rows.parquet")
    import_shards([tmp_path / "rows.parquet"], tmp_path / "out")
    (sample,) = (load_shards(tmp_path / "out")[0],)
    assert (sample.prompt, sample.chosen, sample.rejected) == ("What?", "A.", "B.")
    assert sample.images == (JPEG,)
    assert sample.provenance == {"source": "rows.parquet", "row": 0, "image_path": "7.jpg", **origin}


def test_rlaifv_pipeline_pairs_keep_their_scores(tmp_path):
    (tmp_path / "7.jpg").write_bytes(JPEG)
    row = {"image_id": "7", "image_path": "7.jpg", "question": "What?", "chosen": "A.", "rejected": "B."}
    row["org_infos"] = {"scores": {"chosen": {"judge": {}, "score": "-1"}, "rejected": {"score": "-3"}}}
    (sample,) = imported(tmp_path, [row])
    assert sample.evidence == {"chosen": {"score": -1}, "rejected": {"score": -3}}
    assert sample.images == (JPEG,)


def test_rlhfv_texts_are_unpacked(tmp_path):
    text = json.dumps({"question": "What?", "chosen": "A.", "rejected": "B."})
    (sample,) = imported(tmp_path, [{"ds_name": "d", "text": text}])
    assert (sample.prompt, sample.chosen) == ("What?", "A.")


def test_llava_conversations_end_in_the_completion(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(JPEG)
    first = {"from": "human", "value": "What is it?\n<image>"}
    answer, again = {"from": "gpt", "value": "A cat."}, {"from": "human", "value": "Sure?"}
    rows = [
        {"id": "one", "image": "1.jpg", "conversations": [first, answer]},
        {"id": "two", "image": "1.jpg", "conversations": [first, answer, again, answer]},
        {"id": "text", "conversations": [again, answer]},
    ]
    one, two, text = imported(tmp_path, rows, images_root=tmp_path / "photos")
    assert one.prompt == [user("What is it?", "<image>")]
    assert two.prompt == [
        user("What is it?", "<image>"),
        assistant("A cat."),
        {"role": "user", "content": "Sure?"},
    ]
    assert (text.prompt, text.images) == ("Sure?", ())
    assert {one.completion, two.completion, text.completion} == {"A cat."}
    assert two.provenance == {"source": "rows.jsonl", "row": 1, "id": "two", "image": "1.jpg"}


def test_a_tag_before_the_text_says_nothing_new(tmp_path):
    (tmp_path / "1.jpg").write_bytes(JPEG)
    (sample,) = imported(tmp_path, [PAIR | {"prompt": "<image>\nHow many?", "image": "1.jpg"}])
    assert sample.prompt == "How many?"


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


@pytest.mark.parametrize("start", ["", "\ufeff", " \n"])
def test_an_array_is_read_whatever_the_suffix(tmp_path, start):
    path = tmp_path / "My Rows.v2.jsonl"
    path.write_text(start + json.dumps([PAIR, PAIR]), encoding="utf-8")
    import_shards([path], tmp_path / "out")
    assert list(load_shards(tmp_path / "out").keys()) == ["my_rows_v2_00000000", "my_rows_v2_00000001"]


def test_directories_are_read_in_order_and_equal_stems_kept_apart(tmp_path):
    for folder, chosen in (("a", "A."), ("b", "B.")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.json").write_text(json.dumps([PAIR | {"chosen": chosen}]))
    import_shards([tmp_path / "b", tmp_path / "a"], tmp_path / "out")
    shards = load_shards(tmp_path / "out")
    assert list(shards.keys()) == ["x_00000000", "x-2_00000000"]
    assert [shards[0].chosen, shards[1].chosen] == ["B.", "A."]


@pytest.mark.parametrize(
    ("content", "name", "error", "message"),
    [
        (b"[{}", "x.json", ValueError, "x.json cannot be read"),
        (b"PAR1", "x.parquet", ValueError, "x.parquet cannot be read"),
        (b'{"a": 1}', "x.jsonl", ValueError, r"no known format has the columns \['a'\]"),
        (b"", "x.csv", FileNotFoundError, "is no file ending in .parquet, .json, .jsonl"),
    ],
)
def test_sources_that_cannot_be_read_say_why(tmp_path, content, name, error, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        import_shards([tmp_path / name], tmp_path / "out")


def test_the_same_import_gives_the_same_bytes(tmp_path):
    for _ in range(2):
        imported(tmp_path, [PAIR, PAIR], samples_per_shard=1)
    first = read_manifest(tmp_path / "out")
    imported(tmp_path, [PAIR, PAIR], samples_per_shard=1)
    assert read_manifest(tmp_path / "out") == first
    assert [shard.samples for shard in first.shards] == [1, 1]


def encoded(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("data", [JPEG, picture("PNG"), picture("WEBP")])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: data,
        lambda data: [data],
        lambda data: {"bytes": data, "path": "elsewhere.jpg"},
        lambda data: {"bytes": None, "path": "1.img"},
        lambda data: "1.img",
        encoded,
        lambda data: f"data:image/any;base64,{encoded(data)}",
    ],
)
def test_images_are_kept_byte_by_byte_however_they_come(tmp_path, data, wrap):
    (tmp_path / "1.img").write_bytes(data)
    assert load_pictures(wrap(data), tmp_path, "here") == (data,)


@pytest.mark.parametrize(
    "value", [Pillow.new("RGB", (3, 2)), picture("GIF"), picture("BMP"), picture("TIFF")]
)
def test_other_images_become_png(tmp_path, value):
    (stored,) = load_pictures(value, tmp_path, "here")
    assert stored.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("../secret.jpg", Reason.MISSING_IMAGE),
        ("/etc/passwd", Reason.MISSING_IMAGE),
        ("a\0b", Reason.MISSING_IMAGE),
        ("x" * 5000, Reason.MISSING_IMAGE),
        (".", Reason.MISSING_IMAGE),
        ("https://example.org/1.jpg", Reason.MISSING_IMAGE),
        ({"bytes": None, "path": None}, Reason.MISSING_IMAGE),
        ("data:image/png;base64,%%%", Reason.UNDECODABLE_IMAGE),
        (b"%!PS-Adobe-3.0 EPSF-3.0", Reason.UNDECODABLE_IMAGE),
        (7, Reason.WRONG_TYPE),
    ],
)
def test_images_that_are_not_there_are_named(tmp_path, value, reason):
    root = tmp_path / "photos"
    root.mkdir()
    (tmp_path / "secret.jpg").write_bytes(JPEG)
    with pytest.raises(BadSample) as raised:
        load_pictures(value, root, "here")
    assert raised.value.reason is reason
