"""One tiny row of each format, and what must become of it; which format it is told to be, and when it cannot be."""

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
from datasets import Dataset, Image

from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.importers.formats import FORMATS, FormatName, matching
from rlaifv_pl.data.importers.run import import_shards
from rlaifv_pl.data.importers.sources import SourceError
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.verbs import main
from tests.data.file_server import FileServer
from tests.data.rows import PAIR, assistant, dropped, imported, user
from tests.data.samples import picture

PHOTO, OTHER = picture(), picture(colour=200)
DATA_URI = f"data:image/jpeg;base64,{base64.b64encode(PHOTO).decode()}"


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


def asked(text):
    return {"role": "user", "content": text}


def block(kind, **content):
    return {"role": "user", "content": [{"type": kind, **content}, {"type": "text", "text": "How many?"}]}


ASKED, TWO, SIX = asked("How many?"), assistant("Two."), assistant("Six.")
TAGGED, QUESTION = human("<image>\nHow many?"), human("How many?")
SIDES = {"chosen": "Two.", "rejected": "Six."}
MESSAGES = [asked("<image>How many?"), TWO]
V1_TURN = {
    "role": "user",
    "content": [{"type": "image_url", "value": "1.jpg"}, {"type": "text", "value": "How many?"}],
}
V1_TWO = {"role": "assistant", "content": [{"type": "text", "value": "Two."}], "loss_weight": 1.0}
V1_SIX = {"role": "assistant", "content": [{"type": "text", "value": "Six."}], "loss_weight": 0.0}
ANTHROPIC = {"type": "base64", "media_type": "image/jpeg", "data": DATA_URI.partition(",")[2]}


@dataclass
class Golden:
    """A row, and its sample: of one image, `PHOTO`, unless said otherwise."""

    name: str
    row: dict[str, Any]
    prompt: Any = "How many?"
    answers: dict[str, str] = field(default_factory=lambda: SIDES)
    images: tuple[bytes, ...] = (PHOTO,)
    rejected_images: tuple[bytes, ...] = ()


