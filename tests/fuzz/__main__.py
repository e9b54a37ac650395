"""Damage shards, sidecars and source files at random, and check what comes of each.

    python -m tests.fuzz --cases 1000 --seed 0
    python -m tests.fuzz --seed 0 --only 17

Each case must end whole, in a counted skip, or in an error that names what is wrong and where; no sample may come
with another's image or text; memory, time and the files beside stay as they are. Ends with exit code 0 when all do.
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from tests.fuzz.run import Fuzzer, Outcome

ENDINGS = ("whole", "skipped", "refused", "breach")


def main(cases: int = 1000, seed: int = 0, only: int | None = None) -> None:
    """Run cases, and count by kind what they came to.

    Args:
        cases: in all; every kind has its turn.
        seed: of the cases.
        only: the number of the one case to run, and to tell about.
    """
    started, found = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(seed, Path(folder))
        for number in range(cases) if only is None else [only]:
            outcome = fuzzer.run(number)
            found.append(outcome)
            if outcome.is_breach or only is not None:
                told = "; ".join(outcome.did)
                print(
                    f"{outcome.kind}, case {number}: {outcome.said}\n  did: {told.encode('ascii', 'replace').decode()}"
                )
            if outcome.is_breach:
                print(f"  again: python -m tests.fuzz --seed {seed} --only {number}", flush=True)
    Console().print(_table(found))
    breaches = sum(outcome.is_breach for outcome in found)
    print(f"{len(found)} cases, {breaches} breaches, {time.monotonic() - started:.0f} seconds (seed {seed})")
    if breaches:
        sys.exit(1)


def _table(found: list[Outcome]) -> Table:
    counts = Counter((outcome.kind, _ending(outcome)) for outcome in found)
    table = Table("kind", *ENDINGS)
    for kind in dict.fromkeys(outcome.kind for outcome in found):
        table.add_row(kind, *(str(counts[kind, ending] or "") for ending in ENDINGS))
    totals = Counter(map(_ending, found))
    table.add_row("all", *(str(totals[ending]) for ending in ENDINGS))
    return table


def _ending(outcome: Outcome) -> str:
    return "breach" if outcome.is_breach else outcome.said.split()[0]


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
