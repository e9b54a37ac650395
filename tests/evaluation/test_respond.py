"""A model answers benchmarks about real photos, in one go, killed in between, and in two processes."""

import json

import pytest
from PIL import Image

from rlaifv_pl.cli.commands import main
from rlaifv_pl.evaluation.benchmark import Item
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError
from rlaifv_pl.evaluation.hallusion import HallusionBenchmark
from rlaifv_pl.evaluation.pope import PopeBenchmark, PopeQuestion
from rlaifv_pl.evaluation.responder import Responder, answer_benchmark, find_images
from rlaifv_pl.feedback.engines.engine import Completion, EngineError
from tests import coco
from tests.feedback.openai_server import ChatServer
from tests.kill.start import Command

ENGINE = "rlaifv_pl.feedback.engines.openai_engine.OpenAIEngine"
PHOTOS = 4
JPEG = b"\xff\xd8\xff"
"""How a file begins that is kept as it is."""
POPE = "evaluate --metric pope --ground_truth questions.json --responses answers.jsonl --out pope.json"
PAPER = "pope objects.json questions.json --strategy random --per_side 2"
QUESTIONS = [
    PopeQuestion(question_id=number, image=f"{number % 3}.jpg", text=f"Is it {number}?", label="yes")
    for number in range(7)
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(home):
    """A directory with some photos, and their objects in a file."""
    chosen = [photo for photo in coco.photos() if len(photo.counts) >= 2][:PHOTOS]
    (home / "photos").mkdir()
    for photo in chosen:
        (home / "photos" / f"COCO_val2014_{photo.name}.jpg").symlink_to(photo.path)
    objects = {f"COCO_val2014_{photo.name}.jpg": sorted(photo.counts) for photo in chosen}
    (home / "objects.json").write_text(json.dumps(objects))
    return chosen


@pytest.fixture
def drawn(home):
    """Three files that stand for images, to whoever does not look at them."""
    (home / "images").mkdir()
    for number in range(3):
        (home / "images" / f"{number}.jpg").write_bytes(JPEG + b"image %d" % number)
    return home / "images"


class Echo:
    """Says which question and which image it was shown; goes away at a call of choice."""

    identity = "echo"

    def __init__(self, breaks_at: int | None = None) -> None:
        self.breaks_at, self.asked = breaks_at, []

    def sample(self, samples, seeds, sampling):
        assert sampling.temperature == 0 and all(len(own) == 1 for own in seeds)
        if len(self.asked) == self.breaks_at:
            raise EngineError("the server went away")
        self.asked.append([sample.key for sample in samples])
        shown = [b"".join(image.removeprefix(JPEG) for image in one.images).decode() for one in samples]
        return [
            [Completion(f"{one.prompt} {image}", True)] for one, image in zip(samples, shown, strict=True)
        ]

    def release(self):
        pass


def said_by(engine, images, out, **how) -> str:
    """What is written of the questions' answers."""
    responder = Responder(images=str(images), engine=engine, batch_size=2, **how)
    answer_benchmark(PopeBenchmark(QUESTIONS), responder, out)
    return out.read_text() if out.exists() else ""


def answer(home, command: str, *more: str) -> None:
    main([*command.split(), "--model.images", "photos", "--model.max_new_tokens", "4", *more])


def test_pope_is_made_answered_and_measured_in_one_command(home, photos, family_dir):
    main(PAPER.split())
    model = ("--model.path", str(family_dir("llava")))
    answer(home, POPE, *model)
    report = json.loads((home / "pope.json").read_text())
    asked = [json.loads(line) for line in (home / "questions.json").read_text().splitlines()]
    said = [json.loads(line) for line in (home / "answers.jsonl").read_text().splitlines()]
    assert report["n"] == len(asked) == 4 * PHOTOS and report["model"] == model[1]
    assert [row["question"] for row in said] == [row["text"] for row in asked]
    assert len({row["answer"] for row in said}) > 4  # Of other images and questions it says other things.
    main(POPE.replace("pope.json", "again.json").split())
    again = json.loads((home / "again.json").read_text())
    assert {**again, "model": model[1]} == report


def test_photos_are_described_for_chair(home, photos, family_dir):
    options = "--metric chair --ground_truth objects.json --responses R.jsonl --variant A --out chair.json"
    answer(
        home, f"evaluate {options} --model.prompt_template Look:", "--model.path", str(family_dir("llava"))
    )
    rows = [json.loads(line) for line in (home / "R.jsonl").read_text().splitlines()]
    assert [row["image_id"] for row in rows] == [int(photo.name) for photo in photos]
    assert json.loads((home / "chair.json").read_text())["n"] == PHOTOS
    before = (home / "R.jsonl").read_bytes()
    respond = "respond --metric chair --ground_truth objects.json --out R.jsonl"
    answer(home, respond, "--model.path", str(family_dir("llava")))
    assert (home / "R.jsonl").read_bytes() != before  # Another prompt has other answers.


def test_killed_in_the_middle_the_same_command_goes_on(home, photos, family_dir, warm):
    main(PAPER.split())
    how = ("--model.path", str(family_dir("llava")), "--model.batch_size", "1")
    warm.directory = home

    def respond(out: str) -> Command:
        there = {"--ground_truth": "questions.json", "--out": out, "--model.images": "photos"}
        named = [word for name, path in there.items() for word in (name, str(home / path))]
        return Command("rlaifv", ["respond", "--metric", "pope", *named, "--model.max_new_tokens", "4", *how])

    # In a process of its own as well: the last bits of logits, by which ties fall, differ from process to process.
    assert warm.start(respond("whole.jsonl"))
    killed = respond("R.jsonl")
    assert not warm.start(killed, moment="change:9") and not (home / "R.jsonl").exists()
    made = {path: path.stat().st_mtime_ns for path in home.glob("R.jsonl.parts/*/*.jsonl")}
    assert 0 < len(made) < 4 * PHOTOS
    assert warm.start(killed)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert (home / "R.jsonl").read_bytes() == (home / "whole.jsonl").read_bytes()


def test_a_server_answers_as_well(drawn, home, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "")
    for path in drawn.iterdir():
        Image.new("RGB", (8, 8), (int(path.stem), 0, 0)).save(path, "JPEG")
    PopeBenchmark(QUESTIONS).save(home / "Q.jsonl")
    with ChatServer() as server:
        main(
            [
                "respond", "--metric", "pope", "--ground_truth", "Q.jsonl", "--out", "R.jsonl",
                "--model.images", "images", "--model.engine", ENGINE,
                "--model.engine.model", "m", "--model.engine.base_url", server.url,
            ]
        )  # fmt: skip
    rows = [json.loads(line) for line in (home / "R.jsonl").read_text().splitlines()]
    assert len(rows) == 7 and len({row["answer"] for row in rows}) == 7


def test_each_item_is_asked_with_its_prompt_and_its_image(drawn, home):
    engine = Echo()
    rows = map(
        json.loads, said_by(engine, drawn, home / "R.jsonl", prompt_template="{prompt} {yes|no}").splitlines()
    )
    assert [row["answer"] for row in rows] == [f"Is it {n}? {{yes|no}} image {n % 3}" for n in range(7)]
    assert engine.asked == [["0", "1"], ["2", "3"], ["4", "5"], ["6"]]


@pytest.mark.parametrize("calls", range(4))
def test_after_a_break_only_what_is_missing_is_asked(drawn, home, calls):
    whole = said_by(Echo(), drawn, home / "whole.jsonl")
    with pytest.raises(EngineError):
        said_by(Echo(breaks_at=calls), drawn, home / "R.jsonl")
    assert not (home / "R.jsonl").exists()
    rest = Echo()
    assert said_by(rest, drawn, home / "R.jsonl") == whole
    assert rest.asked == [["0", "1"], ["2", "3"], ["4", "5"], ["6"]][calls:]
    once_more = Echo()
    assert said_by(once_more, drawn, home / "R.jsonl") == whole and once_more.asked == []


def test_another_model_prompt_or_image_is_asked_anew(drawn, home):
    said_by(Echo(), drawn, home / "R.jsonl")
    other = Echo()
    other.identity = "other"
    (changed := home / "changed").mkdir()
    for number in range(3):
        (changed / f"{number}.jpg").write_bytes(JPEG + b"other %d" % number)
    for engine, images, how in (
        (other, drawn, {}),
        (Echo(), drawn, {"prompt_template": "Well?"}),
        (Echo(), drawn, {"max_new_tokens": 9}),
        (Echo(), changed, {}),
    ):
        said_by(engine, images, home / "R.jsonl", **how)
        assert len(engine.asked) == 4


def test_the_first_items_are_asked_alone_and_measured_alone(drawn, home):
    engine = Echo()
    rows = [json.loads(line) for line in said_by(engine, drawn, home / "R.jsonl", limit=3).splitlines()]
    assert [row["question_id"] for row in rows] == [0, 1, 2] and engine.asked == [["0", "1"], ["2"]]
    PopeBenchmark(QUESTIONS).save(home / "Q.jsonl")
    (drawn / "2.jpg").unlink()  # Images of the others need not be there.
    more = Echo()
    said_by(more, drawn, home / "R2.jsonl", limit=2)
    main(
        [
            "evaluate",
            "--metric",
            "pope",
            "--responses",
            "R.jsonl",
            "--ground_truth",
            "Q.jsonl",
            "--out",
            "O.json",
        ]
    )
    report = json.loads((home / "O.json").read_text())
    assert (report["n"], report["n_missing"], report["accuracy"]) == (3, 4, 100)


def test_two_processes_leave_what_one_does(drawn, home, monkeypatch):
    whole = said_by(Echo(), drawn, home / "whole.jsonl")
    monkeypatch.setenv("WORLD_SIZE", "2")
    engines = {"1": Echo(), "0": Echo()}
    for rank, engine in engines.items():
        monkeypatch.setenv("RANK", rank)
        said = said_by(engine, drawn, home / "R.jsonl")
        assert said == ("" if rank == "1" else whole)
    assert engines["0"].asked == [["0", "1"], ["4", "5"]] and engines["1"].asked == [["2", "3"], ["6"]]


def test_images_are_found_as_benchmarks_name_them(home):
    names = ("a/000000000042.jpg", "a/x.y.png", "b/images/7.jpg", "VS/chart/0_1.png", "b/q.webp")
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"")
    asked = ("a/42", "a/COCO_val2014_000000000042.jpg", "a/x.y", "b/7.jpg", "./VS/chart/0_1.png", "b/q", "")
    found = find_images(asked, home)
    expected = [names[0], names[0], names[1], names[2], names[3], names[4]]
    assert found == [*(home / name for name in expected), None]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("9.jpg", "expected an image '9.jpg', got none (1 of 2 are missing)"),
        ("2", "expected one image '2', got 2.jpg and 2.png"),
        ("../secret", "expected images below it"),
    ],
)
def test_an_image_that_is_not_there_is_named(drawn, home, name, said):
    (drawn / "2.png").write_bytes(b"")
    (home / "secret").write_bytes(b"")
    with pytest.raises(BenchmarkError) as error:
        find_images(["0.jpg", name], drawn)
    assert said in str(error.value) and str(drawn) in str(error.value)


