"""AMBER on a vocabulary of a few words, by hand."""

import json
import math

import pytest

from rlaifv_pl.cli.evaluate import compute_figures
from rlaifv_pl.evaluation.amber.benchmark import AmberBenchmark
from rlaifv_pl.evaluation.amber.count import ImageTruth, Vocabulary, describe_row
from rlaifv_pl.evaluation.amber.nouns import RuleNouns
from rlaifv_pl.evaluation.amber.similarity import SimilarityTable, no_similarity
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError
from rlaifv_pl.evaluation.table_metric import TableMetric

VOCABULARY = Vocabulary(
    related={
        "person": ["man", "woman"],
        "sea": ["water"],
        "sky": [],
        "cloud": [],
        "bird": [],
        "dog": [],
        "light": [],
    },
    neutral={"light"},
)
SHOWN = ImageTruth(truth=["sky", "person", "sea"], imagined=["cloud", "bird"])

COUNTS = {
    # nouns: wrong, nouns, covered, truth, named, imagined
    "": (0, 0, 0, 3, 0, 2),
    "sky man woman": (0, 3, 2, 3, 0, 2),
    "sky sky": (0, 2, 1, 3, 0, 2),
    "light dog": (1, 2, 0, 3, 0, 2),
    "bird bird cloud": (3, 3, 0, 3, 2, 2),
    "water bird": (1, 2, 1, 3, 1, 2),
}


@pytest.mark.parametrize("nouns", COUNTS)
def test_descriptions_are_counted_by_the_rules(nouns):
    assert describe_row(nouns.split(), SHOWN, VOCABULARY, no_similarity) == COUNTS[nouns]


def test_words_that_are_alike_stand_for_each_other():
    """The dog is like a bird, which is imagined, and like the sea, which is there: it marks one, covers the other, and
    is not wrong. A cloud comes before the bird that it is like, so a cloud marks itself alone, and a bird both. At 0.8
    nothing is alike."""
    alike = SimilarityTable(
        {("dog", "bird"): 0.9, ("sea", "dog"): 0.81, ("cloud", "bird"): 0.85, ("dog", "sky"): 0.8}
    )
    assert alike("bird", "dog") == 0.9 and alike("sky", "sea") == 0.0 and alike("sky", "sky") == 1.0
    assert describe_row(["dog"], SHOWN, VOCABULARY, alike) == (0, 1, 1, 3, 1, 2)
    assert describe_row(["cloud"], SHOWN, VOCABULARY, alike) == (1, 1, 0, 3, 1, 2)
    assert describe_row(["bird"], SHOWN, VOCABULARY, alike) == (1, 1, 0, 3, 2, 2)


def test_a_noun_covers_the_first_thing_that_it_can_stand_for():
    """Related words come before the things themselves, and of equal things the first is covered alone."""
    vocabulary = Vocabulary(related={"man": [], "person": ["man"], "ship": []}, neutral=())
    shown = ImageTruth(truth=["man", "person", "ship", "ship"], imagined=["ship"])
    assert describe_row(["man", "man", "ship", "ship"], shown, vocabulary, no_similarity) == (
        0,
        4,
        2,
        4,
        0,
        1,
    )


NOUNS = {
    "Two dogs and a dog.": ["dog", "dog"],
    "Dogs run": [],
    "People can watch, a can of beer": ["can"],
    "He wears a watch to watch the leaves": ["watch"],
    "mice, knives; women": ["mouse", "knife", "woman"],
    "hot vases": [],
}


@pytest.mark.parametrize("text", NOUNS)
def test_nouns_are_found_where_they_are_nouns(text):
    """Words in capitals are none, as for AMBER's own scorer, nor are some plurals that WordNet misreads."""
    assert (
        RuleNouns({"dog", "can", "watch", "mouse", "knife", "woman", "hot", "vase", "leave"})(text)
        == NOUNS[text]
    )


QUESTIONS = [
    ("discriminative-hallucination", "no", "No"),
    ("discriminative-hallucination", "no", "Yes"),
    ("discriminative-attribute-state", "yes", "Yes"),
    ("discriminative-attribute-state", "no", "no"),
    ("discriminative-attribute-number", "yes", "No"),
    ("discriminative-relation", "yes", "Yes"),
    ("relation", "no", "No"),
]


