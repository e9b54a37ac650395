"""`rlaifv rounds status`: progress of a run of rounds, from its files alone."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from rlaifv_pl.rounds.ledger import Ledger
from rlaifv_pl.rounds.summary import rounds_table, seconds_table, summary_rows


def status(run: str) -> None:
    """Print the finished rounds of a run, and the progress of the current one.

    Args:
        run: directory of the run (its trainer.default_root_dir).

    Raises:
        FileNotFoundError: no run of rounds has begun there.
    """
    rounds = Path(run) / "rounds"
    if not rounds.is_dir():
        raise FileNotFoundError(f"{rounds} is missing: expected the directory of a run of rounds.")
    console, entries = Console(), Ledger(rounds).read()
    if rows := summary_rows(entries):
        console.print(rounds_table(rows), seconds_table(rows))
    table = Table("round", "pairs", "length chosen / rejected", "parts made", title="shards")
    for number in filter(None, entries):
        entry = entries[number]
        notes = entry.get("notes", {})
        words = [notes.get(f"{side}_words") for side in ("chosen", "rejected")]
        table.add_row(
            str(number),
            str(entry.get("pairs", "in the making")),
            " / ".join(f"{each:.1f}" for each in words if each is not None),
            _parts(rounds / str(number) / "stages"),
        )
    console.print(table)


def _parts(stages: Path) -> str:
    """Number of finished parts by stage, in the order in which the stages began."""
    directories = sorted(
        (path for path in stages.glob("*-*") if path.is_dir()), key=lambda path: path.stat().st_ctime
    )
    return ", ".join(f"{path.name.split('-')[0]} {len(list(path.glob('*.jsonl')))}" for path in directories)
