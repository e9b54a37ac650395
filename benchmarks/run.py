"""All benchmarks, and their results as a table.

    python -m benchmarks.run --only dpo_step --repeats 5

Writes a JSON file, and RESULTS.md beside it. A benchmark that does not run keeps what an earlier run found.
"""

import json as json_format
import os
import platform
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import auto_cli

from benchmarks import dpo_step, feedback
from benchmarks.race import Race

BENCHMARKS: dict[str, Callable[[str, int], list[Race]]] = {
    "feedback": feedback.measure,
    "dpo_step": dpo_step.measure,
}
RESULTS = Path(__file__).with_name("results.json")
PACKAGES = ("torch", "transformers", "trl", "peft")
PREAMBLE = """# Results

    python -m benchmarks.run

Random models with LLaVA-1.5's geometry (576 image tokens). Shape `prop` is 512 wide with 3 layers and a head of 3 % of
the work, as a 7B has. float32, one thread, CPU time: the machine is shared with other work, so read a ratio with its
quartiles. Ways run interleaved in one process in shuffled order; a ratio is taken inside a repeat, and the median
counts. Before anything is timed, all ways are checked to do equal work. No GPU was used.

TRL is driven through its own collator, `training_step` (with its metrics), clipping and AdamW, without the loop of
its trainer; ours goes through objective, clipping and AdamW, without Lightning's loop. Collation is not timed.
Checkpointing is off and the vision tower frozen on both sides; the reference is live, and with LoRA it is the policy
without adapters. On a CPU TRL computes its head on all positions, on a GPU on answers only: the latter, switched on
here, is the base. Driven so, a step of TRL took a median of 5 % more CPU time than one inside `train()` (all weights,
2 pairs, 7 steps one after the other, from 11 % less to 13 % more): ratios over TRL may be that much too high.
Part of ours is packing: lines of trees have no padding, and rows have some.
"""


def main(
    only: Literal["feedback", "dpo_step"] | None = None,
    repeats: int = 3,
    shape: str = "prop",
    json: Path = RESULTS,
) -> None:
    """Run benchmarks, and write what they found.

    Args:
        only: this one, and not all.
        repeats: of each way.
        shape: of the random model.
        json: file to write; RESULTS.md is written beside it.
    """
    torch.set_num_threads(1)
    found = json_format.loads(json.read_text()) if json.is_file() else {}
    for name in [only] if only else BENCHMARKS:
        races = [asdict(race) for race in BENCHMARKS[name](shape, repeats)]
        found[name] = {"shape": shape, "repeats": repeats, "machine": machine(), "races": races}
        json.write_text(json_format.dumps(found, indent=2) + "\n")
        json.with_name("RESULTS.md").write_text(report(found))
        print(section(name, found[name]))


def machine() -> dict[str, str]:
    """Processor, cores, versions of packages and date."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        **{package: version(package) for package in PACKAGES},
        "date": date.today().isoformat(),
    }


def report(found: dict[str, Any]) -> str:
    """RESULTS.md."""
    return "\n".join([PREAMBLE, *(section(name, result) for name, result in found.items())])


def section(name: str, result: dict[str, Any]) -> str:
    """A benchmark's part of RESULTS.md."""
    about = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    lines = [f"## {name}", "", f"Shape `{result['shape']}`, {result['repeats']} repeats; {about}.", ""]
    for race in result["races"]:
        lines += [f"{race['what']}. Equal: {race['checked']}.", "", *_table(race), ""]
    return "\n".join(lines)


def _table(race: dict[str, Any]) -> list[str]:
    rows = ["| way | CPU seconds | times as fast | quartiles |", "|---|---|---|---|"]
    for name, figures in race["ways"].items():
        low, high = figures["quartiles"]
        spread = "" if name == race["peer"] else f"{low:.2f} to {high:.2f}"
        rows.append(f"| {name} | {figures['seconds']:.2f} | {figures['ratio']:.2f} | {spread} |")
    return rows


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
