"""A command to kill: parts made by an actor of a Ray of its own. `python -m tests.feedback.by_ray ROOT NOTE`."""

import sys
from functools import partial
from pathlib import Path

from rlaifv_pl.feedback.chunks import Chunks
from rlaifv_pl.feedback.ray_executor import RayExecutor
from tests.feedback.squares import slow

if __name__ == "__main__":
    root, note = map(Path, sys.argv[1:])
    print(list(RayExecutor(gpus_per_actor=0).make(Chunks(root, "square", {}, 10, 2), partial(slow, note))))
