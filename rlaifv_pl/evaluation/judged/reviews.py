"""Common parts of judged benchmarks: a judge with its cache, prompt templates, and reviews made batch by batch."""

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.evaluation.benchmark import Benchmark, Item, unique_items
from rlaifv_pl.evaluation.benchmark_files import (
    BenchmarkError,
    FileRow,
    read_file_rows,
    read_text,
    write_rows,
)
from rlaifv_pl.evaluation.rank_shares import PARTS_SUFFIX, run_share
from rlaifv_pl.feedback.chunks import UNFINISHED, WAIT_SECONDS, Chunks, RankShare
from rlaifv_pl.feedback.chunks import Row as ChunkRow
from rlaifv_pl.feedback.engines.engine import Engine, Form, Request
from rlaifv_pl.feedback.engines.response_cache import ResponseCache

BATCH = 32
"""Answers that are reviewed at once, and kept as one chunk."""
UNNAMED = "unnamed"
"""Judge of official reviews, which do not name theirs."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")

Fields = Mapping[str, Any]
"""Fields that a review adds to the row of an answer, as JSON."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A language model that reviews answers; it is shown no image.

    Args:
        name: that the figures bear, with a hash of all that decides the reviews behind it.
        engine: the model.
        cache: file that keeps reviews by what was asked, so that none is paid for twice.
    """

    name: str
    engine: Engine
    cache: Path | None = None

    def signature(self, *templates: str) -> str:
        """Return the judge's name with a hash of model and prompts; reviews of two signatures cannot be compared."""
        return f"{self.name}_{hash_json([self.engine.identity, *templates])[:8]}"

    def ask(self, requests: Sequence[Request], form: type[Form]) -> list[Form | None]:
        """Return a filled-in form for each request; None where the model gave no valid one, which is not kept.

        Raises:
            EngineError: the model cannot be asked.
        """
        source = [form.model_json_schema(), self.engine.identity]
        keys = [hash_json([*source, one.text, one.seed]) for one in requests]
        known = self._responses.get(sorted(set(keys)))
        missing = {key: one for key, one in zip(keys, requests, strict=True) if key not in known}
        forms = self.engine.fill(list(missing.values()), form) if missing else []
        new = {key: one.model_dump() for key, one in zip(missing, forms, strict=True) if one is not None}
        self._responses.put(new)
        known |= new
        return [form.model_validate(known[key]) if key in known else None for key in keys]

    @cached_property
    def _responses(self) -> ResponseCache:
        return ResponseCache(self.cache or ":memory:")


class JudgedBenchmark(Benchmark):
    """Questions, with or without answers and reviews. Reviews stand where other benchmarks have completions.

    Args:
        rows: of the official form.
    """

    metric: ClassVar[str]
    """First part of the figures' name."""
    review_field: ClassVar[str]
    """Field that makes a row a review."""
    default_judge: ClassVar[str] = ""
    """Judge of reviews that name none; empty if they have to."""

    def __init__(self, rows: Sequence[FileRow]) -> None:
        self.rows = list(rows)
        self.items = unique_items(list(map(self.item, rows)), rows[0].where)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read JSON lines, or a list.

        Raises:
            BenchmarkError: a row lacks something.
        """
        return cls(read_file_rows(path))

    @property
    def name(self) -> str:
        """Name of the metric with the judge's.

        Raises:
            BenchmarkError: nobody, or more than one, has reviewed the answers.
        """
        return f"{self.metric}_by_{judge_from_rows(self.rows, self.review_field, self.default_judge)}"

    @abstractmethod
    def item(self, row: FileRow) -> Item:
        """Return the question of a row."""

    @abstractmethod
    def review_of(self, row: FileRow) -> str:
        """Return a judge's review of an answer as text."""

    def read(self, path: Path) -> dict[int, str]:
        """Read a judge's reviews, as `rlaifv judge` saves them; rows that it could not judge are left out."""
        rows = [row for row in read_file_rows(path) if self.review_field in row.fields]
        return self.match(rows, self.review_of)

    def answers(self, path: Path) -> list[str]:
        """Read a model's answers to the questions, in their order.

        Raises:
            BenchmarkError: a row answers none of the questions, or one of them has no answer or two.
        """
        answers = self.match(read_file_rows(path))
        if missing := [item.key for number, item in enumerate(self.items) if number not in answers]:
            raise BenchmarkError(
                f"{path}: expected an answer to {missing[0]!r}, got none ({len(missing)} of {len(self.items)} "
                "questions have none). Let the model answer all of them, or give the questions that it was asked"
            )
        return [answers[number] for number in range(len(self.items))]


