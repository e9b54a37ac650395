"""Answers of yes and no: how each benchmark reads them, and the figures that they all share."""

import re
from typing import Any

import torch
from torch import Tensor

from rlaifv_pl.evaluation.table_metric import percent

NO, YES, OTHER = 0, 1, 2
"""What an answer is read as; OTHER is neither."""

LABELS = {"yes": YES, "no": NO}

WORDS = ("no", "yes", "neither")
"""What is read, in words."""

_NO_WORDS = {"No", "no", "not"}
_MME_PREFIX = 4
_MARKS = re.compile(r"[^\w\s']")


def pope_answer(text: str) -> int:
    """As POPE reads: no if the first sentence has a no or a not in it, else yes.

    >>> pope_answer("There is not, I think."), pope_answer("Yes. No doubt."), pope_answer("NO")
    (0, 1, 1)
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return NO if _NO_WORDS & set(words) else YES


def exact_answer(text: str) -> int:
    """As AMBER reads: the word alone, as it is written here.

    >>> exact_answer("Yes"), exact_answer("No"), exact_answer("yes"), exact_answer("No.")
    (1, 0, 2, 2)
    """
    return {"Yes": YES, "No": NO}.get(text, OTHER)


def mme_answer(text: str) -> int:
    """As MME reads: a yes, or else a no, among the first four letters.

    >>> mme_answer("Yes, it is."), mme_answer("No"), mme_answer("I do not know")
    (1, 0, 2)
    """
    text = text.lower()
    if text in LABELS:
        return LABELS[text]
    return next((label for word, label in LABELS.items() if word in text[:_MME_PREFIX]), OTHER)


def word_answer(text: str) -> int:
    """As HallusionBench is read without a judge: a yes or a no anywhere, but not both.

    >>> word_answer("The answer is: yes."), word_answer("no, not at all"), word_answer("yes and no")
    (1, 0, 2)
    """
    words = set(_MARKS.sub(" ", text.lower()).split())
    found = [label for word, label in LABELS.items() if word in words]
    return found[0] if len(found) == 1 else OTHER


def answer_record(answer: int, label: int) -> dict[str, Any]:
    """An answer beside the right one, for people to read.

    >>> answer_record(OTHER, YES)
    {'read_as': 'neither', 'expected': 'yes', 'right': False}
    """
    return {"read_as": WORDS[answer], "expected": WORDS[label], "right": answer == label}


def confusion(answers: Tensor, labels: Tensor, positive: int) -> dict[str, float]:
    """Accuracy, precision, recall and F1 in per cent; nan where there is nothing to divide by.

    Args:
        answers: of those that were asked.
        labels: right answers.
        positive: what counts as a hit.
    """
    said, right = answers == positive, labels == positive
    hits = (said & right).sum()
    precision, recall = percent(hits, said.sum()), percent(hits, right.sum())
    return {
        "accuracy": percent((answers == labels).sum(), len(labels)),
        "precision": precision,
        "recall": recall,
        "f1": harmonic(precision, recall),
    }


def harmonic(precision: float, recall: float) -> float:
    """F1: nan if one of the two is, zero if both are.

    >>> harmonic(50.0, 100.0), harmonic(0.0, 0.0)
    (66.66666666666667, 0.0)
    """
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def all_right(right: Tensor, group: Tensor) -> tuple[int, int]:
    """Groups of which every member is right, and all groups.

    Args:
        right: booleans.
        group: number of each one's group.
    """
    groups = torch.unique(group)
    return sum(bool(right[group == one].all()) for one in groups), len(groups)
