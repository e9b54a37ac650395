"""The ledger: what each round of a run was made of, what came out, and how long it took."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaifv_pl.data.atomic import atomic_file, writing

LEDGER_NAME = "ledger.json"


class Ledger:
    """Entries by round in `<run>/rounds/ledger.json`, on disk after every change.

    Round 0 is the policy as the run was given it: it has figures, but no pairs. An entry may hold `prompts` (keys of
    those that the round takes, which no later one takes again), `pairs`, `recipe`, `manifest`, `drops`, `notes`,
    `agreement`, `figures` and `seconds` by stage.

    Args:
        rounds: directory of the rounds.
        writes: whether this process is the one that writes; the others only read.
    """

    def __init__(self, rounds: Path, *, writes: bool = True) -> None:
        self.path, self.writes = rounds / LEDGER_NAME, writes

    def read(self) -> dict[int, dict[str, Any]]:
        """All entries, in the order of the rounds."""
        if not self.path.is_file():
            return {}
        entries = json.loads(self.path.read_bytes())
        return {int(number): entries[number] for number in sorted(entries, key=int)}

    def prompts(self, number: int) -> list[str]:
        """Keys of the prompts that a round has taken, in its order; none where it has not begun."""
        return self.read().get(number, {}).get("prompts", [])

    def prompts_before(self, number: int) -> set[str]:
        """Keys of the prompts that the rounds before one have taken."""
        earlier = (entry for each, entry in self.read().items() if each < number)
        return {key for entry in earlier for key in entry.get("prompts", [])}

    def begin(self, number: int, recipe: str, prompts: Sequence[str]) -> None:
        """Note that a round begins, and which prompts it takes.

        What stands there of it from another recipe is another run's, and goes, with round 0 if it is the first
        round's. What stands there of later rounds, or of training in this one, was never done on the way here.
        """
        if self.writes:
            entries = self.read()
            own = entries.get(number, {})
            is_same = own.get("recipe") == recipe
            spent = own.get("seconds", {}) if is_same else {}
            seconds = {stage: value for stage, value in spent.items() if stage not in ("train", "measure")}
            earlier = {each: entries[each] for each in entries if each < number and (is_same or number > 1)}
            self._write({**earlier, number: {"recipe": recipe, "prompts": list(prompts), "seconds": seconds}})

    def go_on(self, number: int) -> None:
        """Note that training goes on in the midst of a round: it has no figures yet, and none is after it."""
        if self.writes:
            entries = {each: entry for each, entry in self.read().items() if each <= number}
            entries.get(number, {}).pop("figures", None)
            self._write(entries)

    def note(self, number: int, **values: Any) -> None:
        """Put values into a round's entry, in place of what stood there under the same names."""
        if self.writes:
            entries = self.read()
            entries[number] = entries.get(number, {}) | values
            self._write(entries)

    def spend(self, number: int, stage: str, seconds: float) -> None:
        """Add to the seconds of a stage of a round; work that a kill threw away counts where it was noted."""
        spent = self.read().get(number, {}).get("seconds", {})
        self.note(number, seconds=spent | {stage: round(spent.get(stage, 0.0) + seconds, 3)})

    def _write(self, entries: Mapping[int, Any]) -> None:
        with writing(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as file:
            file.write((json.dumps(entries, indent=2) + "\n").encode())
