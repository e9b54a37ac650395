"""`rlaifv world ...`: begin a fresh model, measure one, and ship one."""

import json
from pathlib import Path

from rlaifv_pl.world.model import save_fresh


def new(out: str, seed: int = 0) -> None:
    """Write a fresh tiny VLM with random weights and its processor.

    Args:
        out: directory.
        seed: of the weights.
    """
    save_fresh(Path(out), seed)
    print(f"A model that knows nothing yet is in {out}.")
