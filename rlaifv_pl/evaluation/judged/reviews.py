"""What all judged benchmarks share: a judge with its cache, wordings, and reviews that are made batch by batch."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, read_text
from rlaifv_pl.evaluation.rank_shares import PARTS_SUFFIX, run_share
from rlaifv_pl.feedback.chunks import UNFINISHED, WAIT_SECONDS, Chunks, RankShare
from rlaifv_pl.feedback.chunks import Row as ChunkRow
from rlaifv_pl.feedback.engines.engine import Engine, Form, Request
from rlaifv_pl.feedback.engines.response_cache import ResponseCache

BATCH = 32
"""Answers that are reviewed at once, and kept as one part."""

_PLACE = re.compile(r"\{(\w+)\}")

Fields = Mapping[str, Any]
"""What a review adds to the row of an answer, as JSON."""


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

    def signature(self, *wordings: str) -> str:
        """Name of the judge with what it is asked: reviews of two signatures cannot be compared."""
        return f"{self.name}_{hash_json([self.engine.identity, *wordings])[:8]}"

    def ask(self, requests: Sequence[Request], form: type[Form]) -> list[Form | None]:
        """A filled-in form for each request; None where the model gave none that holds, which is not kept.

        Raises:
            EngineError: the model cannot be asked.
        """
        what = [form.model_json_schema(), self.engine.identity]
        keys = [hash_json([*what, one.text, one.seed]) for one in requests]
        known = self._kept.get(sorted(set(keys)))
        missing = {key: one for key, one in zip(keys, requests, strict=True) if key not in known}
        forms = self.engine.fill(list(missing.values()), form) if missing else []
        new = {key: one.model_dump() for key, one in zip(missing, forms, strict=True) if one is not None}
        self._kept.put(new)
        known |= new
        return [form.model_validate(known[key]) if key in known else None for key in keys]

    @cached_property
    def _kept(self) -> ResponseCache:
        return ResponseCache(self.cache or ":memory:")


@dataclass(frozen=True, slots=True)
class ReviewOutcome:
    """What became of the answers that were to be reviewed."""

    judge: str
    """Its signature."""
    answers: int
    lacking: int
    """Answers without a review, because the model gave none that holds; they are asked about again the next time."""
    notes: tuple[str, ...] = ()
    """What else a user has to know."""


def made_reviews(
    out: Path, recipe: Mapping[str, Any], count: int, make: Callable[[Sequence[int]], Sequence[Fields | None]]
) -> list[Fields | None] | None:
    """Reviews of numbered answers, made in parts beside a file; killed anywhere, the same call goes on.

    Args:
        out: file that the parts are for.
        recipe: all that decides the reviews, as JSON.
        count: of the answers.
        make: reviews of the answers with these numbers; None for one that cannot be had.

    Returns:
        the review of each answer; None in a process that only helped the first one.

    Raises:
        TimeoutError: another process does not make its share.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = Chunks(out.with_name(out.name + PARTS_SUFFIX), "review", recipe, count, BATCH)

    def rows(some: Sequence[int]) -> list[ChunkRow]:
        return [{"review": review} | ({UNFINISHED: True} if review is None else {}) for review in make(some)]

    share = RankShare.from_launcher()
    run_share(parts, rows, "review", share)
    if not share.is_main_process:
        return None
    parts.wait(WAIT_SECONDS)
    return [row["review"] for row in parts.rows()]


def read_wording(own: str, template: str | None) -> str:
    """What a judge is asked: our own wording, or that of a file which names the same places.

    Raises:
        BenchmarkError: the file cannot be read, or lacks a place.
    """
    if template is None:
        return own
    wording = read_text(Path(template))
    if lacking := sorted(set(_PLACE.findall(own)) - set(_PLACE.findall(wording))):
        places = ", ".join(f"{{{name}}}" for name in lacking)
        raise BenchmarkError(f"{template}: expected the wording to have a place for {places}")
    return wording


def fill_template(wording: str, fields: Mapping[str, str]) -> str:
    """A wording with its places filled in; other braces stay.

    >>> fill_template('{answer} as {"json"}, {x}', {"answer": "{x}"})
    '{x} as {"json"}, {x}'
    """
    return _PLACE.sub(lambda place: fields.get(place[1], place[0]), wording)


def judge_from_rows(rows: Sequence[FileRow], review: str, unnamed: str = "") -> str:
    """The one judge of rows that hold a review.

    Args:
        review: field that makes a row a review.
        unnamed: what to call the judge of reviews that name none; empty if they have to.

    Raises:
        BenchmarkError: there is none, or more than one.
    """
    judges = {
        row.get(str, "judge") if "judge" in row.fields else unnamed for row in rows if review in row.fields
    }
    if len(judges) != 1 or "" in judges:
        raise BenchmarkError(
            f"{rows[0].where}: expected reviews of one judge, got {sorted(judges - {''}) or 'none'}. "
            "`rlaifv judge` adds them."
        )
    return judges.pop()


def save_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON lines."""
    with atomic_file(path) as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
