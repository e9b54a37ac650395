"""What of an epoch, or of a pass over validation data, was trained on, and what was left out."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch.distributed as dist

from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives.checks import RunError


class SampleTally:
    """Counts the samples of this process that were kept, and those that were left out, by reason.

    Args:
        state: as `state_dict` gave it.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {"kept": 0, "dropped": {}, "examples": {}}
        self.kept: int = state["kept"]
        self.dropped: Counter[str] = Counter(state["dropped"])
        self.examples: dict[str, str] = dict(state["examples"])
        """Where one of each reason lies."""

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        self.kept += len(batch.keys)
        for where, reason in batch.accounting.dropped:
            self.dropped[reason] += 1
            self.examples.setdefault(reason, where)

    def of_all(self) -> "SampleTally":
        """That of all processes together; all call it together."""
        if not dist.is_initialized():
            return self
        states: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(states, self._own())
        whole = SampleTally()
        for state in states:
            whole.kept += state["kept"]
            whole.dropped.update(state["dropped"])
            whole.examples = state["examples"] | whole.examples
        return whole

    def state_dict(self) -> dict[str, Any]:
        """That of all processes together, for one of them to go on with."""
        return self.of_all()._own()

    def check(self, what: str) -> None:
        """Refuse to go on as if something had been learned, or measured, where nothing was; all call it together.

        Args:
            what: was read.

        Raises:
            RunError: no process kept a sample of it.
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

    def _own(self) -> dict[str, Any]:
        return {"kept": self.kept, "dropped": dict(self.dropped), "examples": self.examples}
