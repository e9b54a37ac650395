"""One tiny row of each format, and what must become of it; which format it is told to be, and when it cannot be."""

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
from datasets import Dataset, Image

from rlaifv_pl.cli.commands import main
from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.columns import ColumnMapping
from rlaifv_pl.data.importers.formats import FORMATS, FormatName, matching_formats
from rlaifv_pl.data.importers.images import ImageLoader
from rlaifv_pl.data.importers.importer import import_shards
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.sources import Source, SourceError
from rlaifv_pl.data.shards import load_shards
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
    row: dict[str, Any] | list[dict[str, Any]]
    prompt: Any = "How many?"
    answers: dict[str, str] = field(default_factory=lambda: SIDES)
    images: tuple[bytes, ...] = (PHOTO,)
    rejected_images: tuple[bytes, ...] = ()
    options: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self):
        return self.row if isinstance(self.row, list) else [self.row]


def scores(yes):
    """Probabilities of four words; of the yes two thirds are spelt Yes."""
    return {"yes": yes / 3, "Yes": yes * 2 / 3, "no": (1 - yes) / 2, "No": (1 - yes) / 2}


def verdict(number, answer, yes, fact="It is so.", question="Is it so? Please answer yes or no."):
    """A row of one claim of an answer, as RLAIF-V's labelers write it."""
    origin = {"origin_question": "How many?", "origin_answer": answer, "origin_fact": fact}
    told = {"question_id": number, "ds_question_id": "7", "image_path": "1.jpg", "metainfos": origin}
    return {
        "question_id": number,
        "raw_question": question,
        "answer": "yes",
        "scores": scores(yes),
        "metainfos": told,
    }


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
    "TRL, tools and known log-ps": Golden(
        "trl",
        {"prompt": [ASKED], "chosen": [TWO], "rejected": [SIX], "images": ["1.jpg"], "tools": [],
         "ref_chosen_logps": -1.5,
         "ref_rejected_logps": -2.5, "chat_template_kwargs": {"max_pixels": 7}},
    ),
    "TRL, no image": Golden("trl", {"prompt": "How many?", **SIDES, "images": []}, images=()),
    "2U1": Golden("trl", {"id": "7", "image": "1.jpg", "prompt": "<image>\nHow many?", **SIDES}),
    "2U1, several": Golden(
        "trl", {"id": "7", "image": ["1.jpg", "2.jpg"], "prompt": "<image><image>\nHow many?", **SIDES},
        images=(PHOTO, OTHER),
    ),
    "CSR": Golden(
        "v1",
        {"id": "7", "image": "1.jpg", "conversations": [TAGGED, gpt("Two.")],
         "rejected_conversations": [TAGGED, gpt("Six.")]},
    ),
    "CSR, sides": Golden(
        "trl", {"id": "7", "image": "1.jpg", "chosen": [TAGGED, gpt("Two.")], "rejected": [TAGGED, gpt("Six.")]}
    ),
    "SeVa": Golden("rlaifv", {"image_id": "1.jpg", "question": "How many?", "chosen": "Two.", "reject": "Six."}),
    "HA-DPO, questions": Golden(
        "rlaifv", {"image_id": 1, "question": "How many?", "chosen": "Two.", "reject": "Six."}
    ),
    "HA-DPO, descriptions": Golden(
        "lists", {"image_id": 1, "chosen": ["Two."], "rejected": ["Six."]}, options={"prompt": "How many?"}
    ),
    "OpenRLHF, keys": Golden(
        "trl", {"text": "How many?", "good": "Two.", "bad": "Six.", "margin": 2, "picture": "1.jpg"},
        options={"keys": "prompt=text, chosen=good, rejected=bad, image=picture"},
    ),
    "OpenRLHF, chat lists": Golden(
        "trl", {"chosen": [ASKED, TWO], "rejected": [ASKED, SIX], "margin": 2, "images": ["1.jpg"]}
    ),
    "Axolotl, argilla": Golden(
        "plain",
        {"system": "Count.", "instruction": "How many?", "chosen_response": "Two.", "rejected_response": "Six."},
        [{"role": "system", "content": "Count."}, ASKED], images=(),
    ),
    "Axolotl, intel": Golden(
        "rlaifv", {"system": "", "question": "How many?", **SIDES}, images=()
    ),
    "Axolotl, icr": Golden("plain", {"system": None, "input": "How many?", **SIDES}, images=()),
    "Axolotl, ultra": Golden(
        "trl", {"prompt": "How many?", "chosen": [ASKED, TWO], "rejected": [ASKED, SIX]}, images=()
    ),
    "Axolotl, chat template": Golden("sharegpt", {"messages": [ASKED], "chosen": TWO, "rejected": SIX}, images=()),
    "NeMo": Golden(
        "ranks",
        {"context": [ASKED], "completions": [{"rank": 1, "completion": [SIX]}, {"rank": 0, "completion": [TWO]}]},
        images=(),
    ),
    "NeMo, pairs": Golden("trl", {"prompt": [ASKED], **SIDES}, images=()),
    "torchtune, sides": Golden(
        "trl", {"chosen": [QUESTION, gpt("Two.")], "rejected": [QUESTION, gpt("Six.")]}, images=()
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
        "trl", {"data_source": "d", "prompt": [asked("<image>How many?")], "images": ["1.jpg"], "ability": "count",
                "reward_model": {"style": "rule", "ground_truth": "2"}, "extra_info": {"index": 7}}, answers={}
    ),
    "RLAIF-V": Golden(
        "rlaifv", {"ds_name": "d", "image": {"path": "1.jpg"}, "question": "How many?", **SIDES, "idx": 7}
    ),
    "RLAIF-V, log-ps": Golden(
        "rlaifv",
        {"ds_name": "d", "image": {"path": "1.jpg"}, "question": "How many?", **SIDES, "origin_split": "{}",
         "logps": "[-9.5, -1.5, [-1.5], -8.5, -2.5, [-2.5]]"},
    ),
    "RLAIF-V, verdicts": Golden("verdicts", [verdict(0, "Six.", 0.2), verdict(1, "Two.", 0.9)]),
    "RLAIF-V, verdicts on whole answers": Golden(
        "verdicts",
        [{"question_id": 7, "raw_question": "How many?", "answer": text, "scores": scores(yes)}
         for text, yes in (("Two.", 0.9), ("Six.", 0.2))],
        images=(),
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
        [user("<image>", "This ", "<image>", " or that?")],
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


@pytest.mark.parametrize("is_told", [True, False], ids=["by its columns", "by name"])
@pytest.mark.parametrize("golden", GOLDEN.values(), ids=GOLDEN)
def test_a_row_of_each_format_becomes_its_sample(tmp_path, golden, is_told):
    """By its columns alone it is of one format; and that format's name says the same."""
    options = golden.options | ({} if is_told else {"format": golden.name})
    (sample,) = imported(tmp_path, golden.rows, on_bad="raise", **options)
    columns = ColumnMapping.parse(golden.options.get("keys"), golden.options.get("prompt"))
    renamed = columns.apply(
        SourceRow(golden.rows[0], Source(tmp_path, "x"), 0, ImageLoader(tmp_path))
    ).columns
    assert matching_formats(renamed) == {golden.name}
    names = ("chosen", "rejected", "completion")
    answers = {name: text for name in names if (text := getattr(sample, name)) is not None}
    assert (sample.prompt, answers) == (golden.prompt, golden.answers)
    assert (sample.images, sample.rejected_images) == (golden.images, golden.rejected_images)


@pytest.mark.parametrize("query", ["query", "prompt", "input", "instruction", "question", "problem"])
@pytest.mark.parametrize("response", ["response", "answer", "output", "target"])
@pytest.mark.parametrize("rejected", [{}, {"rejected_response": "Six."}], ids=["alone", "a pair"])
def test_a_query_and_its_response_go_by_any_of_their_names(tmp_path, query, response, rejected):
    row = {query: "How many?", response: "Two.", **rejected}
    assert len(matching_formats(row)) == 1
    (sample,) = imported(tmp_path, [row], on_bad="raise")
    assert (sample.prompt, sample.chosen or sample.completion) == ("How many?", "Two.")
    assert sample.rejected == rejected.get("rejected_response")


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
    assert {golden.name for golden in GOLDEN.values()} == FORMATS.keys() - {"neighbours"}
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
    assert (recipe["keys"], recipe["prompt"], recipe["link_duplicate_images"]) == (None, None, False)
    options = [
        "--keys",
        "chosen=best,rejected=worst",
        "--prompt",
        "What: this?",
        "--link_duplicate_images",
        "true",
    ]
    (tmp_path / "named.json").write_text('[{"best": "A", "worst": "B", "image_id": "1.jpg"}]')
    main(["shards", "import", str(tmp_path / "named.json"), str(tmp_path / "named"), *options])
    shards = load_shards(tmp_path / "named")
    assert (shards[0].prompt, shards[0].chosen) == ("What: this?", "A")
    assert shards.manifests[0].recipe["link_duplicate_images"] is True
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


def again(tmp_path, rows, **options):
    """Import to a directory beside the first one."""
    (tmp_path / "again").mkdir()
    return imported(tmp_path / "again", rows, images_root=tmp_path, **options)


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


def test_verdicts_become_the_best_and_the_worst_answer_with_their_claims(tmp_path):
    """Rejected claims: 1 of 2 of A, none of B, 2 of 2 of C (a tie counts against it); a question without a difference
    is left out, and so is a row that is damaged."""
    rows = [
        verdict(0, "Two cats. A dog.", 0.9, "Two cats", "Are there two cats? Please answer yes or no."),
        verdict(0, "Two cats. A dog.", 0.3, "There is a dog."),
        verdict(1, "Two cats.", 0.75, "Two cats", "Are there two cats? Please answer yes or no."),
        verdict(2, "Six dogs.", 0.5), verdict(2, "Six dogs.", 0.1),
        verdict(3, "One.", 0.9) | {"metainfos": {"origin_question": "Which?", "origin_answer": "This."}},
        verdict(4, "One.", 0.9) | {"scores": {"yes": 0.9}},
    ]  # fmt: skip
    (sample,) = imported(tmp_path, rows)
    assert (sample.prompt, sample.images) == ("How many?", (PHOTO,))
    assert (sample.chosen, sample.rejected, sample.provenance["ds_question_id"]) == (
        "Two cats.",
        "Six dogs.",
        "7",
    )
    claim = {"text": "Two cats", "question": "Are there two cats?", "spans": [[0, 8]]}
    (found,) = sample.evidence["chosen"]["claims"]
    assert {name: found[name] for name in claim} == claim
    assert (found["yes"], found["no"]) == (pytest.approx(0.75), pytest.approx(0.25))
    assert [sample.evidence[side]["score"] for side in ("chosen", "rejected")] == [0, -2]
    assert [(claim["question"], "spans" in claim) for claim in sample.evidence["rejected"]["claims"]] == [
        ("Is it so?", False)
    ] * 2
    assert [(record["row"], record["reason"]) for record in dropped(tmp_path)] == [
        (5, "unpaired"),
        (6, "wrong_type"),
    ]


def test_facts_with_a_score_each_are_claims(tmp_path):
    rows = [
        {
            "question_id": number,
            "raw_question": "What?",
            "answer": text,
            "facts": facts,
            "scores": [*map(scores, yes)],
        }
        for number, text, facts, yes in ((0, "A and B.", ["A", "B"], (0.9, 0.4)), (1, "A.", ["A"], (0.9,)))
    ]
    (sample,) = imported(tmp_path, rows)
    assert (sample.chosen, sample.rejected) == ("A.", "A and B.")
    claims = sample.evidence["rejected"]["claims"]
    assert [(claim["text"], claim["spans"], claim["no"] > claim["yes"]) for claim in claims] == [
        ("A", [[0, 1]], False), ("B", [[6, 7]], True)
    ]  # fmt: skip
    with pytest.raises(BadSample, match=r"facts: expected as many as the 2 scores, got \['A'\]"):
        again(tmp_path, [rows[0] | {"facts": ["A"]}], on_bad="raise")


def test_a_question_that_all_rows_lack_is_given_to_them_alone(tmp_path):
    """HA-DPO's descriptions have none, its questions do."""
    rows = [
        {"image_id": 1, "chosen": ["A", "B"], "rejected": ["a", "b"]},
        {"image_id": 2, "question": "What?", "chosen": ["C"], "rejected": ["c"]},
    ]
    samples = imported(tmp_path, rows, prompt="Describe it.")
    assert [(sample.prompt, sample.chosen) for sample in samples] == [
        ("Describe it.", "A"), ("Describe it.", "B"), ("What?", "C")
    ]  # fmt: skip
    assert [sample.images for sample in samples] == [(PHOTO,), (PHOTO,), (OTHER,)]
    with pytest.raises(BadSample, match=r"row 0: expected one of .* or one for all rows by --prompt"):
        again(tmp_path, rows, on_bad="raise", format="lists")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("prompt", "expected each name once with its column"),
        ("", "expected each name once with its column"),
        ("prompt=", "expected each name once with its column"),
        ("prompt=a,prompt=b", "expected each name once with its column"),
        ("prompt=a,chosen=a", "expected each name once with its column"),
        (
            "prompt=query,chosen=god",
            r"--keys names the columns \['god'\], but its first rows have \['good', 'query'\]",
        ),
    ],
)
def test_keys_that_name_no_columns_are_refused(tmp_path, keys, message):
    with pytest.raises(SourceError, match=message):
        imported(tmp_path, [{"query": "What?", "good": "A"}], keys=keys)


