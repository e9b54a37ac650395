"""Answers of yes and no: how each benchmark reads them, and the figures that they share."""

import re
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlaifv_pl.evaluation.benchmark import Benchmark
from rlaifv_pl.evaluation.table_metric import percent

NO, YES, OTHER = 0, 1, 2
"""Readings of an answer; OTHER is neither."""

LABELS = {"yes": YES, "no": NO}

WORDS = ("no", "yes", "neither")
"""Names of what is read."""

_NO_WORDS = {"No", "no", "not"}
_MME_PREFIX = 4
_MARKS = re.compile(r"[^\w\s']")


def pope_answer(text: str) -> int:
    """Read an answer as POPE does: no if the first sentence has a no or a not in it, else yes.

    >>> pope_answer("There is not, I think."), pope_answer("Yes. No doubt."), pope_answer("NO")
    (0, 1, 1)
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return NO if _NO_WORDS & set(words) else YES


def exact_answer(text: str) -> int:
    """Read an answer as AMBER does: the word alone, as it is written here.

    >>> exact_answer("Yes"), exact_answer("No"), exact_answer("yes"), exact_answer("No.")
    (1, 0, 2, 2)
    """
    return {"Yes": YES, "No": NO}.get(text, OTHER)


def mme_answer(text: str) -> int:
    """Read an answer as MME does: a yes, or else a no, among the first four letters.

    >>> mme_answer("Yes, it is."), mme_answer("No"), mme_answer("I do not know")
    (1, 0, 2)
    """
    text = text.lower()
    if text in LABELS:
        return LABELS[text]
    return next((label for word, label in LABELS.items() if word in text[:_MME_PREFIX]), OTHER)


def word_answer(text: str) -> int:
    """Read an answer as HallusionBench is read without a judge: a yes or a no anywhere, but not both.

    >>> word_answer("The answer is: yes."), word_answer("no, not at all"), word_answer("yes and no")
    (1, 0, 2)
    """
    words = set(_MARKS.sub(" ", text.lower()).split())
    labels = [label for word, label in LABELS.items() if word in words]
    return labels[0] if len(labels) == 1 else OTHER


class YesNoBenchmark(Benchmark):
    """A benchmark whose questions are answered with yes or no."""

    columns = ("answer",)
    read_answer: ClassVar[Callable[[str], int]]
    """One of the functions above."""
    labels: Tensor
    """(items,) right answers."""

    def row(self, number: int, completion: str) -> tuple[int]:
        """Return what the answer is read as."""
        return (type(self).read_answer(completion),)

    def record(self, number: int, completion: str) -> dict[str, Any]:
        """Return the answer beside the right one, as `answer_record`."""
        return answer_record(type(self).read_answer(completion), int(self.labels[number]))


def answer_record(answer: int, label: int) -> dict[str, Any]:
    """Return an answer beside the right one, for people to read.

    >>> answer_record(OTHER, YES)
    {'read_as': 'neither', 'expected': 'yes', 'right': False}
    """
    return {"read_as": WORDS[answer], "expected": WORDS[label], "right": answer == label}


def confusion(answers: Tensor, labels: Tensor, positive: int) -> dict[str, float]:
    """Compute accuracy, precision, recall and F1 in per cent; nan where there is nothing to divide by.

    Args:
        answers: of those that were asked.
        labels: right answers.
        positive: what counts as a hit.
    """
    predicted, actual = answers == positive, labels == positive
    hits = (predicted & actual).sum()
    precision, recall = percent(hits, predicted.sum()), percent(hits, actual.sum())
    return {
        "accuracy": percent((answers == labels).sum(), len(labels)),
        "precision": precision,
        "recall": recall,
        # Nan if one of the two is, zero if both are.
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
    }


def all_right(right: Tensor, group: Tensor) -> tuple[int, int]:
    """Count groups of which every member is right, and all groups.

    Args:
        right: booleans.
        group: number of each one's group.
    """
    groups = torch.unique(group)
    return sum(bool(right[group == one].all()) for one in groups), len(groups)


def numbered(names: list[Any]) -> Tensor:
    """Return a number for each name, equal names having one number."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names], dtype=torch.long)
