"""The ledger: inputs, results and seconds of each round of a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaifv_pl.data.atomic import atomic_file, writing

LEDGER_NAME = "ledger.json"


class Ledger:
    """Entries by round in `<run>/rounds/ledger.json`, written after every change.

    Round 0 is the initial policy: it has figures, but no pairs. An entry may hold `prompts` (their keys, which no later
    round uses again), `pairs`, `recipe`, `manifest`, `drops`, `notes`, `agreement`, `figures` and `seconds` by stage.

    Args:
        rounds: directory of the rounds.
        writes: whether this process writes; the others only read.
    """

    def __init__(self, rounds: Path, *, writes: bool = True) -> None:
        self.path, self.writes = rounds / LEDGER_NAME, writes

    def read(self) -> dict[int, dict[str, Any]]:
        """Read all entries, in the order of the rounds."""
        if not self.path.is_file():
            return {}
        entries = json.loads(self.path.read_bytes())
        return {int(number): entries[number] for number in sorted(entries, key=int)}

    def prompts(self, number: int) -> list[str]:
        """Keys of a round's prompts, in its order; empty before it has begun."""
        return self.read().get(number, {}).get("prompts", [])

    def prompts_before(self, number: int) -> set[str]:
        """Keys of the prompts of all earlier rounds."""
        earlier = (entry for each, entry in self.read().items() if each < number)
        return {key for entry in earlier for key in entry.get("prompts", [])}

    def begin(self, number: int, recipe: str, prompts: Sequence[str]) -> None:
        """Record that a round begins, and its prompts.

        An entry with another recipe is another run's and is dropped, with round 0 if it is the first round's. So are
        entries of later rounds, and of training in this one: they are not part of the run's history any more.
        """
        if self.writes:
            entries = self.read()
            own = entries.get(number, {})
            is_same = own.get("recipe") == recipe
            spent = own.get("seconds", {}) if is_same else {}
            seconds = {stage: value for stage, value in spent.items() if stage not in ("train", "measure")}
            earlier = {each: entries[each] for each in entries if each < number and (is_same or number > 1)}
            self._write({**earlier, number: {"recipe": recipe, "prompts": list(prompts), "seconds": seconds}})

    def resume(self, number: int) -> None:
        """Record that training resumes within a round: drop its figures and all later rounds."""
        if self.writes:
            entries = {each: entry for each, entry in self.read().items() if each <= number}
            entries.get(number, {}).pop("figures", None)
            self._write(entries)

    def note(self, number: int, **values: Any) -> None:
        """Update values of a round's entry."""
        if self.writes:
            entries = self.read()
            entries[number] = entries.get(number, {}) | values
            self._write(entries)

    def spend(self, number: int, stage: str, seconds: float) -> None:
        """Add seconds to a stage of a round; recorded work counts even if a kill discarded it."""
        spent = self.read().get(number, {}).get("seconds", {})
        self.note(number, seconds=spent | {stage: round(spent.get(stage, 0.0) + seconds, 3)})

    def _write(self, entries: Mapping[int, Any]) -> None:
        with writing(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as file:
            file.write((json.dumps(entries, indent=2) + "\n").encode())