@pytest.fixture
def home(tmp_path):
    """AMBER's directory: one image with a description, and questions; responses beside it."""
    (tmp_path / "query").mkdir()
    shown = {"id": 1, "type": "generative", "truth": ["sky", "sea"], "hallu": ["bird"]}
    labels = [
        {"id": n, "type": kind, "truth": label} for n, (kind, label, _) in enumerate(QUESTIONS, start=2)
    ]
    queries = [{"id": n, "image": "AMBER_1.jpg", "query": f"Query {n}"} for n in range(1, 9)]
    said = [{"id": n, "response": text} for n, (_, _, text) in enumerate(QUESTIONS, start=2)]
    said.append({"id": 1, "response": "A bird flies in the sky and a dog barks at birds."})
    for name, content in (
        ("annotations.json", [shown, *labels]),
        ("query/query_all.json", queries),
        ("relation.json", VOCABULARY.related),
        ("responses.json", said),
    ):
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "safe_words.txt").write_text("light\n")
    return tmp_path


def test_figures_of_descriptions_and_answers(home):
    """Nouns bird, sky, dog, bird: 3 of 4 wrong, 1 of 2 things covered, the 1 imagined thing is named. Answers: 4 of 7
    are right; of 3 said No 2 are right, of 4 that are no 2 were found."""
    benchmark = AmberBenchmark(home)
    name, found = compute_figures(benchmark, benchmark.read(home / "responses.json"))
    assert name == "amber_exact"
    assert (found["CHAIR"], found["Cover"], found["Hal"], found["Cog"]) == (75, 50, 100, 100)
    assert found["accuracy"] == pytest.approx(400 / 7)
    assert found["precision"] == pytest.approx(200 / 3) and found["recall"] == 50
    f1 = 100 * 2 * 0.667 * 0.5 / (0.667 + 0.5 + 0.0001)
    assert found["f1"] == pytest.approx(f1) and found["AMBER"] == pytest.approx((25 + f1) / 2)
    assert (found["existence/accuracy"], found["existence/precision"], found["existence/recall"]) == (
        50,
        100,
        50,
    )
    assert found["existence/f1"] == pytest.approx(100 * 2 * 0.5 / (1.5 + 0.001))
    assert (found["attribute/accuracy"], found["relation/accuracy"]) == (pytest.approx(100 / 3), 100)
    assert found["action/accuracy"] is None and found["state/precision"] is None
    assert (found["n_generative"], found["n_discriminative"], found["n"], found["n_missing"]) == (1, 7, 8, 0)


def test_half_of_the_responses_leave_the_other_half_undefined(home):
    benchmark = AmberBenchmark(home)
    metric = TableMetric(benchmark)
    metric.update(["A sky."], [0])
    found = metric.compute()
    assert found["CHAIR"] == 0 and math.isnan(found["f1"]) and math.isnan(found["AMBER"])
    assert found["n_discriminative"] == 0 and found["n_missing"] == 7


def test_similarity_and_another_tagger_are_in_the_name(home):
    (home / "alike.tsv").write_text("dog\tsea\t0.9\n")
    alike = SimilarityTable.load(home / "alike.tsv")
    benchmark = AmberBenchmark(home, alike, nouns=lambda text: ["dog", "house"] if "dog" in text else [])
    name, found = compute_figures(benchmark, {0: "the dog in the house"})
    assert name == "amber_similarity_own_nouns" and (found["CHAIR"], found["Cover"]) == (0, 50)
    (home / "alike.tsv").write_text("dog sea 0.9\n")
    with pytest.raises(
        BenchmarkError, match=r"alike\.tsv, line 1: expected two words and a number between tabs"
    ):
        SimilarityTable.load(home / "alike.tsv")


def test_responses_are_written_as_amber_reads_them(home):
    benchmark = AmberBenchmark(home)
    completions = benchmark.read(home / "responses.json")
    benchmark.write(home / "again.json", completions)
    assert json.loads((home / "again.json").read_text())[1] == {"id": 2, "response": "No"}
    assert benchmark.read(home / "again.json") == completions
    assert (benchmark.items[0].prompt, benchmark.items[0].image) == ("Query 1", "AMBER_1.jpg")


def test_bad_files_are_named(home):
    annotations = json.loads((home / "annotations.json").read_text())
    (home / "annotations.json").write_text(
        json.dumps([*annotations[:-1], {"id": 8, "type": "odd", "truth": "no"}])
    )
    with pytest.raises(BenchmarkError, match=r"entry 7: field 'type': expected 'generative' or one of"):
        AmberBenchmark(home)
    (home / "annotations.json").write_text(json.dumps(annotations[:-1]))
    with pytest.raises(
        BenchmarkError, match=r"annotations\.json: expected a row for each query, got none for 8"
    ):
        AmberBenchmark(home)
    (home / "safe_words.txt").unlink()
    with pytest.raises(BenchmarkError, match=r"safe_words\.txt cannot be read"):
        AmberBenchmark(home)
