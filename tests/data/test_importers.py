"""Rows of each family become the samples that they mean, wherever they lie."""

import json

import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value

from rlaifv_pl.data.importers.importer import import_shards
from rlaifv_pl.data.importers.sources import SourceError
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.data.shards import load_shards
from tests.data.rows import PAIR, assistant, imported, user
from tests.data.samples import picture

JPEG = picture()
TURN = {"role": "user", "content": "And now?"}


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
    rows = Dataset.from_list([PAIR])
    DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "saved")
    with pytest.raises(
        SourceError, match=r"holds the splits \['test', 'train'\]\. Import one of them, as .*:test"
    ):
        import_shards([tmp_path / "saved"], tmp_path / "out")
    for number, source in enumerate([tmp_path / "saved" / "train", f"{tmp_path}/saved:train"]):
        assert import_shards([source], tmp_path / f"{number}").samples == 1
    DatasetDict({"train": rows}).save_to_disk(tmp_path / "one")
    assert import_shards([tmp_path / "one"], tmp_path / "out").samples == 1


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


def test_rlaifv_pipeline_pairs_keep_their_judged_questions(tmp_path):
    """Facts stand for questions where there are as many; what was judged is 1 or 0."""
    row = {"question": "What?", "chosen": "A cat.", "rejected": "A dog, a cow."}
    judge = {
        "chosen": {"Is it a cat?": "1"},
        "rejected": {"Is it a dog? Please answer yes or no.": "0", "A cow?": "1"},
    }
    row["org_infos"] = {
        "chosen_infos": {"facts": ["A cat", ""]},
        "rejected_infos": {"facts": ["A dog"]},
        "scores": {
            side: {"judge": judge[side], "score": score}
            for side, score in (("chosen", "0"), ("rejected", "-1"))
        },
    }
    (sample,) = imported(tmp_path, [row])
    assert sample.evidence["chosen"]["claims"] == [
        {"text": "A cat", "question": "Is it a cat?", "yes": 1.0, "no": 0.0, "spans": [[0, 5]]}
    ]
    dog, cow = sample.evidence["rejected"]["claims"]
    assert (dog["question"], dog["yes"], dog["no"]) == ("Is it a dog?", 0.0, 1.0)
    assert (cow["text"], cow["yes"], "spans" in cow) == ("A cow?", 1.0, False)


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


def test_the_same_import_gives_the_same_bytes(tmp_path):
    for _ in range(2):
        imported(tmp_path, [PAIR, PAIR], samples_per_shard=1)
    first = read_manifest(tmp_path / "out")
    imported(tmp_path, [PAIR, PAIR], samples_per_shard=1)
    assert read_manifest(tmp_path / "out") == first
    assert [shard.samples for shard in first.shards] == [1, 1]
