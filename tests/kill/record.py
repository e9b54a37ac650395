"""What starts noted on their way: the samples of each batch, and each change of the directory."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

STAGES = {
    "checkpoint": r"checkpoints/",
    "sources": r"^world/",
    "gate": r"stages/gate-",
    "generate": r"stages/generate-",
    "divide": r"stages/divide-",
    "conquer": r"stages/conquer-|\.sqlite",
    "correct": r"stages/correct-",
    "reference log-ps": r"/reference-\w+/",
    "sizes of samples": r"/sizes-\w+/",
    "tower": r"/features-\w+/|/tower-\w+/",
    "reference": r"reference\.safetensors",
    "shards": r"shard-\d+\.tar|manifest\.json|UNFINISHED|/(pairs|corrections|stages|\d+)$",
    "ledger": r"ledger",
    "summary": r"summary|rounds\.png",
    "export": r"export",
    "metrics": r"metrics",
    "config and directories": r"",
}
"""What is touched, by the path; the first that matches."""

Place = tuple[int, int]
"""Epoch and batch."""


class Notes(NamedTuple):
    """Of one start, all its processes together."""

    batches: dict[Place, list[str]]
    """Sorted keys of the samples by place."""
    changes: list[str]
    """Paths that changed, or were about to."""
    seconds: list[float]
    """When the first process noted each of its lines, from its start on."""
    stage: str
    """What was touched last, or about to be."""


def read(path: Path) -> Notes:
    """The notes of a start.

    Args:
        path: of its files without rank and suffix.
    """
    batches: dict[Place, list[str]] = {}
    changes, seconds, stage = [], [], "nothing yet"
    for file in sorted(path.parent.glob(f"{path.name}-*.jsonl")):
        for line in file.read_bytes().splitlines():
            note = json.loads(line)
            if "change" in note:
                changes.append(note["path"])
            else:
                place = note["epoch"], note["batch"]
                batches[place] = sorted(batches.get(place, []) + note["keys"])
            if file.stem.endswith("-0"):
                stage = _stage(note)
                seconds.append(note["seconds"])
    return Notes(batches, changes, seconds, stage)


def _stage(note: dict) -> str:
    if "change" not in note:
        return "training step"
    return next(name for name, pattern in STAGES.items() if re.search(pattern, note["path"]))


def go_on(history: dict[Place, list[str]], batches: dict[Place, list[str]]) -> int:
    """Add what a start trained on to what those before it did, in place of what it did again; how many batches that
    were.

    >>> history = {(0, 0): ["a"], (0, 1): ["b"]}
    >>> go_on(history, {(0, 1): ["b"], (0, 2): ["c"]}), history
    (1, {(0, 0): ['a'], (0, 1): ['b'], (0, 2): ['c']})
    """
    again = [place for place in history if batches and place >= min(batches)]
    for place in again:
        del history[place]
    history |= batches
    return len(again)


def twice(history: dict[Place, list[str]]) -> list[tuple[int, str]]:
    """Samples that an epoch came to more than once.

    >>> twice({(0, 0): ["a"], (0, 1): ["a", "b"], (1, 0): ["b"]})
    [(0, 'a')]
    """
    seen = Counter((epoch, key) for (epoch, _), keys in history.items() for key in keys)
    return sorted(place for place, times in seen.items() if times > 1)