DONE = {"completion": "Two."}
GOLDEN = {
    "TRL, plain": Golden("trl", {"prompt": "How many?", **SIDES, "images": ["1.jpg"]}),
    "TRL, conversational": Golden(
        "trl",
        {"prompt": [user("<image>", "How many?")], "chosen": [TWO], "rejected": [SIX], "image": "1.jpg"},
    ),
    "TRL, implicit": Golden(
        "trl", {"chosen": [ASKED, TWO], "rejected": [ASKED, SIX], "images": [{"bytes": None, "path": "1.jpg"}]}
    ),
    "TRL, prompt and whole dialogues": Golden(
        "trl",
        {"prompt": "How many?", "chosen": [ASKED, TWO], "rejected": [ASKED, SIX], "image": "1.jpg", "score": 1.5},
    ),
    "TRL, marked as good": Golden(
        "trl", {"prompt": "How many?", "completion": "Two.", "label": True}, answers=DONE, images=()
    ),
    "MM-RLHF": Golden(
        "trl", {"prompt": "How many?", **SIDES, "image": "1.jpg", "video": None, "reference_chosen_logp": -3.5}
    ),
    "SeVa, 2U1": Golden("trl", {"id": "7", "image": "1.jpg", "prompt": "<image>\nHow many?", **SIDES}),
    "CSR": Golden(
        "trl", {"id": "7", "image": "1.jpg", "chosen": [TAGGED, gpt("Two.")], "rejected": [TAGGED, gpt("Six.")]}
    ),
    "OpenAI": Golden(
        "trl", {"messages": [block("image_url", image_url={"url": DATA_URI}), TWO]}, answers=DONE
    ),
    "OpenAI, responses": Golden(
        "trl", {"messages": [block("input_image", image_url=DATA_URI), TWO]}, answers=DONE
    ),
    "Anthropic": Golden("trl", {"messages": [block("image", source=ANTHROPIC), TWO]}, answers=DONE),
    "Qwen": Golden("trl", {"messages": [block("image", image="1.jpg"), TWO]}, answers=DONE),
    "LLaMA-Factory v1, SFT": Golden("trl", {"messages": [V1_TURN, V1_TWO]}, answers=DONE),
    "verl": Golden(
        "trl", {"data_source": "d", "prompt": [asked("<image>How many?")], "images": ["1.jpg"]}, answers={}
    ),
    "RLAIF-V": Golden(
        "rlaifv", {"ds_name": "d", "image": {"path": "1.jpg"}, "question": "How many?", **SIDES, "idx": 7}
    ),
    "RLAIF-V, prompts": Golden(
        "rlaifv", {"ds_question_id": "7", "image_path": "1.jpg", "question": "How many?", "metainfos": {}}, answers={}
    ),
    "RLAIF-V, pairs": Golden(
        "rlaifv", {"image_id": "7", "image_path": "1.jpg", "question": "How many?", **SIDES, "org_infos": {}}
    ),
    "InternVL MPO": Golden("rlaifv", {"image": ["1.jpg"], "question": "<image>\nHow many?", **SIDES}),
    "RLHF-V": Golden(
        "rlhfv", {"ds_name": "d", "image": "1.jpg", "text": json.dumps({"question": "How many?", **SIDES})}
    ),
    "LLaVA": Golden(
        "llava", {"id": "7", "image": "1.jpg", "conversations": [TAGGED, gpt("Two.")]}, answers=DONE
    ),
    "LLaVA, text": Golden("llava", {"conversations": [QUESTION, gpt("Two.")]}, answers=DONE, images=()),
    "alpaca": Golden("alpaca", {"instruction": "How", "input": "many?", **SIDES, "images": ["1.jpg"]}, "How\nmany?"),
    "alpaca, SFT": Golden(
        "alpaca",
        {"instruction": "How many?", "input": "", "output": "Two.", "system": "Count.", "history": [["A?", "B."]]},
        [{"role": "system", "content": "Count."}, asked("A?"), assistant("B."), ASKED],
        DONE,
        (),
    ),
    "sharegpt": Golden(
        "sharegpt",
        {"conversations": [TAGGED], "chosen": gpt("Two."), "rejected": gpt("Six."), "images": ["1.jpg"]},
    ),
    "sharegpt, openai tags": Golden(
        "sharegpt", {"messages": [ASKED], "chosen": TWO, "rejected": SIX, "images": ["1.jpg"]}
    ),
    "LLaMA-Factory v1": Golden(
        "v1", {"chosen_messages": [V1_TURN, V1_TWO], "rejected_messages": [V1_TURN, V1_SIX]}
    ),
    "torchtune": Golden(
        "v1", {"chosen_conversations": [ASKED, TWO], "rejected_conversations": [ASKED, SIX]}, images=()
    ),
    "KTO": Golden(
        "kto", {"conversations": [TAGGED, gpt("Two.")], "kto_tag": True, "images": ["1.jpg"]}, answers=DONE
    ),
    "swift": Golden("swift", {"messages": MESSAGES, "rejected_response": "Six.", "images": "1.jpg", "margin": 1}),
    "swift, message": Golden("swift", {"messages": MESSAGES, "rejected_response": [SIX], "images": [DATA_URI]}),
    "swift, dialogues": Golden(
        "swift", {"messages": MESSAGES, "rejected_messages": [MESSAGES[0], SIX], "images": ["1.jpg"]}
    ),
    "swift, images": Golden(
        "swift",
        {"messages": MESSAGES, "images": ["1.jpg"], "rejected_images": ["2.jpg"]},
        answers={"chosen": "Two.", "rejected": "Two."},
        rejected_images=(OTHER,),
    ),
    "swift, too few tags": Golden(
        "swift",
        {"messages": [asked("This <image> or that?"), TWO], "rejected_response": "Six.", "images": ["2.jpg", "1.jpg"]},
        [user("<image>", "This", "<image>", "or that?")],
        images=(OTHER, PHOTO),
    ),
    "swift, inline": Golden(
        "swift", {"messages": [asked("<img>1.jpg</img>How many?"), TWO], "rejected_response": "Six."}
    ),
    "swift, KTO": Golden("swift", {"messages": MESSAGES, "label": True, "images": ["1.jpg"]}, answers=DONE),
    "swift, query": Golden("plain", {"query": "How many?", "response": "Two.", "images": ["1.jpg"]}, answers=DONE),
    "swift, query and pair": Golden(
        "plain", {"query": "How many?", "response": "Two.", "rejected_response": "Six.", "images": ["1.jpg"]}
    ),
    "OpenRLHF": Golden("plain", {"input": "How many?", **SIDES, "margin": 2, "image": "1.jpg"}),
    "Axolotl": Golden(
        "plain", {"question": "How many?", "chosen_response": "Two.", "rejected_response": "Six."}, images=()
    ),
    "EasyR1": Golden("plain", {"problem": "<image>How many?", "answer": "Two.", "images": ["1.jpg"]}, answers=DONE),
    "AA-TI2T": Golden(
        "comparison",
        {"question": "How many?", "image": "1.jpg", "response_1": "Six.", "response_2": "Two.", "overall_response": 2},
    ),
    "align-anything, feedback": Golden(
        "refinement", {"prompt": "How many?", "response": "Six.", "refinement": "Two.", "image": DATA_URI}
    ),
    "HA-DPO": Golden("lists", {"image_id": 1, "question": "How many?", "chosen": ["Two."], "rejected": ["Six."]}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def photos(tmp_path):
    (tmp_path / "1.jpg").write_bytes(PHOTO)
    (tmp_path / "2.jpg").write_bytes(OTHER)


@pytest.mark.parametrize("golden", GOLDEN.values(), ids=GOLDEN)
def test_a_row_of_each_format_becomes_its_sample(tmp_path, golden):
    assert matching(golden.row) == {golden.name}
    (sample,) = imported(tmp_path, [golden.row], on_bad="raise")
    names = ("chosen", "rejected", "completion")
    answers = {name: text for name in names if (text := getattr(sample, name)) is not None}
    assert (sample.prompt, answers) == (golden.prompt, golden.answers)
    assert (sample.images, sample.rejected_images) == (golden.images, golden.rejected_images)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("1.jpg", {"image": "1.jpg"}),
        ({"path": "1.jpg"}, {"image": {"path": "1.jpg"}}),
        (DATA_URI, {}),
        (DATA_URI.partition(",")[2], {}),
    ],
)
def test_the_origin_of_a_sample_is_kept_without_its_image(tmp_path, image, told):
    (sample,) = imported(tmp_path, [PAIR | {"image": image, "id": "7", "idx": 3}])
    assert sample.images == (PHOTO,)
    assert sample.provenance == {"source": "rows.jsonl", "row": 0, "id": "7", "idx": 3, **told}


