"""Benchmarks of yes and no: POPE and its builder, MME, HallusionBench."""

import json
import math
import random
from collections import Counter

import pytest
import torch

from rlaifv_pl.cli.evaluate import compute_figures
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError
from rlaifv_pl.evaluation.hallusion import HallusionBenchmark
from rlaifv_pl.evaluation.mme import COGNITION, PERCEPTION, MmeBenchmark
from rlaifv_pl.evaluation.pope import PopeBenchmark, PopeQuestion
from rlaifv_pl.evaluation.pope_builder import build_pope
from rlaifv_pl.evaluation.yes_no import (
    NO,
    OTHER,
    YES,
    confusion,
    exact_answer,
    mme_answer,
    pope_answer,
    word_answer,
)
from tests import coco

ANSWERS = {
    # text: (POPE, AMBER, MME, HallusionBench)
    "Yes": (YES, YES, YES, YES),
    "No": (NO, NO, NO, NO),
    "yes": (YES, OTHER, YES, YES),
    "no": (NO, OTHER, NO, NO),
    "NO": (YES, OTHER, NO, NO),
    "No.": (NO, OTHER, NO, NO),
    "No, there is not.": (NO, OTHER, NO, NO),
    "Yes. There is no doubt.": (YES, OTHER, YES, OTHER),
    "There is not a dog.": (NO, OTHER, OTHER, OTHER),
    "It is, no": (NO, OTHER, OTHER, NO),
    "It isn't.": (YES, OTHER, OTHER, OTHER),
    "The answer is yes!": (YES, OTHER, OTHER, YES),
    "Not sure": (YES, OTHER, NO, OTHER),
    "nothing": (YES, OTHER, NO, OTHER),
    "": (YES, OTHER, OTHER, OTHER),
}


@pytest.mark.parametrize("text", ANSWERS)
def test_each_benchmark_reads_answers_in_its_own_way(text):
    readers = (pope_answer, exact_answer, mme_answer, word_answer)
    assert tuple(read(text) for read in readers) == ANSWERS[text]


def test_confusion_is_its_arithmetic():
    """2 hits, 1 false alarm, 1 miss, 1 right no, 1 unread: accuracy 3/6, precision 2/3, recall 2/4."""
    answers = torch.tensor([YES, YES, YES, NO, NO, OTHER])
    labels = torch.tensor([YES, YES, NO, YES, NO, YES])
    found = confusion(answers, labels, YES)
    assert found == pytest.approx(
        {"accuracy": 50.0, "precision": 200 / 3, "recall": 50.0, "f1": 100 * 2 * (1 / 3) / (7 / 6)}
    )
    never = confusion(torch.tensor([NO, NO]), torch.tensor([YES, NO]), YES)
    assert math.isnan(never["precision"]) and math.isnan(never["f1"]) and never["recall"] == 0.0
    assert all(math.isnan(value) for value in confusion(answers[:0], labels[:0], YES).values())


# --- POPE ---------------------------------------------------------------------------------------------

QUESTIONS = [
    PopeQuestion(
        question_id=number, image=f"{number}.jpg", text=f"Is there a cat in image {number}?", label=label
    )
    for number, label in enumerate(["yes", "no", "yes", "no"], start=1)
]


def test_pope_of_answers_in_both_formats(tmp_path):
    """Yes to the first two: 1 of them is right, 1 of the two that are yes was found, 2 of 4 are right."""
    benchmark = PopeBenchmark(QUESTIONS)
    benchmark.save(tmp_path / "questions.json")
    assert PopeBenchmark.load(tmp_path / "questions.json").items == benchmark.items
    texts = ["Yes, I see it.", "Yes.", "No", "no, there is none"]
    completions = dict(enumerate(texts))
    benchmark.write(tmp_path / "pope.jsonl", completions)
    rows = [{"question": asked.text, "answer": text} for asked, text in zip(QUESTIONS, texts, strict=True)]
    (tmp_path / "order.jsonl").write_text("\n".join(map(json.dumps, rows)))
    llava = [{"question_id": n, "prompt": "?", "text": texts[n - 1]} for n in (4, 2, 1, 3)]
    (tmp_path / "llava.jsonl").write_text("\n".join(map(json.dumps, llava)))
    for name in ("pope", "order", "llava"):
        assert benchmark.read(tmp_path / f"{name}.jsonl") == completions
    _, found = compute_figures(benchmark, completions)
    expected = {"accuracy": 50.0, "precision": 50.0, "recall": 50.0, "f1": 50.0, "yes_ratio": 50.0}
    assert found == {**expected, "n": 4, "n_missing": 0}


