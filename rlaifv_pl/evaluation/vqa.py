"""VQA accuracy: as right as people find an answer right (Antol et al. 2015, "VQA: Visual Question Answering"); of
VQAv2, TextVQA and whatever else has several people's answers to each question."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.evaluation.benchmark import Item, check_keys, match
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, as_row, read_file_rows, read_json
from rlaifv_pl.evaluation.table_metric import TableMetric, answered, percent
from rlaifv_pl.feedback.claims.english.lexicon import words_of

ENOUGH = 3
"""So many others who gave the same answer make it right."""

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_STOP = re.compile(r"\.(?!\d)")
_ARTICLES = {"a", "an", "the"}
_DIGITS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
}
_DIGITS |= {"seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_CONTRACTIONS = words_of(
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's i'm "
    "i've isn't it'd it'll ma'am might've mightn't must've mustn't needn't o'clock oughtn't shan't should've shouldn't "
    "somebody'll somebody's someone'll someone's something'll that's there'd there's they'd they'll they're they've "
    "wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's who've "
    "why's won't would've wouldn't y'all you'd you'll you're you've"
)
_APOSTROPHES = {word.replace("'", ""): word for word in _CONTRACTIONS}


def normalize_answer(answer: str) -> str:
    """An answer without what does not matter: case, articles, punctuation, numbers in words.

    >>> [normalize_answer(text) for text in ("The two  Dogs.", "3,000", "red/white", "dont")]
    ['2 dogs', '3000', 'red white', "don't"]
    """
    answer = re.sub(r"\s+", " ", answer.lower()).strip()
    text = answer
    for mark in _MARKS:
        alone = f"{mark} " in answer or f" {mark}" in answer or _COMMA_IN_NUMBER.search(answer)
        text = text.replace(mark, "" if alone else " ")
    words = (_DIGITS.get(word, word) for word in _STOP.sub("", text).split())
    return " ".join(_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES)


def vqa_row(completion: str, answers: Sequence[str]) -> tuple[int, int]:
    """Numerator and denominator of an answer's accuracy: the mean, over leaving out each person, of the others who
    agree, by three and at most one.

    >>> [vqa_row("red", ["red"] * agree + ["blue"] * (10 - agree)) for agree in range(5)]
    [(0, 30), (9, 30), (18, 30), (27, 30), (30, 30)]

    Args:
        answers: of people, one each.
    """
    given = normalize_answer(completion)
    agree = sum(normalize_answer(answer) == given for answer in answers)
    people = len(answers)
    points = agree * min(agree - 1, ENOUGH) + (people - agree) * min(agree, ENOUGH)
    return points, ENOUGH * people


def vqa_figures(table: Tensor) -> dict[str, float]:
    """Mean accuracy in per cent, of rows as `vqa_row` gives them."""
    rows = table[answered(table)].double()
    return {"accuracy": percent((rows[:, 0] / rows[:, 1]).sum(), len(rows))}


class VQA(TableMetric):
    """VQA accuracy of answers.

    Args:
        answers: people's answers to each question.
        settings: of `torchmetrics.Metric`.
    """

    columns = ("points", "of")

    def __init__(self, answers: Sequence[Sequence[str]], **settings: Any) -> None:
        super().__init__(len(answers), **settings)
        self.answers = [list(given) for given in answers]

    @property
    def name(self) -> str:
        """`vqa`."""
        return "vqa"

    def row(self, number: int, completion: str) -> tuple[int, int]:
        """As `vqa_row`."""
        return vqa_row(completion, self.answers[number])

    def record(self, number: int, completion: str) -> dict[str, Any]:
        """Its accuracy in [0, 1], and what people answered."""
        points, of = self.row(number, completion)
        return {"expected": self.answers[number], "accuracy": points / of}

    def figures(self, table: Tensor) -> dict[str, float]:
        """As `vqa_figures`."""
        return vqa_figures(table)


class VqaBenchmark:
    """Questions with several people's answers.

    Args:
        rows: with question_id, image_id and answers.
        questions: text of each by its question_id; those that a row has itself need not be here.
    """

    def __init__(self, rows: Sequence[FileRow], questions: Mapping[str, str]) -> None:
        self.items = [
            Item(
                key=(key := row.key("question_id")),
                prompt=str(row.fields.get("question", questions.get(key, ""))),
                image=row.key("image_id"),
            )
            for row in rows
        ]
        check_keys(self.items, rows[0].where if rows else "questions")
        self.answers = [_answers(row) for row in rows]

    @classmethod
    def load(cls, path: Path) -> "VqaBenchmark":
        """From an official file of annotations, or a directory with `*annotations.json` and `*questions.json`, which
        has the prompts as well.

        Raises:
            BenchmarkError: a file is not so.
        """
        annotations, *questions = _files(path) if path.is_dir() else (path,)
        rows = _rows(annotations, "annotations", "data")
        asked = [row for file in questions for row in _rows(file, "questions")]
        return cls(rows, {row.key("question_id"): row.get(str, "question") for row in asked})

    def metric(self) -> VQA:
        """As `Benchmark.metric`."""
        return VQA(self.answers)

    def read(self, path: Path) -> dict[int, str]:
        """As `Benchmark.read`, from a JSON list of {question_id, answer}; LLaVA's JSON lines with `text` do, too."""
        return match(self.items, read_file_rows(path), lambda row: row.key("question_id"), "answer", "text")

    def write(self, path: Path, completions: Mapping[int, str]) -> None:
        """As `Benchmark.write`."""
        keys = {number: self.items[number].key for number in sorted(completions)}
        rows = [
            {"question_id": int(key) if key.isdecimal() else key, "answer": completions[number]}
            for number, key in keys.items()
        ]
        with atomic_file(path) as file:
            file.write(json.dumps(rows, ensure_ascii=False).encode())


def _files(directory: Path) -> list[Path]:
    found = [sorted(directory.glob(f"*{name}.json")) for name in ("annotations", "questions")]
    if [len(paths) for paths in found] != [1, 1]:
        raise BenchmarkError(
            f"{directory}: expected one *annotations.json and one *questions.json, got {len(found[0])} and "
            f"{len(found[1])}"
        )
    return [paths[0] for paths in found]


def _rows(path: Path, *names: str) -> list[FileRow]:
    content = as_row(read_json(path, dict), str(path))
    name = next((name for name in names if name in content.fields), names[0])
    rows = [
        as_row(value, f"{path}, {name}[{number}]") for number, value in enumerate(content.get(list, name))
    ]
    if not rows:
        raise BenchmarkError(f"{path}, {name}: expected questions, got an empty list")
    return rows


def _answers(row: FileRow) -> list[str]:
    listed = row.get(list, "answers")
    found = [one.get("answer") if isinstance(one, Mapping) else one for one in listed]
    if not found or not all(isinstance(one, str) for one in found):
        raise row.error("field 'answers': expected people's answers, texts or objects with an 'answer'")
    return found
