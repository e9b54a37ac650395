"""What benchmarks found, in a file of JSON, and as RESULTS.md out of that file."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.race import Race
from benchmarks.table import Cell, Table, draw

RESULTS = Path(__file__).with_name("results.json")
PICTURES = "pictures"
PACKAGES = ("torch", "transformers", "trl", "peft")
PREAMBLE = """# Results

    python -m benchmarks.run

Random models with LLaVA-1.5's geometry (576 image tokens). Shape `prop` is 512 wide with 3 layers and a head of 3 % of
the work, as a 7B has. float32, one thread of a CPU and no GPU, unless a section says otherwise.

Where ways race, they run interleaved in one process in shuffled order; a ratio is taken inside a repeat, and the median
counts. Before anything is timed, all ways are checked to do equal work. Time is CPU time: the machine is shared with
other work, so read a ratio with its quartiles.
"""


def record(
    file: Path, name: str, settings: dict[str, Any], results: Sequence[Race | Table], note: str = ""
) -> str:
    """Put a benchmark's results in place of its earlier ones, and write RESULTS.md and pictures beside the file.

    Args:
        file: of JSON; what other benchmarks found in it stays.
        name: of the benchmark.
        settings: it ran with.
        results: it found.
        note: what is to be known of all its results.

    Returns:
        its section of RESULTS.md.
    """
    found = json.loads(file.read_text()) if file.is_file() else {}
    tables = [result for result in results if isinstance(result, Table)]
    found[name] = {
        "settings": settings,
        "machine": machine(),
        "note": note,
        "races": [asdict(result) for result in results if isinstance(result, Race)],
        "tables": [asdict(table) for table in tables],
    }
    for table in tables:
        if table.picture:
            draw(table, file.parent / PICTURES)
    file.write_text(json.dumps(found, indent=2) + "\n")
    file.with_name("RESULTS.md").write_text(report(found))
    return section(name, found[name])


def report(found: dict[str, Any]) -> str:
    """RESULTS.md."""
    return "\n".join([PREAMBLE, *(section(name, result) for name, result in found.items())])


def section(name: str, result: dict[str, Any]) -> str:
    """A benchmark's part of RESULTS.md."""
    about = ", ".join(f"{key} {value}" for key, value in (result["settings"] | result["machine"]).items())
    lines = [f"## {name}", "", f"{about[0].upper()}{about[1:]}.", ""]
    if result["note"]:
        lines += [result["note"].strip(), ""]
    for race in result["races"]:
        lines += [f"{race['what']}. Equal: {race['checked']}.", "", *_race(race), ""]
    for table in result["tables"]:
        lines += [f"{table['what']}.", "", *_rows(table["columns"], table["rows"]), ""]
        if table["note"]:
            lines += [table["note"], ""]
        if table["picture"]:
            lines += [f"![{table['what']}]({PICTURES}/{table['picture']}.png)", ""]
    return "\n".join(lines)


def machine() -> dict[str, str]:
    """Processor, cores, versions of packages and date."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        **{package: _version(package) for package in PACKAGES},
        "date": date.today().isoformat(),
    }


def _race(race: dict[str, Any]) -> list[str]:
    rows = []
    for name, figures in race["ways"].items():
        low, high = figures["quartiles"]
        spread = "" if name == race["peer"] else f"{low:.2f} to {high:.2f}"
        rows.append([name, f"{figures['seconds']:.2f}", f"{figures['ratio']:.2f}", spread])
    return _rows(["way", "CPU seconds", "times as fast", "quartiles"], rows)


def _rows(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    lines = [columns, *([_text(cell) for cell in row] for row in rows)]
    head, *body = [f"| {' | '.join(line)} |" for line in lines]
    return [head, "|" + "---|" * len(columns), *body]


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else f"{cell:,}" if isinstance(cell, int) else f"{cell:.6g}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