def test_each_format_has_a_golden_row_and_an_option():
    assert {golden.name for golden in GOLDEN.values()} == FORMATS.keys() - {"ranks", "neighbours"}
    assert ["auto", *FORMATS] == list(get_args(FormatName))
    table = (Path(__file__).parents[2] / "shards" / "README.md").read_text()
    assert [name for name in FORMATS if f"| `{name}` |" not in table] == []


def test_the_command_line_takes_the_options(tmp_path, capsys):
    row = {"context": "How?", "completions": [{"rank": 1, "completion": "A"}, {"rank": 2, "completion": "B"}]}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    options = [
        "--format",
        "neighbours",
        "--fetch",
        "true",
        "--images_root",
        str(tmp_path),
        "--on_bad",
        "raise",
    ]
    main(["shards", "import", str(tmp_path / "rows.json"), str(tmp_path / "out"), *options])
    recipe = load_shards(tmp_path / "out").manifests[0].recipe
    assert (recipe["format"], recipe["fetch"], recipe["on_bad"]) == ("neighbours", True, "raise")
    (tmp_path / "odd.json").write_text('[{"zz": 1}]')
    with pytest.raises(
        SystemExit, match=r"error: .*odd\.json, rows 0 to 0: no known format has the columns \['zz'\]"
    ):
        main(["shards", "import", str(tmp_path / "odd.json"), str(tmp_path / "odd")])


