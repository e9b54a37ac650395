"""MME: two questions about each image, one of which is answered with yes and one with no (Fu et al. 2023, "MME: A
Comprehensive Evaluation Benchmark for Multimodal Large Language Models")."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.evaluation.benchmark import Item
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, read_text
from rlaifv_pl.evaluation.table_metric import answered, equal_to, percent
from rlaifv_pl.evaluation.yes_no import LABELS, YesNoBenchmark, all_right, mme_answer, numbered

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")

_FIELDS = ("image", "question", "answer", "prediction")


class MmeBenchmark(YesNoBenchmark):
    """The questions of MME.

    Args:
        rows: with category, image, question and answer (Yes or No).
    """

    name = "mme"
    key_fields = ("category", "image", "question")
    completion_fields = ("prediction",)
    read_answer = mme_answer

    def __init__(self, rows: Sequence[FileRow]) -> None:
        self.rows = list(rows)
        self.categories = [row.get(str, "category") for row in rows]
        self.labels = torch.tensor([row.one_of(LABELS, "answer") for row in rows])
        # Two lines of a category may be the same, so that a line's number is its identity.
        self.items = [
            Item(
                key=f"{category}/{number}",
                prompt=row.get(str, "question"),
                image=f"{category}/{row.get(str, 'image')}",
            )
            for number, (category, row) in enumerate(zip(self.categories, rows, strict=True))
        ]

    @classmethod
    def load(cls, directory: Path) -> "MmeBenchmark":
        """Read the official directory: a file `<category>.txt` each, with lines of image, question and answer between
        tabs; a fourth field, a prediction, is left alone.

        Raises:
            BenchmarkError: there is none, or a line lacks a field.
        """
        return cls(_read_lines(directory))

    def figures(self, table: Tensor) -> dict[str, float]:
        """Compute of each category right answers (`acc`) and images with both answers right (`acc+`) in per cent and
        their sum (`score`); and the sums of the scores of perception (of 2000) and cognition (of 800), nan unless all
        are there."""
        seen, right = answered(table), table[:, 0] == self.labels
        images = numbered([item.image for item in self.items])
        figures: dict[str, float] = {}
        for category in dict.fromkeys(self.categories):
            chosen = seen & equal_to(self.categories, category)
            accuracy = percent(right[chosen].sum(), int(chosen.sum()))
            both = percent(*all_right(right[chosen], images[chosen]))
            figures |= {
                f"{category}/acc": accuracy,
                f"{category}/acc+": both,
                f"{category}/score": accuracy + both,
            }
        for name, group in (("perception", PERCEPTION), ("cognition", COGNITION)):
            figures[name] = sum(figures.get(f"{category}/score", float("nan")) for category in group)
        return figures

    def key_of(self, row: FileRow) -> str:
        """Return what identifies a line, but for repeated ones."""
        return "\t".join(row.get(str, name) for name in self.key_fields)

    def row_keys(self) -> list[str]:
        """Return the key of each line."""
        return list(map(self.key_of, self.rows))

    def read(self, path: Path) -> dict[int, str]:
        """Read the official directory with a prediction at the end of each line."""
        return self.match(_read_lines(path))

    def write(self, path: Path, completions: Mapping[int, str]) -> None:
        """Write a directory; tabs and line ends of a completion become blanks."""
        lines: dict[str, list[str]] = {}
        for number, text in sorted(completions.items()):
            fields = {**self.rows[number].fields, "prediction": " ".join(text.split())}
            line = "\t".join(fields[name] for name in _FIELDS)
            lines.setdefault(self.categories[number], []).append(line + "\n")
        path.mkdir(parents=True, exist_ok=True)
        for category, written in lines.items():
            with atomic_file(path / f"{category}.txt") as file:
                file.write("".join(written).encode())


def _read_lines(directory: Path) -> list[FileRow]:
    """Read all lines of a directory; those without a prediction lack that field."""
    files = sorted(directory.glob("*.txt"))
    if not files:
        raise BenchmarkError(
            f"{directory}: expected MME's directory with a file <category>.txt each, got "
            + ("a file" if directory.is_file() else "none")
        )
    rows = [
        _line(line, path.stem, f"{path}, line {number}")
        for path in files
        for number, line in enumerate(read_text(path).split("\n"), start=1)
        if line.strip()
    ]
    if not rows:
        raise BenchmarkError(f"{directory}: expected lines in its files, got empty ones only")
    return rows


def _line(line: str, category: str, where: str) -> FileRow:
    fields = line.rstrip("\r").split("\t", maxsplit=3)
    row = FileRow({"category": category, **dict(zip(_FIELDS, fields, strict=False))}, where)
    if len(fields) < 3:
        raise row.error(f"expected image, question, answer and prediction between tabs, got {fields!r:.80}")
    row.one_of(LABELS, "answer")
    return row