def test_bad_answers_to_pope_are_named(tmp_path):
    benchmark, path = PopeBenchmark(QUESTIONS), tmp_path / "answers.jsonl"
    for rows, message in (
        ([{"question_id": 9, "text": "no"}], r"line 1: field 'question_id': expected an item .*'1', got '9'"),
        ([{"question_id": 1, "text": "no"}] * 2, r"line 2: .*expected one response to each item"),
        ([{"answer": "no"}], r"expected 4 rows, one for each question in its order, got 1"),
        ([{"question": "Is it?", "answer": "no"}] * 4, r"line 1: field 'question'"),
    ):
        path.write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(BenchmarkError, match=message):
            benchmark.read(path)
    path.write_text('{"question_id": 1, "image": "a", "text": "b", "label": "maybe"}')
    with pytest.raises(BenchmarkError, match=r"field 'label': expected one of \['no', 'yes'\], got 'maybe'"):
        PopeBenchmark.load(path)


def random_objects(images: int = 40) -> dict[str, list[str]]:
    rng = random.Random(0)
    names = [f"thing{number}" for number in range(12)]
    weights = [12 - number for number in range(12)]
    return {f"{n}.jpg": sorted(set(rng.choices(names, weights, k=rng.randint(1, 7)))) for n in range(images)}


@pytest.mark.parametrize("strategy", ["random", "popular", "adversarial"])
def test_questions_are_balanced_true_and_repeatable(strategy):
    objects = random_objects()
    questions = build_pope(objects, strategy)
    used = [image for image, names in objects.items() if len(names) >= 3]
    assert Counter(q.image for q in questions) == dict.fromkeys(used, 6)
    assert Counter(q.label for q in questions) == {"yes": 3 * len(used), "no": 3 * len(used)}
    for asked in questions:
        name = asked.text.removeprefix("Is there a ").removesuffix(" in the image?")
        assert (name in objects[asked.image]) == (asked.label == "yes")
    assert len({(q.image, q.text) for q in questions}) == len(questions)
    assert [q.question_id for q in questions] == list(range(1, len(questions) + 1))
    assert questions == build_pope(objects, strategy) != build_pope(objects, strategy, seed=1)


def test_absent_objects_are_the_most_frequent_or_the_closest():
    """Beside a cat stand a cup (3 times) and a pen (twice), but hats (4) and cups (4) are on more images."""
    objects = {
        "x": ["cat"],
        **{f"c{n}": ["cat", "cup"] for n in range(3)},
        **{f"p{n}": ["cat", "pen"] for n in range(2)},
    }
    objects |= {f"h{n}": ["hat"] for n in range(4)} | {"d": ["cup"]}
    asked = {
        strategy: {
            question.text.split()[3]
            for question in build_pope(objects, strategy, per_side=1)
            if question.image == "p0" and question.label == "no"
        }
        for strategy in ("popular", "adversarial")
    }
    assert asked["adversarial"] == {"cup"} and asked["popular"] <= {"cup", "hat"}
    two = [q.text for q in build_pope({"a": ["owl", "cat"], "b": ["cup", "pen"]}, "random", per_side=2)]
    assert "Is there an owl in the image?" in two
    with pytest.raises(ValueError, match="none of 2 images"):
        build_pope({"a": ["owl", "cat"], "b": ["cup"]}, "random", per_side=2)


@coco.needs_real_photos
def test_real_photos_give_as_many_questions_as_the_rule_says():
    """57 of the 128 photos show three classes or more."""
    content = json.loads((coco.ROOT / "objects.json").read_text())
    objects = {name: list(photo["counts"]) for name, photo in content.items()}
    assert {len(build_pope(objects, strategy)) for strategy in ("random", "popular", "adversarial")} == {342}


# --- MME ----------------------------------------------------------------------------------------------