def test_keys_win_over_columns_of_their_name(tmp_path):
    row = {"prompt": "What?", "chosen": "A", "rejected": "B", "raw": "Which?"}
    (sample,) = imported(tmp_path, [row], keys="prompt=raw,chosen=rejected,rejected=chosen")
    assert (sample.prompt, sample.chosen, sample.rejected) == ("Which?", "B", "A")


def test_one_bad_pair_of_a_row_leaves_the_others(tmp_path):
    rows = [{"question": "How?", "chosen": ["A", "B", "C"], "rejected": ["a", "B", "c"]}]
    assert [sample.chosen for sample in imported(tmp_path, rows)] == ["A", "C"]
    assert [(record["row"], record["reason"]) for record in dropped(tmp_path)] == [(0, "equal_answers")]


COMPARED = {"question": "How?", "response_1": "A", "response_2": "B", "overall_response": 1}
BAD = [
    ("kto", {"conversations": [QUESTION, gpt("Six.")], "kto_tag": False}, Reason.UNPAIRED),
    ("swift", {"messages": MESSAGES, "label": False}, Reason.UNPAIRED),
    ("trl", {"prompt": "How many?", "completion": "Six.", "label": False}, Reason.UNPAIRED),
    ("kto", {"conversations": [QUESTION, gpt("Six.")], "kto_tag": "perhaps"}, Reason.WRONG_TYPE),
    ("trl", PAIR | {"chosen": [{"from": []}, TWO], "rejected": [{"from": {}}, SIX]}, Reason.WRONG_TYPE),
    ("trl", PAIR | {"video": "1.mp4"}, Reason.VIDEO_OR_AUDIO),
    ("trl", {"messages": [block("video", video="1.mp4"), TWO]}, Reason.VIDEO_OR_AUDIO),
    ("trl", {"id": "7", "video": ["1.mp4"], "prompt": "<video>\nHow many?", **SIDES}, Reason.VIDEO_OR_AUDIO),
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
