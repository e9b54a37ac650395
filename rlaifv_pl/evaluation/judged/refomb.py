"""RefoMB: a judge that is told what an image shows compares a model's answer with that of a reference (Yu et al. 2024,
"RLAIF-V"), several times over. Published figures are of a judge that is gone, so that only figures of one judge, one
wording and one reference can be compared."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlaifv_pl.evaluation.benchmark import Item, check_keys
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, read_file_rows
from rlaifv_pl.evaluation.judged.reviews import judge_from_rows, save_lines
from rlaifv_pl.evaluation.table_metric import MISSING, TableMetric, answered, percent

LOSS, TIE, WIN = -1, 0, 1
"""Scores of an answer, as the authors write them."""
UNNAMED = "unnamed"
"""The judge of official reviews, which do not name theirs."""


def refomb_figures(table: Tensor, runs: Sequence[int], kinds: Sequence[str]) -> dict[str, float]:
    """Mean over runs of the share of answers that are better than the reference's (`win`), and of those that make up
    less (`fewer_hallucinations`), in per cent, a tie being half; by kind of question; and the runs' standard deviation.

    Args:
        table: (reviews, 2): 0 for worse, 1 for equal, 2 for better; -1 where nothing is said.
        runs: of each review, its number.
        kinds: of each review's question.
    """
    columns = {"win": 0, "fewer_hallucinations": 1}
    seen = answered(table)
    figures = {}
    for name, column in columns.items():
        shares = [_share(table, column, seen & _where(runs, run)) for run in dict.fromkeys(runs)]
        told = [share for share in shares if share == share]
        figures[name] = statistics.fmean(told) if told else float("nan")
        figures[f"{name}_sd"] = statistics.stdev(told) if len(told) > 1 else float("nan")
    for kind in dict.fromkeys(kinds):
        figures[f"win/{kind}"] = _share(table, 0, seen & _where(kinds, kind))
    return figures


class RefoMB(TableMetric):
    """RefoMB of a judge's reviews, which stand where other metrics have completions; each run's review of an answer
    has a row of its own.

    Args:
        runs: of each review, its number.
        kinds: of each review's question.
        judge: its name.
        settings: of `torchmetrics.Metric`.
    """

    columns = ("win", "fewer_hallucinations")

    def __init__(self, runs: Sequence[int], kinds: Sequence[str], judge: str, **settings: Any) -> None:
        super().__init__(len(runs), **settings)
        self.runs, self.kinds = list(runs), list(kinds)
        self.judge = judge

    @property
    def name(self) -> str:
        """`refomb_by_` and the judge."""
        return f"refomb_by_{self.judge}"

    def row(self, number: int, completion: str) -> tuple[int, int]:
        """Cells of a review's two scores, `-1`, `0` or `1`; the second may not be there.

        >>> RefoMB([0], ["a"], "d").row(0, "1 -1"), RefoMB([0], ["a"], "d").row(0, "0")
        ((2, 0), (1, -1))
        """
        win, *fewer = (int(score) + 1 for score in completion.split())
        return win, (fewer[0] if fewer else MISSING)

    def figures(self, table: Tensor) -> dict[str, float]:
        """As `refomb_figures`."""
        return refomb_figures(table, self.runs, self.kinds)


class RefombBenchmark:
    """RefoMB's questions, or a reference's answers to them, or reviews.

    Args:
        rows: of the official form: image_url, question, type, and what more there is.
    """

    def __init__(self, rows: Sequence[FileRow]) -> None:
        self.rows = list(rows)
        self.items = [
            Item(key=_key(row), prompt=row.get(str, "question"), image=_url(row).rsplit("/", 1)[-1])
            for row in rows
        ]
        check_keys(self.items, rows[0].where)

    @classmethod
    def load(cls, path: Path) -> "RefombBenchmark":
        """From JSON lines, or a list.

        Raises:
            BenchmarkError: a row is not so.
        """
        return cls(read_file_rows(path))

    def metric(self) -> RefoMB:
        """As `Benchmark.metric`; for reviews of one judge.

        Raises:
            BenchmarkError: more than one has reviewed the answers.
        """
        kinds = [row.get(str, "type_name", "type") for row in self.rows]
        return RefoMB([_run(row) for row in self.rows], kinds, judge_from_rows(self.rows, "score", UNNAMED))

    def read(self, path: Path) -> dict[int, str]:
        """A judge's scores, as `rlaifv judge` or the authors' script saves them; rows without are left out."""
        numbers = {item.key: number for number, item in enumerate(self.items)}
        scored = (row for row in read_file_rows(path) if "score" in row.fields)
        return {numbers[_key(row)]: _scores(row) for row in scored}

    def answers(self, path: Path) -> dict[int, str]:
        """A model's answers to the questions: rows of image_url, question (or prompt) and answer (or text).

        Raises:
            BenchmarkError: an answer is missing.
        """
        said = {_key(row): row.get(str, "answer", "text") for row in read_file_rows(path)}
        if lacking := [item.key for item in self.items if item.key not in said]:
            raise BenchmarkError(f"{path}: expected an answer to {lacking[0]!r}, got none")
        return {number: said[item.key] for number, item in enumerate(self.items)}

    def write(self, path: Path, completions: Mapping[int, str]) -> None:
        """As `Benchmark.write`: JSON lines of image_url, type, question and answer."""
        rows = [
            {name: self.rows[number].get(str, name) for name in ("image_url", "type", "question")}
            | {"answer": text}
            for number, text in sorted(completions.items())
        ]
        save_lines(path, rows)


def _key(row: FileRow) -> str:
    return " ".join([str(_run(row)), _url(row), row.get(str, "question", "prompt")])


def _url(row: FileRow) -> str:
    return row.get(str, "image_url", "image_path_list")


def _run(row: FileRow) -> int:
    return row.get(int, "run") if "run" in row.fields else 0


def _scores(row: FileRow) -> str:
    scores = [row.get(int, name) for name in ("score", "hallucination_score") if name in row.fields]
    if not set(scores) <= {LOSS, TIE, WIN}:
        raise row.error(f"field 'score': expected -1, 0 or 1, got {scores}")
    return " ".join(map(str, scores))


def _where(values: Sequence[Any], value: Any) -> Tensor:
    return torch.tensor([one == value for one in values], dtype=torch.bool)


def _share(table: Tensor, column: int, which: Tensor) -> float:
    cells = table[which, column]
    cells = cells[cells != MISSING]
    return percent(cells.sum(), 2 * len(cells))
