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

from benchmarks import data, dpo_step, feedback, memory
from benchmarks.race import Race
from benchmarks.report import RESULTS, record
from benchmarks.table import Table

BENCHMARKS: dict[str, Callable[..., list[Race | Table]]] = {
    "feedback": feedback.measure,
    "dpo_step": dpo_step.measure,
    "memory": memory.measure,
    "data": data.measure,
}
"""Each takes the shape of its random model and a number of repeats."""
NOTES = {"feedback": feedback.NOTE, "dpo_step": dpo_step.NOTE, "memory": memory.NOTE, "data": data.NOTE}
SETTINGS = {"shape": "prop", "repeats": 3}
OWN_SETTINGS = {"memory": {"shape": "v32k", "repeats": 1}}
"""Of benchmarks that others suit better."""


def main(
    only: Literal["feedback", "dpo_step", "memory", "data"] | None = None,
    repeats: int | None = None,
    shape: str | None = None,
    json: Path = RESULTS,
) -> None:
    """Run benchmarks, and write what they found.

    Args:
        only: this one, and not all.
        repeats: of each way; each benchmark's own number unless given.
        shape: of the random models; each benchmark's own unless given.
        json: file to write; RESULTS.md is written beside it.
    """
    torch.set_num_threads(1)
    given = {name: value for name, value in {"shape": shape, "repeats": repeats}.items() if value is not None}
    for name in [only] if only else BENCHMARKS:
        settings = SETTINGS | OWN_SETTINGS.get(name, {}) | given
        results = BENCHMARKS[name](**settings)
        print(record(json, name, settings, results, NOTES[name]))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
