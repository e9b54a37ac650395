"""Examples of the prompts, candidates and pairs that feedback left out, in a file beside its shards."""

import json
from bisect import insort
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.manifest import ManifestError
from rlaifv_pl.feedback.candidates.candidate_json import decode_candidates, encode_candidates
from rlaifv_pl.feedback.config import PromptSet
from rlaifv_pl.feedback.pairs.pairing import LeftOut
from rlaifv_pl.records import Candidate, Sample

LEFT_OUT_NAME = "left_out.jsonl"
EXAMPLES = 20
"""Number of examples of each reason."""


class _Example(NamedTuple):
    rank: int
    """Number of earlier examples of the same reason and prompt."""
    prompt: int
    """Index of the prompt."""
    left_out: LeftOut


class Examples:
    """The first few examples of each reason, of as many prompts as possible: first ones come before second ones.

    Args:
        most: most examples of each reason.
    """

    def __init__(self, most: int = EXAMPLES) -> None:
        self.most = most
        self._kept: dict[str, list[_Example]] = {}

    def add(self, index: int, left_out: LeftOut) -> None:
        """Add an example if there is room; prompts come in the order of their indices."""
        kept = self._kept.setdefault(left_out.reason, [])
        rank = sum(one.prompt == index for one in kept)
        insort(kept, _Example(rank, index, left_out), key=lambda one: one[:2])
        del kept[self.most :]

    def __iter__(self) -> Iterator[tuple[int, LeftOut]]:
        """Yield the examples with the index of their prompt, by reason."""
        for _, kept in sorted(self._kept.items()):
            yield from ((one.prompt, one.left_out) for one in kept)


class LeftOutRow(NamedTuple):
    """A line of the file."""

    reason: str
    number: int
    """Number of the prompt in the shards that the prompts came from."""
    prompt: Sample
    """The prompt; read from the file it has a key and a text, and no images."""
    candidates: list[Candidate]


def left_out_rows(examples: Iterable[tuple[int, LeftOut]], prompts: PromptSet) -> Iterator[LeftOutRow]:
    """Yield the examples with their prompts."""
    for index, left_out in examples:
        try:
            (prompt,) = prompts.read(range(index, index + 1))
        except BadSample:  # Left out since it cannot be read.
            continue
        yield LeftOutRow(left_out.reason, int(prompts.numbers[index]), prompt, list(left_out.candidates))


def write_left_out(directory: Path, rows: Iterable[LeftOutRow]) -> None:
    """Write the rows as JSON lines; equal rows give equal bytes."""
    with atomic_file(directory / LEFT_OUT_NAME) as file:
        for row in rows:
            line: dict[str, Any] = {
                "reason": row.reason,
                "key": row.prompt.key,
                "number": row.number,
                "prompt": row.prompt.prompt,
                "candidates": encode_candidates(row.candidates),
            }
            file.write(json.dumps(line).encode() + b"\n")


def read_left_out(directory: Path) -> Iterator[LeftOutRow]:
    """Yield the rows that `write_left_out` wrote; none if there is no such file, as in shards of earlier versions.

    Raises:
        ManifestError: the file is damaged.
    """
    path = directory / LEFT_OUT_NAME
    if not path.is_file():
        return
    for line_number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
            prompt = Sample(key=row["key"], prompt=row["prompt"])
            yield LeftOutRow(row["reason"], int(row["number"]), prompt, decode_candidates(row["candidates"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(
                f"{path}, line {line_number}: expected a candidate that feedback left out, got {error!r}. Delete the "
                "file: only the pages of the report show it."
            ) from error