@dataclass(frozen=True, kw_only=True)
class ReviewJob:
    """Answers that are to be reviewed.

    Args:
        requests: one for each answer.
        templates: of the prompts, which are part of the judge's signature.
        review: asks a judge; reviews of the answers with these numbers, None for one that it gave no valid form for.
        rows: of the file of reviews, one for each answer, without its review.
        recipe: all but the judge that decides the reviews, as JSON.
        writes_list: whether the file is one JSON list rather than JSON lines.
    """

    requests: Sequence[Request]
    templates: tuple[str, ...]
    review: Callable[[Judge, Sequence[int]], Sequence[Fields | None]]
    rows: Sequence[Fields]
    recipe: Fields
    writes_list: bool = False


@dataclass(frozen=True, slots=True)
class ReviewOutcome:
    """Result of a job."""

    judge: str
    """Its signature."""
    reviews: Sequence[Fields | None]
    """None for an answer without one, which is asked about again the next time."""


def run_reviews(job: ReviewJob, judge: Judge, out: Path) -> ReviewOutcome | None:
    """Review answers and save each answer's row with its review and the judge's signature.

    Returns:
        The outcome; None in a process that only helped the first one.

    Raises:
        EngineError: the judge's model cannot be asked.
        TimeoutError: another process does not make its share.
    """
    signature = judge.signature(*job.templates)
    recipe = {"judge": signature, **job.recipe}
    reviews = make_reviews(out, recipe, len(job.requests), lambda numbers: job.review(judge, numbers))
    if reviews is None:
        return None
    rows = [
        {**row, **({} if review is None else {"judge": signature, **review})}
        for row, review in zip(job.rows, reviews, strict=True)
    ]
    write_rows(out, rows, as_list=job.writes_list)
    return ReviewOutcome(signature, reviews)


def make_reviews(
    out: Path, recipe: Fields, count: int, review: Callable[[Sequence[int]], Sequence[Fields | None]]
) -> list[Fields | None] | None:
    """Make reviews of numbered answers in chunks beside a file; killed anywhere, the same call goes on.

    Args:
        out: file that the chunks lie beside.
        recipe: all that decides the reviews, as JSON.
        count: number of answers.
        review: reviews of the answers with these numbers; None for one that cannot be had.

    Returns:
        The review of each answer; None in a process that only helped the first one.

    Raises:
        TimeoutError: another process does not make its share.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    chunks = Chunks(out.with_name(out.name + PARTS_SUFFIX), "review", recipe, count, BATCH)

    def rows(numbers: Sequence[int]) -> list[ChunkRow]:
        return [{"review": one} | ({UNFINISHED: True} if one is None else {}) for one in review(numbers)]

    share = RankShare.from_launcher()
    run_share(chunks, rows, "review", share)
    if not share.is_main_process:
        return None
    chunks.wait(WAIT_SECONDS)
    return [row["review"] for row in chunks.rows()]


def read_template(default: str, path: str | None) -> str:
    """Return the default prompt template, or that of a file which has the same placeholders.

    Raises:
        BenchmarkError: the file cannot be read, or lacks a placeholder.
    """
    if path is None:
        return default
    template = read_text(Path(path))
    if lacking := sorted(set(_PLACEHOLDER.findall(default)) - set(_PLACEHOLDER.findall(template))):
        places = ", ".join(f"{{{name}}}" for name in lacking)
        raise BenchmarkError(f"{path}: expected a template with the placeholders {places}, which it lacks")
    return template


def fill_template(template: str, fields: Mapping[str, str]) -> str:
    """Return a template with its placeholders filled in; other braces stay.

    >>> fill_template('{answer} as {"json"}, {x}', {"answer": "{x}"})
    '{x} as {"json"}, {x}'
    """
    return _PLACEHOLDER.sub(lambda match: fields.get(match[1], match[0]), template)


def judge_from_rows(rows: Sequence[FileRow], review_field: str, default: str = "") -> str:
    """Return the one judge of the rows that hold a review.

    Args:
        review_field: makes a row a review.
        default: judge of reviews that name none; empty if they have to.

    Raises:
        BenchmarkError: there is none, or more than one.
    """
    reviewed = [row for row in rows if review_field in row.fields]
    judges = {row.get(str, "judge") if "judge" in row.fields else default for row in reviewed}
    if len(judges) != 1 or "" in judges:
        raise BenchmarkError(
            f"{rows[0].where}: expected reviews (fields {review_field!r} and 'judge') of one judge, got "
            f"{sorted(judges - {''}) or 'none'}. `rlaifv judge` adds them"
        )
    return judges.pop()
