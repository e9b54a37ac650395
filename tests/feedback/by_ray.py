"""A command to kill: parts made by an actor of a Ray of its own. `python -m tests.feedback.by_ray ROOT NOTE`."""

import sys
from functools import partial
from pathlib import Path

from rlaifv_pl.feedback.parts import Parts
from rlaifv_pl.feedback.ray_actors import RayActors
from tests.feedback.squares import slow

if __name__ == "__main__":
    root, note = map(Path, sys.argv[1:])
    print(list(RayActors(gpus_per_actor=0).make(Parts(root, "square", {}, 10, 2), partial(slow, note))))