def write_mme(directory, predictions=None):
    """Two images with two questions in each of two categories."""
    directory.mkdir(exist_ok=True)
    for category in ("existence", "count"):
        lines = []
        for image in ("a.jpg", "b.jpg"):
            for label in ("Yes", "No"):
                fields = [image, f"Is it {label}?", label]
                lines.append(
                    "\t".join(fields + ([predictions[category, image, label]] if predictions else []))
                )
        (directory / f"{category}.txt").write_text("\n".join(lines) + "\n")
    return directory


def test_mme_counts_questions_and_images(tmp_path):
    """existence: 4 of 4, 2 of 2 images; count: 2 of 4 (one is unread), 0 of 2 images."""
    said = {
        (category, image, label): label
        for category in ("existence", "count")
        for image in ("a.jpg", "b.jpg")
        for label in ("Yes", "No")
    }
    said |= {("count", "a.jpg", "No"): "yes, sure", ("count", "b.jpg", "Yes"): "I think yes"}
    benchmark = MmeBenchmark.load(write_mme(tmp_path / "questions"))
    completions = benchmark.read(write_mme(tmp_path / "answers", said))
    _, found = compute_figures(benchmark, completions)
    assert found["existence/score"] == 200 and found["existence/acc+"] == 100
    assert (found["count/acc"], found["count/acc+"], found["count/score"]) == (50, 0, 50)
    assert found["perception"] is None and found["cognition"] is None and found["n"] == 8
    benchmark.write(tmp_path / "again", completions)
    assert benchmark.read(tmp_path / "again") == completions
    with pytest.raises(BenchmarkError, match=r"count\.txt, line 1: expected a field 'prediction'"):
        benchmark.read(tmp_path / "questions")
    (tmp_path / "answers" / "count.txt").write_text("a.jpg\tIs it?\n")
    with pytest.raises(BenchmarkError, match=r"count\.txt, line 1: expected image, question, answer"):
        benchmark.read(tmp_path / "answers")
    with pytest.raises(BenchmarkError, match=r"expected MME's directory"):
        MmeBenchmark.load(tmp_path)


def test_mme_sums_its_categories(tmp_path):
    """All right in 13 categories, all wrong in one of cognition: 10 x 200 and 3 x 200."""
    for category in (*PERCEPTION, *COGNITION):
        answer = "no" if category == "code_reasoning" else "yes"
        (tmp_path / f"{category}.txt").write_text(f"a.jpg\tIs it?\tYes\t{answer}\r\n")
    benchmark = MmeBenchmark.load(tmp_path)
    _, found = compute_figures(benchmark, benchmark.read(tmp_path))
    assert (found["perception"], found["cognition"]) == (2000, 600)


# --- HallusionBench -----------------------------------------------------------------------------------


def hallusion_row(question: int, figure: int, label: int, said: str, visual_input: int = 1) -> dict:
    return {
        "category": "VS",
        "subcategory": "map",
        "set_id": "0",
        "question_id": str(question),
        "figure_id": str(figure),
        "visual_input": str(visual_input),
        "gt_answer": str(label),
        "question": f"Question {question}?",
        "filename": f"{figure}.png",
        "model_prediction": said,
    }


def test_hallusionbench_counts_questions_and_figures(tmp_path):
    """Right: question 0 of figures 1 and 2, question 1 of figure 2. So 3 of 4, 1 of 2 questions, 1 of 2 figures; the
    row without image is left out."""
    rows = [
        hallusion_row(0, 0, 1, "no", visual_input=0),
        hallusion_row(0, 1, 1, "Yes."),
        hallusion_row(1, 1, 0, "yes"),
        hallusion_row(0, 2, 0, "It is: no"),
        hallusion_row(1, 2, 1, "yes"),
    ]
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(rows))
    benchmark = HallusionBenchmark.load(path)
    completions = benchmark.read(path)
    name, found = compute_figures(benchmark, completions)
    assert name == "hallusionbench_yes_no" and len(benchmark.items) == 4
    assert (found["aAcc"], found["qAcc"], found["fAcc"]) == (75, 50, 50)
    assert (found["yes_ratio"], found["n_unread"], found["n"]) == (75, 0, 4)
    benchmark.write(tmp_path / "again.json", completions)
    assert benchmark.read(tmp_path / "again.json") == completions
    path.write_text(json.dumps([hallusion_row(7, 1, 1, "yes")]))
    with pytest.raises(BenchmarkError, match=r"entry 0: field 'category'.*expected an item"):
        benchmark.read(path)
