"""One of two processes that measure together: `python -m tests.evaluation.two RANK STORE OUT`."""

import json
import sys

import torch
from torch import distributed

from tests.evaluation.every import SIZE, metrics

SPLITS = {
    "padded": ([0, 2, 4, 6], [1, 3, 5, 0]),
    "empty": (list(range(SIZE)), []),
    "wrapped": ([0, 1, 2, 3, 4, 5, 6, 0], [6, 5, 0]),
    "partial": ([5], [1, 2]),
}
"""Numbers of the items that each process sees: as a distributed sampler pads, a process without any, and so on."""


def seen(split: str, rank: int) -> dict[str, dict[str, str]]:
    """Figures of each metric, as text so that nan equals itself and every bit counts."""
    found = {}
    for name, (metric, completions) in metrics().items():
        numbers = SPLITS[split][rank]
        for number in numbers:
            metric.update([completions[number]], torch.tensor([number]))
        found[name] = {figure: repr(value.item()) for figure, value in metric.compute().items()}
    return found


if __name__ == "__main__":
    rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    with open(out, "w") as file:
        json.dump({split: seen(split, rank) for split in SPLITS}, file)
    distributed.destroy_process_group()
