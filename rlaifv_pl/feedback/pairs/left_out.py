"""Examples of what a pass of feedback left out, in a file beside its shards: counts say how much, these say what."""

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
"""Of each reason."""


class _Example(NamedTuple):
    turn: int
    """How many of the same reason and prompt came before."""
    place: int
    left_out: LeftOut


class Examples:
    """The first few of each reason, of as many prompts as there are: a prompt's second one waits for all first ones.

    Args:
        most: of each reason.
    """

    def __init__(self, most: int = EXAMPLES) -> None:
        self.most = most
        self._kept: dict[str, list[_Example]] = {}

    def add(self, place: int, left_out: LeftOut) -> None:
        """Take one up, if there is room; prompts come by their places, in order."""
        kept = self._kept.setdefault(left_out.reason, [])
        turn = sum(one.place == place for one in kept)
        insort(kept, _Example(turn, place, left_out), key=lambda one: one[:2])
        del kept[self.most :]

    def __iter__(self) -> Iterator[tuple[int, LeftOut]]:
        """With the place of their prompt, by reason."""
        for _, kept in sorted(self._kept.items()):
            yield from ((one.place, one.left_out) for one in kept)


class LeftOutRow(NamedTuple):
    """A line of the file."""

    reason: str
    number: int
    """Of the prompt among the shards that the prompts came from."""
    prompt: Sample
    """What is read from the file has its key and what was asked, and no images."""
    candidates: list[Candidate]


def left_out_rows(examples: Iterable[tuple[int, LeftOut]], prompts: PromptSet) -> Iterator[LeftOutRow]:
    """Examples with their prompts."""
    for place, left_out in examples:
        try:
            (prompt,) = prompts.read(range(place, place + 1))
        except BadSample:  # Left out since it cannot be read.
            continue
        yield LeftOutRow(left_out.reason, int(prompts.numbers[place]), prompt, list(left_out.candidates))


def write_left_out(directory: Path, rows: Iterable[LeftOutRow]) -> None:
    """Write them as JSON lines; the same rows give the same bytes."""
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
    """What `write_left_out` wrote; nothing where there is no such file, as in shards of earlier versions.

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
                f"{path}, line {line_number}: nothing that feedback left out ({error!r}). Delete the file: only "
                "pages show it."
            ) from error