def test_a_token_in_a_url_is_not_kept(tmp_path):
    with FileServer(tmp_path) as server:
        url = server.url("1.jpg?token=secret")
        rows = [PAIR | {"image": image} for image in (url, [url], {"path": url})]
        samples = imported(tmp_path, rows, fetch=True, on_bad="raise")
    assert [sample.images for sample in samples] == [(PHOTO,)] * 3
    shown = server.url("1.jpg?***")
    assert [sample.provenance["image"] for sample in samples] == [shown, [shown], {"path": shown}]


def ranking(**ranks):
    completions = [{"rank": rank, "completion": [assistant(text)]} for text, rank in ranks.items()]
    return {"context": [ASKED], "completions": completions}


@pytest.mark.parametrize(
    ("format", "pairs"),
    [
        ("auto", [("A", "B"), ("A", "C"), ("A", "D")]),
        ("neighbours", [("A", "B"), ("C", "D")]),
    ],
)
def test_a_ranking_becomes_pairs(tmp_path, format, pairs):
    samples = imported(tmp_path, [ranking(D=3, B=1, A=0, C=1)], format=format)
    assert [(sample.chosen, sample.rejected) for sample in samples] == pairs
    assert [sample.key for sample in samples] == [f"rows_00000000-{number}" for number in range(len(pairs))]


def test_one_bad_pair_of_a_row_leaves_the_others(tmp_path):
    rows = [{"question": "How?", "chosen": ["A", "B", "C"], "rejected": ["a", "B", "c"]}]
    assert [sample.chosen for sample in imported(tmp_path, rows)] == ["A", "C"]
    assert [(record["row"], record["reason"]) for record in dropped(tmp_path)] == [(0, "equal_answers")]


COMPARED = {"question": "How?", "response_1": "A", "response_2": "B", "overall_response": 1}
BAD = [
    ("kto", {"conversations": [QUESTION, gpt("Six.")], "kto_tag": False}, Reason.UNPAIRED),
    ("swift", {"messages": MESSAGES, "label": False}, Reason.UNPAIRED),
    ("trl", {"prompt": "How many?", "completion": "Six.", "label": False}, Reason.UNPAIRED),
    ("kto", {"conversations": [QUESTION, gpt("Six.")], "kto_tag": "no"}, Reason.WRONG_TYPE),
    ("trl", PAIR | {"chosen": [{"from": []}, TWO], "rejected": [{"from": {}}, SIX]}, Reason.WRONG_TYPE),
    ("trl", PAIR | {"video": "1.mp4"}, Reason.WRONG_TYPE),
    ("trl", {"messages": [block("video", video="1.mp4"), TWO]}, Reason.WRONG_TYPE),
    ("trl", PAIR | {"image": "https://example.org/1.jpg"}, Reason.MISSING_IMAGE),
    ("sharegpt", {"conversations": [TAGGED], **SIDES}, Reason.IMAGE_COUNT),
    ("sharegpt", {"conversations": [QUESTION, gpt("Two.")], **SIDES}, Reason.WRONG_TURNS),
    ("sharegpt", {"conversations": [QUESTION], "chosen": "Two."}, Reason.MISSING_FIELD),
    ("alpaca", {"instruction": "How?", **SIDES, "history": ["A?", "B."]}, Reason.WRONG_TYPE),
    ("alpaca", {"instruction": "How?", "output": "Six.", "kto_tag": False}, Reason.UNPAIRED),
    ("plain", {"query": "How?", "question": "Why?", "response": "Two."}, Reason.WRONG_TYPE),
    ("comparison", COMPARED | {"overall_response": 3}, Reason.WRONG_TYPE),
    ("comparison", COMPARED | {"response_2": "A"}, Reason.EQUAL_ANSWERS),
    ("lists", {"question": "How?", "chosen": ["A", "B"], "rejected": ["C"]}, Reason.WRONG_TYPE),
    ("lists", {"image_id": 1, "chosen": ["A"], "rejected": ["C"]}, Reason.MISSING_FIELD),
    ("ranks", ranking(A=1, B=1), Reason.EQUAL_ANSWERS),
    ("ranks", {"context": [ASKED], "completions": [{"completion": [TWO]}]}, Reason.WRONG_TYPE),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "reason"), BAD)