def test_an_item_without_a_prompt_is_named(drawn, home):
    benchmark = PopeBenchmark(QUESTIONS)
    benchmark.items = [Item(key="k1", prompt="", image="0.jpg")]
    with pytest.raises(BenchmarkError, match="item 'k1' has no prompt"):
        answer_benchmark(benchmark, Responder(images=str(drawn), engine=Echo()), home / "R.jsonl")


def test_official_rows_keep_what_they_had(drawn, home):
    row = {"category": "VS", "subcategory": "map", "set_id": "1", "question_id": "0", "figure_id": "1"}
    row |= {"visual_input": "1", "filename": "./1.jpg", "question": "Is it?", "gt_answer": "1"}
    (home / "H.json").write_text(json.dumps([row]))
    responder = Responder(images=str(drawn), engine=Echo())
    benchmark = HallusionBenchmark.load(home / "H.json")
    answer_benchmark(benchmark, responder, home / "new" / "R.json")
    assert json.loads((home / "new" / "R.json").read_text()) == [row | {"model_prediction": "Is it? image 1"}]
    assert benchmark.read(home / "new" / "R.json") == {0: "Is it? image 1"}


MISTAKES = {
    "evaluate --metric mmhal --responses R": "then `rlaifv judge mmhal`",
    "evaluate --metric mme --responses R": "give --ground_truth",
    f"respond --metric pope --ground_truth Q --out R --model.engine {ENGINE} --model.engine.model m": "one of them",
    "respond --metric mmstar --ground_truth Q --out ./Q": "name another place",
    "respond --metric pope --ground_truth none.json --out R": "none.json cannot be read",
    "respond --metric pope --ground_truth Q --out R --model.batch_size 0": "at least 1",
    "respond --metric pope --ground_truth Q --out R --model.limit 0": "limit must be at least 1 item",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_message(home, command, capsys):
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "--model.images", ".", "--model.path", "DIR"])
    said = str(left.value) + capsys.readouterr().err
    assert MISTAKES[command] in said and "Traceback" not in said and not (home / "R").exists()


def test_a_model_is_a_directory_or_an_engine():
    with pytest.raises(ValueError, match="give one of them"):
        Responder(images=".")
    with pytest.raises(ValueError, match="give one of them"):
        Responder(images=".", path="DIR", engine=Echo())
    with pytest.raises(ValueError, match=r"model\.dtype"):
        Responder(images=".", engine=Echo(), dtype="bfloat16")
