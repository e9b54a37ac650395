"""Prompts that a model cannot be asked: each is left out by name, and never ends the work on the others."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from rlaifv_pl.console import stderr
from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.schema import check_prompt
from rlaifv_pl.records import Sample

SHOWN_FAULTS = 3
"""Prompts of one call that are named on the screen."""

Result = TypeVar("Result")


def skip_bad_prompts(
    samples: Sequence[Sample], work: Callable[[Sequence[int]], Sequence[Result]]
) -> list[Result | BadSample]:
    """Return the result of work on each prompt, or why the prompt cannot be used.

    Args:
        samples: the prompts.
        work: makes one result for each number of a sample that it is given, or raises BadSample about
            `sample <key>`, which it is not given again.

    Raises:
        BadSample: the fault is about none of the samples.
    """
    names = [f"sample {sample.key}" for sample in samples]
    faults: dict[int, BadSample] = {}
    for number, sample in enumerate(samples):
        try:
            check_prompt(sample, names[number])
        except BadSample as fault:
            faults[number] = fault
    while True:
        good = [number for number in range(len(samples)) if number not in faults]
        try:
            results = dict(zip(good, work(good) if good else (), strict=True))
            return [faults[number] if number in faults else results[number] for number in range(len(samples))]
        except BadSample as fault:
            refused = next((number for number in good if names[number] == fault.where), None)
            if refused is None:
                raise
            faults[refused] = fault


def show_faults(results: Sequence[object]) -> None:
    """Print the first faults among the results of `skip_bad_prompts`, and how many there are."""
    faults = [one for one in results if isinstance(one, BadSample)]
    for fault in faults[:SHOWN_FAULTS]:
        more = f" ({len(faults)} such prompts among {len(results)})" if len(faults) > SHOWN_FAULTS else ""
        stderr.print(f"left out: {fault}{more}", markup=False, highlight=False)