def test_a_row_that_makes_no_sample_is_named(tmp_path, name, row, reason):
    with pytest.raises(BadSample, match=r"rows\.jsonl, row 0: ") as raised:
        imported(tmp_path, [row], format=name, on_bad="raise")
    assert raised.value.reason is reason


def test_the_format_is_told_by_rows_and_not_by_names(tmp_path):
    rows = [{"zz": 1}, {"query": None, "messages": MESSAGES, "images": "1.jpg", "label": None}]
    (sample,) = imported(tmp_path, rows, name="rlaifv.json")
    assert sample.completion == "Two."
    assert [record["row"] for record in dropped(tmp_path)] == [0]


def test_columns_that_may_mean_two_things_must_be_named(tmp_path):
    row = PAIR | {"question": "What?"}
    with pytest.raises(
        SourceError, match=r"'question'.* are of several formats, trl and rlaifv.*\n  trl: prompt"
    ):
        imported(tmp_path, [row])
    for name, prompt in (("trl", "How many?"), ("rlaifv", "What?")):
        (tmp_path / name).mkdir()
        assert imported(tmp_path / name, [row], format=name)[0].prompt == prompt


def test_rows_of_two_formats_are_not_mixed(tmp_path):
    with pytest.raises(SourceError, match=r"rows 0 to 1: .* several formats, trl and llava"):
        imported(tmp_path, [PAIR, {"conversations": [QUESTION, gpt("Two.")]}])


@pytest.mark.parametrize(("name", "mark"), [("rows.csv", ","), ("rows.TSV", "\t")])
def test_tables_are_read_cell_by_cell(tmp_path, name, mark):
    lines = [
        ["prompt", "chosen", "rejected", "image"],
        ['"Say ""7""?"', "7", "6", DATA_URI.partition(",")[2]],
    ]
    lines += [["What?", "A", "", ""], ["What?", "A", "B", "", "C"]]
    (tmp_path / name).write_text("".join(mark.join(line) + "\n" for line in lines), encoding="utf-8-sig")
    import_shards([tmp_path / name], tmp_path / "out")
    (sample,) = load_shards(tmp_path / "out")
    assert (sample.prompt, sample.chosen, sample.images) == ('Say "7"?', "7", (PHOTO,))
    assert [record["reason"] for record in dropped(tmp_path)] == ["missing_answer", "invalid_json"]


def test_a_data_set_is_loaded_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = Dataset.from_list([{"question": "How many?", **SIDES, "image": {"bytes": PHOTO, "path": None}}])
    (tmp_path / "pairs").mkdir()
    for split in ("train", "test"):
        rows.cast_column("image", Image()).to_parquet(tmp_path / "pairs" / f"{split}.parquet")
    with pytest.raises(
        SourceError, match=r"holds the splits \['train', 'test'\]\. Import one of them, as .*:train"
    ):
        import_shards([f"hub:{tmp_path}/pairs"], tmp_path / "out")
    manifest = import_shards([f"hub:{tmp_path}/pairs:test"], tmp_path / "out")
    assert load_shards(tmp_path / "out")[0].images == (PHOTO,)
    assert [len(hash) for hash in manifest.recipe["sources"][0].values()] == [64]


def test_a_data_set_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        SourceError, match=r"hub:.*nothing cannot be had: .* Check name, network and credentials"
    ):
        import_shards([f"hub:{tmp_path}/nothing"], tmp_path / "out")
