"""Summary of a run of rounds: tables on stderr, a plot of the curve, and JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from rlaifv_pl.console import stderr
from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.rounds.ledger import Ledger

STAGES = ("generate", "divide", "conquer", "pair", "correct", "train", "measure")
COLUMNS = {
    "instance": ("instance", 100, "{:.1f}"),
    "sentence": ("sentence", 100, "{:.1f}"),
    "recall": ("recall", 100, "{:.1f}"),
    "length": ("words", 1, "{:.1f}"),
    "pairs": ("pairs", 1, "{}"),
    "agreement": ("labeler", 100, "{:.1f}"),
}
"""Key of a summary's row: heading, factor, format. `instance` and `sentence` are hallucination, `labeler` is the
share of its verdicts that are true."""
SHARES = {"instance": "instance hallucination", "sentence": "sentence hallucination", "recall": "recall"}


def write_summary(run: Path, ledger: Ledger, seed: int, seconds: float) -> None:
    """Print the table of the rounds and write `rounds.png` and `summary.json` into the run's directory.

    Args:
        seconds: seconds since this start of the run.
    """
    rows = summary_rows(ledger.read())
    stderr.print(rounds_table(rows), seconds_table(rows))
    summary = {"rounds": rows, "seed": seed, "seconds": round(seconds, 1)}
    with atomic_file(run / "summary.json") as file:
        file.write((json.dumps(summary, indent=2) + "\n").encode())
    written = [run / "summary.json"]
    if any("instance" in row for row in rows):
        draw_curve(rows, run / "rounds.png")
        written.append(run / "rounds.png")
    stderr.print(f"{seconds:.0f} seconds; written to {' and '.join(map(str, written))}")


def summary_rows(entries: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows by round: figures of the policy after it, and its training data; row 0 is the initial policy.

    `seconds` has one figure for each stage, and their sum as `all`.
    """
    rows = []
    for number, entry in entries.items():
        spent = entry.get("seconds", {})
        if number and "train" not in spent:
            continue  # Prepared, but not trained on.
        seconds = {stage: spent[stage] for stage in STAGES if stage in spent}
        rows.append(
            {
                "round": number,
                **entry.get("figures", {}),
                "pairs": entry.get("pairs", 0),
                "agreement": entry.get("agreement"),
                "seconds": seconds | {"all": round(sum(seconds.values()), 3)},
            }
        )
    return rows


def rounds_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Table with a row for each round; figures of sampled descriptions, if any, follow those of greedy ones."""
    keys = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    table = Table("round", title="rounds: hallucination and recall in %, greedy and sampled")
    for key in keys:
        table.add_column(COLUMNS[key][0], justify="right", no_wrap=True)
    for row in rows:
        table.add_row(_name(row), *(_greedy_and_sampled(row, key) for key in keys))
    return table


def seconds_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Table of the seconds of each stage of each round."""
    stages = [stage for stage in (*STAGES, "all") if any(stage in row["seconds"] for row in rows)]
    table = Table("round", *stages, title="seconds")
    for row in rows:
        table.add_row(_name(row), *(_format(row["seconds"].get(stage), "{:.1f}") for stage in stages))
    return table


def draw_curve(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot hallucination and recall over the rounds, greedy and sampled, into a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    hallucination, recall = figure.subplots(1, 2)
    numbers = [row["round"] for row in rows]
    for color, (key, name) in enumerate(SHARES.items()):
        axes = recall if key == "recall" else hallucination
        for prefix, label, style in (("", name, "o-"), ("sampled_", f"{name}, sampled", "o:")):
            values = [row.get(prefix + key) for row in rows]
            if any(value is not None for value in values):
                shares = [float("nan") if value is None else 100 * value for value in values]
                axes.plot(numbers, shares, style, color=f"C{color}", label=label)
    for axes in (hallucination, recall):
        axes.set_xlabel("rounds of alignment")
        axes.set_ylabel("%")
        axes.set_xticks(numbers)
        axes.grid(alpha=0.3)
        axes.legend()
    hallucination.set_ylim(bottom=0)
    recall.set_ylim(0, 102)
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _name(row: Mapping[str, Any]) -> str:
    return str(row["round"]) if row["round"] else "start"


def _greedy_and_sampled(row: Mapping[str, Any], key: str) -> str:
    _, factor, form = COLUMNS[key]
    values = [row.get(key), row.get(f"sampled_{key}")]
    return " ".join(form.format(factor * value) for value in values if value is not None)


def _format(value: Any, form: str) -> str:
    return "" if value is None else form.format(value)
