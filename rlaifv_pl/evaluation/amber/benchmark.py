"""AMBER from its authors' directory `data`: CHAIR, Cover, Hal and Cog of descriptions, accuracy and F1 of answers by
kind of question."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlaifv_pl.evaluation.amber.count import ImageTruth, Vocabulary, describe_row
from rlaifv_pl.evaluation.amber.nouns import Nouns, RuleNouns
from rlaifv_pl.evaluation.amber.similarity import Similarity, no_similarity
from rlaifv_pl.evaluation.benchmark import Benchmark, Item, unique_items
from rlaifv_pl.evaluation.benchmark_files import (
    BenchmarkError,
    FileRow,
    number_or_text,
    read_file_rows,
    read_json,
    read_text,
)
from rlaifv_pl.evaluation.table_metric import answered, percent
from rlaifv_pl.evaluation.yes_no import LABELS, NO, answer_record, confusion, exact_answer

GROUPS = {
    "": ("existence", "state", "number", "action", "relation"),
    "existence/": ("existence",),
    "attribute/": ("state", "number", "action"),
    "state/": ("state",),
    "number/": ("number",),
    "action/": ("action",),
    "relation/": ("relation",),
}
"""Kinds of question that are measured together, by the prefix of their figures."""

KINDS = {
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
    "discriminative-relation": "relation",
    "relation": "relation",
}
"""Kind of question by its type in the annotations."""

_SMOOTHING = {"existence/": 1e-3}
_USUAL_SMOOTHING = 1e-4
"""Share that AMBER adds to precision plus recall."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question with the right answer."""

    kind: str
    label: int
    """1 for yes."""


_DESCRIPTION = "generative"


class AmberBenchmark(Benchmark):
    """Descriptions of AMBER's images, and questions about them that are answered by a bare Yes or No.

    Args:
        directory: with annotations.json, relation.json, safe_words.txt and query/query_all.json.
        similarity: which nouns mean the same; without, only equal ones do.
        nouns: reads nouns from a description, by rules unless given.

    Raises:
        BenchmarkError: a file is missing or lacks something.
    """

    columns = ("wrong", "nouns", "covered", "truth", "named", "imagined", "answer")
    key_fields = ("id",)
    completion_fields = ("response",)
    writes_list = True

    def __init__(
        self, directory: Path, similarity: Similarity | None = None, nouns: Nouns | None = None
    ) -> None:
        if not directory.is_dir():
            raise BenchmarkError(f"{directory}: expected AMBER's directory `data`, got no directory")
        self.vocabulary = _vocabulary(directory)
        self.words = self.vocabulary.words
        self.similarity = similarity or no_similarity
        self.nouns = nouns or RuleNouns(self.words)
        self._name = f"amber_{'similarity' if similarity else 'exact'}{'_own_nouns' if nouns else ''}"
        items = [
            Item(key=row.key("id"), prompt=row.get(str, "query"), image=row.get(str, "image"))
            for row in read_file_rows(directory / "query" / "query_all.json")
        ]
        self.items = unique_items(items, str(directory))
        annotations = {row.key("id"): row for row in read_file_rows(directory / "annotations.json")}
        if missing := [item.key for item in self.items if item.key not in annotations]:
            raise BenchmarkError(
                f"{directory / 'annotations.json'}: expected a row for each query, got none for {missing[0]}"
            )
        self.truths = [_truth(annotations[item.key]) for item in self.items]
        self.describes = torch.tensor([isinstance(truth, ImageTruth) for truth in self.truths])

    @property
    def name(self) -> str:
        """`amber_exact`, or `amber_similarity`; `_own_nouns` behind it unless nouns are read by the rules here."""
        return self._name

    def row(self, number: int, completion: str) -> tuple[int, ...]:
        """Return the counts of a description, as `describe_row`, and what an answer is read as."""
        truth = self.truths[number]
        if isinstance(truth, Question):
            return (0, 0, 0, 0, 0, 0, exact_answer(completion))
        # Words of other vocabularies do not count, whoever reads them.
        nouns = [noun for noun in self.nouns(completion) if noun in self.words]
        return (*describe_row(nouns, truth, self.vocabulary, self.similarity), 0)

    def record(self, number: int, completion: str) -> dict[str, Any]:
        """Return an answer as `answer_record`, and of a description the counts of its nouns."""
        truth = self.truths[number]
        if isinstance(truth, Question):
            return answer_record(exact_answer(completion), truth.label)
        return dict(zip(self.columns[:-1], self.row(number, completion), strict=False))

    def figures(self, table: Tensor) -> dict[str, float]:
        """Compute the figures of descriptions and of answers, and `AMBER`, the mean of 100 - CHAIR and F1."""
        seen = answered(table)
        asked = [
            (int(table[number, -1]), truth)
            for number, truth in enumerate(self.truths)
            if seen[number] and isinstance(truth, Question)
        ]
        answers = torch.tensor([answer for answer, _ in asked], dtype=torch.long)
        figures = description_figures(table[seen & self.describes, :-1])
        figures |= answer_figures(answers, [question for _, question in asked])
        return {**figures, "AMBER": (100 - figures["CHAIR"] + figures["f1"]) / 2}

    def response_row(self, number: int, completion: str) -> dict[str, Any]:
        """Return {id, response}."""
        return {"id": number_or_text(self.items[number].key), "response": completion}


