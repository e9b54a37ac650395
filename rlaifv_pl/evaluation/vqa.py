"""VQA accuracy: an answer is as right as people agree with it (Antol et al. 2015, "VQA: Visual Question Answering").
For VQAv2, TextVQA and whatever else has several people's answers to each question."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rlaifv_pl.evaluation.benchmark import Benchmark, Item, unique_items
from rlaifv_pl.evaluation.benchmark_files import (
    BenchmarkError,
    FileRow,
    as_row,
    inner_rows,
    number_or_text,
    read_json,
)
from rlaifv_pl.evaluation.table_metric import answered, percent
from rlaifv_pl.feedback.claims.english.lexicon import words_of

ENOUGH = 3
"""Number of others with the same answer who make it right."""

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_STOP = re.compile(r"\.(?!\d)")
_ARTICLES = {"a", "an", "the"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
_CONTRACTIONS = words_of(
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's i'm "
    "i've isn't it'd it'll ma'am might've mightn't must've mustn't needn't o'clock oughtn't shan't should've shouldn't "
    "somebody'll somebody's someone'll someone's something'll that's there'd there's they'd they'll they're they've "
    "wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's who've "
    "why's won't would've wouldn't y'all you'd you'll you're you've"
)
_APOSTROPHES = {word.replace("'", ""): word for word in _CONTRACTIONS}


def normalize_answer(answer: str) -> str:
    """Return an answer without what does not matter: case, articles, punctuation, numbers in words.

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
    """Return numerator and denominator of an answer's accuracy: the mean, over leaving out each person, of the others
    who agree, by three and at most one.

    >>> [vqa_row("red", ["red"] * agree + ["blue"] * (10 - agree)) for agree in range(5)]
    [(0, 30), (9, 30), (18, 30), (27, 30), (30, 30)]

    Args:
        answers: of people, one each.
    """
    normalized = normalize_answer(completion)
    agree = sum(normalize_answer(answer) == normalized for answer in answers)
    people = len(answers)
    points = agree * min(agree - 1, ENOUGH) + (people - agree) * min(agree, ENOUGH)
    return points, ENOUGH * people


class VqaBenchmark(Benchmark):
    """Questions with several people's answers.

    Args:
        rows: with question_id, image_id and answers.
        questions: text of each by its question_id; those that a row has itself need not be here.
    """

    name = "vqa"
    columns = ("points", "of")
    key_fields = ("question_id",)
    completion_fields = ("answer", "text")
    writes_list = True

    def __init__(self, rows: Sequence[FileRow], questions: Mapping[str, str]) -> None:
        items = [
            Item(
                key=(key := row.key("question_id")),
                prompt=str(row.fields.get("question", questions.get(key, ""))),
                image=row.key("image_id"),
            )
            for row in rows
        ]
        self.items = unique_items(items, rows[0].where if rows else "questions")
        self.answers = [_answers(row) for row in rows]

    @classmethod
    def load(cls, path: Path) -> "VqaBenchmark":
        """Read an official file of annotations, or a directory with `*annotations.json` and `*questions.json`, which
        has the prompts as well.

        Raises:
            BenchmarkError: a file is missing, or lacks something.
        """
        annotations, *questions = _files(path) if path.is_dir() else (path,)
        rows = _rows(annotations, "annotations", "data")
        question_rows = [row for file in questions for row in _rows(file, "questions")]
        return cls(rows, {row.key("question_id"): row.get(str, "question") for row in question_rows})

    def row(self, number: int, completion: str) -> tuple[int, int]:
        """Return the answer's points, as `vqa_row`."""
        return vqa_row(completion, self.answers[number])

    def record(self, number: int, completion: str) -> dict[str, Any]:
        """Return its accuracy in [0, 1], and what people answered."""
        points, of = self.row(number, completion)
        return {"expected": self.answers[number], "accuracy": points / of}

    def figures(self, table: Tensor) -> dict[str, float]:
        """Compute the mean accuracy in per cent."""
        rows = table[answered(table)].double()
        return {"accuracy": percent((rows[:, 0] / rows[:, 1]).sum(), len(rows))}

    def response_row(self, number: int, completion: str) -> dict[str, Any]:
        """Return {question_id, answer}; rows of LLaVA's JSON lines, with `text`, are read, too."""
        return {"question_id": number_or_text(self.items[number].key), "answer": completion}


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
    rows = inner_rows(content, name)
    if not rows:
        raise BenchmarkError(f"{path}, {name}: expected questions, got an empty list")
    return rows


def _answers(row: FileRow) -> list[str]:
    listed = [one.get("answer") if isinstance(one, Mapping) else one for one in row.get(list, "answers")]
    answers = [one for one in listed if isinstance(one, str)]
    if not answers or len(answers) < len(listed):
        raise row.error("field 'answers': expected people's answers, texts or objects with an 'answer'")
    return answers
