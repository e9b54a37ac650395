"""Kill runs, start them again, and compare what they leave with runs that were never killed.

    python -m tests.kill --what fit --kills 100 --seed 0
    python -m tests.kill --what rounds --moments change

Ends with exit code 0 when every file is equal. SIGKILL goes to the whole group of processes, workers included.
"""

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

from jsonargparse import auto_cli

from tests.kill.start import Cold, Failed, Warm
from tests.kill.trial import Bench, Difference, Tally
from tests.kill.works import WORKS, Work


def main(
    what: Literal["fit", "feedback", "rounds"],
    kills: int = 100,
    seed: int = 0,
    moments: Literal["random", "change"] = "random",
    variants: list[str] | None = None,
    cold: bool = False,
) -> None:
    """Kill until it was done so many times.

    Args:
        what: is killed.
        kills: in all, at random moments; of `change`, the most trials of a variant, evenly spread.
        seed: of the moments.
        moments: `random` times, or before each `change` that a run makes of its directory.
        variants: of what is killed; all unless given.
        cold: start real processes, at the cost of their imports, instead of copies of one that has imported
            everything. (Without, each variant is done once by both, and must leave the same.)
    """
    if cold and moments != "random":
        raise ValueError("real processes are killed at random moments only")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        here, notes = (Path(folder) / name for name in ("here", "notes"))
        here.mkdir()
        notes.mkdir()
        works = WORKS[what](here)
        works = {name: works[name] for name in variants or works}
        with Cold() if cold else Warm(notes) as starts:
            bench, rng = Bench(starts, here), random.Random(seed)
            try:
                (_randomly if moments == "random" else _at_changes)(bench, works, kills, rng)
            except (Difference, Failed) as error:
                done = bench.tally
                sys.exit(f"{what}, seed {seed}, after {done.kills} kills in {done.trials} trials: {error}")
    _report(what, bench.tally, time.monotonic() - started)


def _randomly(bench: Bench, works: dict[str, Work], kills: int, rng: random.Random) -> None:
    """Variants in a drawn order, all of them before one comes again."""
    wholes, order = {}, []
    while bench.tally.kills < kills:
        order = order or rng.sample(sorted(works), len(works))
        name = order.pop()
        if name not in wholes:
            wholes[name] = bench.whole(works[name])
        bench.at_random(works[name], wholes[name], rng, kills - bench.tally.kills)
        print(f"{name}: {bench.tally.kills} kills in {bench.tally.trials} trials", flush=True)


def _at_changes(bench: Bench, works: dict[str, Work], kills: int, rng: random.Random) -> None:
    for name, work in works.items():
        whole = bench.whole(work)
        count = sum(whole.changes)
        numbers = range(1, count + 1, -(-count // kills))
        for number in numbers:
            bench.at_change(work, whole, rng, number)
        print(f"{name}: killed before {len(numbers)} of {count} changes", flush=True)


def _report(what: str, tally: Tally, seconds: float) -> None:
    print(" kills  last touched")
    for stage, count in tally.stages.most_common():
        print(f"{count:6d}  {stage}")
    print(
        f"{what}: {tally.kills} kills in {tally.trials} trials, all files equal; {tally.kept} finished parts lay there "
        f"at kills and were kept, at most {tally.again} batches were trained on again; {seconds:.0f} seconds"
    )


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
