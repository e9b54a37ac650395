"""Answers of the policy from the evaluations between rounds, kept for comparison in the report."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlaifv_pl.data.atomic import atomic_file, writing
from rlaifv_pl.data.contact_sheet import prompt_text
from rlaifv_pl.records import Answer

FOLDER, IMAGES = "answers", "images"
KEPT_ANSWERS = 60
"""Number of answers that are kept of each evaluation, from the first on."""


def keep_answers(rounds: Path, number: int, answers: Sequence[Answer]) -> None:
    """Write the first answers of an evaluation as JSON lines, and each of their images once, named by its SHA-256.

    The same answers give the same bytes; earlier answers of that round are replaced.

    Args:
        rounds: directory of the rounds.
        number: round after which the answers were given; 0 for the initial policy.
    """
    directory = rounds / FOLDER
    with writing(directory):
        (directory / IMAGES).mkdir(parents=True, exist_ok=True)
    rows = []
    for answer in answers[:KEPT_ANSWERS]:
        names = [hashlib.sha256(data).hexdigest() for data in answer.prompt.images]
        for name, data in zip(names, answer.prompt.images, strict=True):
            if not (path := directory / IMAGES / name).is_file():
                with atomic_file(path) as file:
                    file.write(data)
        rows.append(
            {
                "key": answer.prompt.key,
                "prompt": prompt_text(answer.prompt),
                "images": names,
                "completion": answer.text,
                "mentions": answer.mentions,
            }
        )
    with atomic_file(answers_path(rounds, number)) as file:
        file.writelines(json.dumps(row).encode() + b"\n" for row in rows)


def read_answers(rounds: Path, number: int) -> Iterator[tuple[dict[str, Any], tuple[bytes, ...]]]:
    """Yield the rows of `keep_answers` with their images; none if no answers were kept.

    Raises:
        ValueError: the file is damaged.
        OSError: an image is missing.
    """
    path = answers_path(rounds, number)
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        row = json.loads(line)
        try:
            texts = {name: row[name] for name in ("key", "prompt", "completion")}
            mentions = [(int(start), int(end), bool(is_true)) for start, end, is_true in row["mentions"]]
            names = [Path(name).name for name in row["images"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an answer of a policy ({error!r})") from error
        yield (
            texts | {"mentions": mentions},
            tuple((path.parent / IMAGES / name).read_bytes() for name in names),
        )


def answers_path(rounds: Path, number: int) -> Path:
    """Path of the answers after a round.

    >>> str(answers_path(Path("runs/dpo/rounds"), 2))
    'runs/dpo/rounds/answers/2.jsonl'
    """
    return rounds / FOLDER / f"{number}.jsonl"
