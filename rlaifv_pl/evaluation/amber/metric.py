"""AMBER's figures: of descriptions CHAIR, Cover, Hal and Cog, of answers accuracy and F1 by kind of question."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlaifv_pl.evaluation.amber.count import ImageTruth, Vocabulary, describe_row
from rlaifv_pl.evaluation.amber.nouns import Nouns, RuleNouns
from rlaifv_pl.evaluation.amber.similarity import Similarity, no_similarity
from rlaifv_pl.evaluation.table_metric import TableMetric, answered, percent
from rlaifv_pl.evaluation.yes_no import NO, answer_record, confusion, exact_answer

GROUPS = {
    "": ("existence", "state", "number", "action", "relation"),
    "existence/": ("existence",),
    "attribute/": ("state", "number", "action"),
    "state/": ("state",),
    "number/": ("number",),
    "action/": ("action",),
    "relation/": ("relation",),
}
"""Kinds of question that are measured together, by what their figures' names begin with."""

KINDS = {
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
    "discriminative-relation": "relation",
    "relation": "relation",
}
"""Type in the annotations to kind of question."""

_SMOOTHING = {"existence/": 1e-3}
_USUAL_SMOOTHING = 1e-4
"""What AMBER adds to precision plus recall, as shares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question with the right answer."""

    kind: str
    label: int
    """1 for yes."""


Asked = ImageTruth | Question
"""What is known of an item: of a description what the image shows, else the answer."""


def description_figures(rows: Tensor) -> dict[str, float]:
    """CHAIR: wrong nouns of all; Cover: covered things of all that are there; Hal: descriptions with a wrong noun; Cog:
    imagined things that are named of all; in per cent, of rows as `describe_row` gives them."""
    wrong, nouns, covered, truth, named, imagined = rows.sum(0).tolist()
    return {
        "CHAIR": percent(wrong, nouns),
        "Cover": percent(covered, truth),
        "Hal": percent((rows[:, 0] > 0).sum(), len(rows)),
        "Cog": percent(named, imagined),
        "n_generative": len(rows),
    }


def answer_figures(answers: Tensor, questions: Sequence[Question]) -> dict[str, float]:
    """Accuracy, precision, recall and F1 in per cent, of all questions and by kind; a no that is right is a hit.

    Args:
        answers: to all of these questions.
        questions: beside them.
    """
    labels = torch.tensor([question.label for question in questions])
    figures: dict[str, float] = {}
    for prefix, kinds in GROUPS.items():
        of = torch.tensor([question.kind in kinds for question in questions], dtype=torch.bool)
        found = confusion(answers[of], labels[of], NO)
        added = 100 * _SMOOTHING.get(prefix, _USUAL_SMOOTHING)
        # From the rounded two, as AMBER has it.
        precision, recall = round(found["precision"], 1), round(found["recall"], 1)
        found["f1"] = 2 * precision * recall / (precision + recall + added)
        figures |= {prefix + name: value for name, value in found.items()}
    return {**figures, "n_discriminative": len(questions)}


class Amber(TableMetric):
    """AMBER of descriptions and of answers that are a bare Yes or No.

    Args:
        asked: what is known of each item.
        vocabulary: the nouns that count.
        similarity: which nouns mean the same; without, only equal ones do.
        nouns: what reads nouns from a description, by rules unless given.
        settings: of `torchmetrics.Metric`.
    """

    columns = ("wrong", "nouns", "covered", "truth", "named", "imagined", "answer")

    def __init__(
        self,
        asked: Sequence[Asked],
        vocabulary: Vocabulary,
        similarity: Similarity | None = None,
        nouns: Nouns | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(len(asked), **settings)
        self.asked = list(asked)
        self.vocabulary = vocabulary
        self.similarity = similarity or no_similarity
        self.words = vocabulary.words
        self.nouns = nouns or RuleNouns(self.words)
        self._name = f"amber_{'similarity' if similarity else 'exact'}{'_own_nouns' if nouns else ''}"
        self.describes = torch.tensor([isinstance(one, ImageTruth) for one in asked], dtype=torch.bool)

    @property
    def name(self) -> str:
        """`amber_exact`, or `amber_similarity`; `_own_nouns` behind it unless nouns are read by the rules here."""
        return self._name

    def row(self, number: int, completion: str) -> tuple[int, ...]:
        """As `describe_row`, and what an answer is read as."""
        asked = self.asked[number]
        if isinstance(asked, Question):
            return (0, 0, 0, 0, 0, 0, exact_answer(completion))
        # Words of other vocabularies do not count, whoever reads them.
        nouns = [noun for noun in self.nouns(completion) if noun in self.words]
        return (*describe_row(nouns, asked, self.vocabulary, self.similarity), 0)

    def record(self, number: int, completion: str) -> dict[str, Any]:
        """As `answer_record` of an answer, and of a description the counts of its nouns."""
        asked = self.asked[number]
        if isinstance(asked, Question):
            return answer_record(exact_answer(completion), asked.label)
        counts = super().record(number, completion)
        return {name: counts[name] for name in self.columns[:-1]}

    def figures(self, table: Tensor) -> dict[str, float]:
        """As `description_figures` and `answer_figures`, and `AMBER`, the mean of 100 - CHAIR and F1."""
        seen = answered(table)
        questions = seen & ~self.describes
        answers = table[questions, -1]
        known = [self.asked[number] for number in questions.nonzero().flatten().tolist()]
        figures = description_figures(table[seen & self.describes, :-1]) | answer_figures(answers, known)
        return {**figures, "AMBER": (100 - figures["CHAIR"] + figures["f1"]) / 2}
