"""Counts of kept and dropped samples of an epoch, or of a pass over validation data."""

from collections import Counter
from typing import TypedDict

import torch.distributed as dist

from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives.checks import RunError


class TallyState(TypedDict):
    """State of a `SampleTally` in checkpoints."""

    kept: int
    dropped: dict[str, int]
    examples: dict[str, str]


class SampleTally:
    """Counts the kept samples of this process, and the dropped ones by reason.

    Args:
        state: a `state_dict` to continue from.
    """

    def __init__(self, state: TallyState | None = None) -> None:
        state = state or {"kept": 0, "dropped": {}, "examples": {}}
        self.kept: int = state["kept"]
        self.dropped: Counter[str] = Counter(state["dropped"])
        self.examples: dict[str, str] = dict(state["examples"])
        """Location of one sample for each reason."""

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        self.kept += len(batch.keys)
        for where, reason in batch.accounting.dropped:
            self.dropped[reason] += 1
            self.examples.setdefault(reason, where)

    def of_all(self) -> "SampleTally":
        """Return the tally of all processes; all call it together."""
        if not dist.is_initialized():
            return self
        states: list[TallyState | None] = [None] * dist.get_world_size()
        dist.all_gather_object(states, self._own())
        total = SampleTally()
        for state in filter(None, states):
            total.kept += state["kept"]
            total.dropped.update(state["dropped"])
            total.examples = state["examples"] | total.examples
        return total

    def state_dict(self) -> TallyState:
        """Return the tally of all processes, for one of them to continue with."""
        return self.of_all()._own()

    def check(self, what: str) -> None:
        """Refuse to continue without a single sample; all processes call it together.

        Args:
            what: name of the data, for the message.

        Raises:
            RunError: no process kept a sample.
        """
        whole = self.of_all()
        if whole.kept:
            return
        reasons = [
            f"{count} {reason} (for instance {whole.examples[reason]})"
            for reason, count in whole.dropped.most_common()
        ]
        raise RunError(
            f"No sample of {what} could be used. Left out were {', '.join(reasons) or 'none: there were none'}. Run "
            "again with --data.on_bad_sample raise, which explains the first of them, or look at them with "
            "`rlaifv shards verify`."
        )

    def _own(self) -> TallyState:
        return {"kept": self.kept, "dropped": dict(self.dropped), "examples": self.examples}