def description_figures(rows: Tensor) -> dict[str, float]:
    """Compute CHAIR: wrong nouns of all; Cover: covered things of all that are there; Hal: descriptions with a wrong
    noun; Cog: imagined things that are named of all; in per cent, from rows as `describe_row` gives them."""
    wrong, nouns, covered, truth, named, imagined = rows.sum(0).tolist()
    return {
        "CHAIR": percent(wrong, nouns),
        "Cover": percent(covered, truth),
        "Hal": percent((rows[:, 0] > 0).sum(), len(rows)),
        "Cog": percent(named, imagined),
        "n_generative": len(rows),
    }


def answer_figures(answers: Tensor, questions: Sequence[Question]) -> dict[str, float]:
    """Compute accuracy, precision, recall and F1 in per cent, of all questions and by kind; a right no is a hit.

    Args:
        answers: one for each question, as they were read.
        questions: with the right answers.
    """
    labels = torch.tensor([question.label for question in questions])
    figures: dict[str, float] = {}
    for prefix, kinds in GROUPS.items():
        chosen = torch.tensor([question.kind in kinds for question in questions], dtype=torch.bool)
        rates = confusion(answers[chosen], labels[chosen], NO)
        added = 100 * _SMOOTHING.get(prefix, _USUAL_SMOOTHING)
        # From the rounded two, as AMBER has it.
        precision, recall = round(rates["precision"], 1), round(rates["recall"], 1)
        rates["f1"] = 2 * precision * recall / (precision + recall + added)
        figures |= {prefix + name: value for name, value in rates.items()}
    return {**figures, "n_discriminative": len(questions)}


def _vocabulary(directory: Path) -> Vocabulary:
    path = directory / "relation.json"
    related = FileRow(read_json(path, dict), str(path))
    neutral = read_text(directory / "safe_words.txt").split("\n")
    return Vocabulary(
        related={word: related.texts(word) for word in related.fields}, neutral=frozenset(neutral) - {""}
    )


def _truth(row: FileRow) -> ImageTruth | Question:
    kind = row.get(str, "type")
    if kind == _DESCRIPTION:
        return ImageTruth(truth=row.texts("truth"), imagined=row.texts("hallu"))
    if kind not in KINDS:
        raise row.error(f"field 'type': expected {_DESCRIPTION!r} or one of {sorted(KINDS)}, got {kind!r}")
    return Question(kind=KINDS[kind], label=row.one_of(LABELS, "truth"))
