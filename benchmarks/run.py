"""All benchmarks, and their results as tables and pictures.

    python -m benchmarks.run --only dpo_step --repeats 5

Writes a JSON file, and RESULTS.md beside it. A benchmark that does not run keeps what an earlier run found.
`python -m benchmarks.gpu` is for a machine with a GPU and writes to the same files.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import auto_cli

from benchmarks import dpo_step, feedback
from benchmarks.race import Race
from benchmarks.report import RESULTS, record
from benchmarks.table import Table

BENCHMARKS: dict[str, Callable[[str, int], list[Race | Table]]] = {
    "feedback": feedback.measure,
    "dpo_step": dpo_step.measure,
}
NOTES = {"feedback": feedback.NOTE, "dpo_step": dpo_step.NOTE}
SHAPES: dict[str, str] = {}
"""Of benchmarks that `prop` does not suit."""


def main(
    only: Literal["feedback", "dpo_step"] | None = None,
    repeats: int = 3,
    shape: str | None = None,
    json: Path = RESULTS,
) -> None:
    """Run benchmarks, and write what they found.

    Args:
        only: this one, and not all.
        repeats: of each way.
        shape: of the random models; each benchmark's own unless given.
        json: file to write; RESULTS.md is written beside it.
    """
    torch.set_num_threads(1)
    for name in [only] if only else BENCHMARKS:
        own = shape or SHAPES.get(name, "prop")
        results = BENCHMARKS[name](own, repeats)
        print(record(json, name, {"shape": own, "repeats": repeats}, results, NOTES[name]))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
