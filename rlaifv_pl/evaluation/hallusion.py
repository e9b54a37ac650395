"""HallusionBench without a judge: answers of yes and no to questions about figures, some of which were altered
(Guan et al. 2024, "HallusionBench: An Advanced Diagnostic Suite for Entangled Language Hallucination and Visual
Illusion"). Its authors let GPT-4 compare the answers; here, as in other open harnesses, the words yes and no are
looked for, in the questions that come with an image. The two give different figures, so this one is called by its name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlaifv_pl.evaluation.benchmark import Item, unique_items
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, read_file_rows
from rlaifv_pl.evaluation.table_metric import answered, percent
from rlaifv_pl.evaluation.yes_no import NO, YES, YesNoBenchmark, all_right, numbered, word_answer

_LABELS = {"0": NO, "1": YES}
_QUESTION = ("category", "subcategory", "set_id", "question_id")
_FIGURE = ("category", "subcategory", "set_id", "figure_id")


class HallusionBenchmark(YesNoBenchmark):
    """The questions of `HallusionBench.json` that have an image; rows without one are left out.

    Args:
        rows: of the file.
        where: file, for messages.
    """

    name = "hallusionbench_yes_no"
    key_fields = (*_QUESTION, "figure_id")
    completion_fields = ("model_prediction",)
    writes_list = True
    read_answer = word_answer

    def __init__(self, rows: Sequence[FileRow], where: str = "questions") -> None:
        self.rows = _with_image(rows)
        if not self.rows:
            raise BenchmarkError(
                f"{where}: expected questions with an image, got none with a visual_input but 0"
            )
        self.items = unique_items(
            [
                Item(key=self.key_of(row), prompt=row.get(str, "question"), image=row.get(str, "filename"))
                for row in self.rows
            ],
            where,
        )
        self.labels = torch.tensor([row.one_of(_LABELS, "gt_answer") for row in self.rows])
        self.groups = {
            name: numbered([tuple(map(row.key, fields)) for row in self.rows])
            for name, fields in (("fAcc", _FIGURE), ("qAcc", _QUESTION))
        }

    @classmethod
    def load(cls, path: Path) -> "HallusionBenchmark":
        """Read the official file.

        Raises:
            BenchmarkError: a row lacks something.
        """
        return cls(read_file_rows(path), str(path))

    def figures(self, table: Tensor) -> dict[str, float]:
        """Compute aAcc: answers that are right; qAcc: questions that are right with all their figures; fAcc: figures
        with all their questions right; in per cent. A question or figure with an unanswered member counts by the
        others."""
        seen = answered(table)
        answers = table[seen, 0]
        right = answers == self.labels[seen]
        return {
            "aAcc": percent(right.sum(), len(right)),
            **{name: percent(*all_right(right, group[seen])) for name, group in self.groups.items()},
            "yes_ratio": percent((answers == YES).sum(), len(answers)),
            "n_unread": int((answers > YES).sum()),
        }

    def key_of(self, row: FileRow) -> str:
        """Return all fields that together are unique."""
        return " ".join(f"{name}={row.key(name)}" for name in self.key_fields)

    def read(self, path: Path) -> dict[int, str]:
        """Read rows of the official file with a `model_prediction`."""
        return self.match(_with_image(read_file_rows(path)))

    def response_row(self, number: int, completion: str) -> dict[str, Any]:
        """Return the official row with its `model_prediction`."""
        return {**self.rows[number].fields, "model_prediction": completion}


def _with_image(rows: Sequence[FileRow]) -> list[FileRow]:
    return [row for row in rows if row.key("visual_input") != "0"]
