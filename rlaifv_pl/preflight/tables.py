"""What preflight found, as tables and as JSON."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.preflight.dataset_stats import SHOWN_KEYS
from rlaifv_pl.preflight.findings import Findings
from rlaifv_pl.preflight.memory import MemoryEstimate


def show(found: Findings) -> None:
    """Print tables, notes and the verdict; what stands in the way goes to standard error."""
    console = Console()
    for table in _tables(found):
        console.print(table)
    for note in found.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    for what in found.untried:
        console.print(f"not tried: {what}", markup=False, highlight=False, soft_wrap=True)
    for problem in found.problems:
        Console(stderr=True).print(f"error: {problem}", markup=False, highlight=False, soft_wrap=True)
    if not found.problems:
        sure = "nothing stands in the way of this run"
        verdict = "no fault was found in what was looked at" if found.untried else sure
        console.print(verdict, highlight=False)


def write(found: Findings, path: Path) -> None:
    """The same as a JSON file."""
    with atomic_file(path) as file:
        file.write((json.dumps(as_json(found), indent=2) + "\n").encode())


def as_json(found: Findings) -> dict[str, Any]:
    """All that was found, as plain values; bytes and seconds."""
    steps, memory = found.steps, found.memory
    return {
        "machine": asdict(found.machine),
        "samples": samples_of(found),
        "steps": steps and asdict(steps),
        "memory": memory and {**asdict(memory), "total": memory.total, "usable": found.room},
        "advice": [asdict(advice) for advice in found.advice],
        "time": found.time,
        "disk": [{"place": str(d.place), "free": d.free, "parts": d.parts} for d in found.disks],
        "problems": found.problems,
        "notes": found.notes,
        "untried": found.untried,
    }


def samples_of(found: Findings) -> dict[str, Any] | None:
    """Figures of the samples and of the batches that they make."""
    seen, dealt = found.surveyed, found.batches
    if seen is None:
        return None
    figures: dict[str, Any] = {"samples": len(seen.samples), "read": len(seen.numbers)}
    figures["unusable"] = {
        reason: {"count": len(w), "first": w[:SHOWN_KEYS]} for reason, w in seen.faults.items()
    }
    trees = seen.column("tree")
    if trees.any():
        used = trees[trees > 0]
        figures["tokens"] = _spread(used) | {"images": float(seen.column("images").sum() / used.sum())}
        figures["longest row"] = int(seen.column("longest").max())
    if dealt is not None and dealt.dealt:
        figures["batches"] = _spread(dealt.tokens) | {"padding": dealt.padding}
        figures["samples a batch"] = float(np.mean([len(mine) for mine in dealt.dealt]))
    return figures


def _spread(values: np.ndarray) -> dict[str, int]:
    at = {"median": 50, "p95": 95, "max": 100}
    return {name: int(np.percentile(values, share, method="higher")) for name, share in at.items()}


def _tables(found: Findings) -> Iterator[Table]:
    if found.surveyed is not None and (figures := samples_of(found)) is not None:
        yield _samples_table(figures, found.surveyed.is_whole)
    if found.steps is not None:
        steps = found.steps
        yield _table("steps", [
            ("processes", f"{steps.world}"),
            ("batches of a process and epoch", f"{steps.batches:,}"),
            ("batches of a step", f"{steps.accumulated}"),
            ("steps of an epoch", f"{steps.per_epoch:,}"),
            ("steps in all", f"{steps.in_all:,}"),
        ])  # fmt: skip
    if found.memory is not None:
        yield _memory_table(found.memory, found.room)
    if found.advice:
        rows = [(advice.words, decimal(advice.total)) for advice in found.advice]
        yield _table("to change, and what a device then needs", rows)
    if found.time:
        yield _table("time", [(name, _seconds(value)) for name, value in found.time.items()])
    for each in found.disks:
        rows = [
            *((name, decimal(size)) for name, size in each.parts.items()),
            ("free", decimal(each.free)),
        ]
        yield _table(f"disk at {each.place}", rows)


def _samples_table(figures: dict[str, Any], is_whole: bool) -> Table:
    part = "" if is_whole else f", of which {figures['read']:,}, drawn by the seed, were read"
    rows = [("samples", f"{figures['samples']:,}{part}")]
    for reason, what in figures["unusable"].items():
        rows.append((f"cannot be used: {reason}", f"{what['count']:,}: {', '.join(what['first'])}"))
    if tokens := figures.get("tokens"):
        rows.append(
            (
                "tokens of a sample",
                f"median {tokens['median']:,}, 95 % {tokens['p95']:,}, max {tokens['max']:,}",
            )
        )
        rows.append(("of them image tokens", f"{tokens['images']:.1%}"))
        rows.append(("tokens of the longest row, for model.max_length", f"{figures['longest row']:,}"))
    if dealt := figures.get("batches"):
        rows.append(
            ("tokens of a batch", f"median {dealt['median']:,}, 95 % {dealt['p95']:,}, max {dealt['max']:,}")
        )
        rows.append(("samples of a batch", f"{figures['samples a batch']:.1f}"))
        rows.append(("padding", f"{dealt['padding']:.1%}"))
    return _table("samples", rows)


def _memory_table(memory: MemoryEstimate, room: int) -> Table:
    rows = [(name, decimal(size)) for name, size in memory.steady.items() if size]
    largest = max(memory.passing, key=memory.passing.__getitem__)
    rows += [
        (f"{name}, passing{'' if name == largest else ' (not at the peak)'}", decimal(size))
        for name, size in memory.passing.items()
        if size
    ]
    verdict = "fits" if memory.total <= room else "DOES NOT FIT"
    rows += [
        ("in all", decimal(memory.total)),
        ("can be had", decimal(room)),
        (
            verdict,
            f"{decimal(abs(room - memory.total))} {'to spare' if memory.total <= room else 'too much'}",
        ),
    ]
    return _table("memory of a device", rows)


def _table(title: str, rows: list[tuple[str, str]]) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table


def _seconds(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g} s" if value < 600 else f"{value / 3600:.1f} h"
