"""The command that this process was started with, as messages show it."""

import os
import shlex
import sys
from collections.abc import Sequence

LAUNCHERS = {"TORCHELASTIC_RUN_ID": "torchrun ...", "SLURM_STEP_ID": "srun python"}
"""Calls of launchers, by an environment variable that each sets; their own options are unknown here."""


def rerun_command(arguments: Sequence[str], **options: str) -> str:
    """Return a command line with some options replaced.

    Args:
        arguments: arguments of the command, without the program.
        options: new values of options by name.

    >>> rerun_command(["fit", "--config", "my dpo.yaml", "--ckpt_path=x.ckpt"], ckpt_path="last")
    "python train.py fit --config 'my dpo.yaml' --ckpt_path last"
    """
    kept, skips = [], False
    for argument in arguments:
        name, equals, _ = argument.removeprefix("--").partition("=")
        is_option = argument.startswith("--")
        if is_option and name in options:
            skips = not equals
        elif is_option or not skips:
            kept.append(argument)
            skips = False
        else:
            skips = False
    replaced = [word for name, value in options.items() for word in (f"--{name}", value)]
    return f"{_program()} {shlex.join([*kept, *replaced])}"


def _program() -> str:
    name = os.path.basename(sys.argv[0])
    launcher = next((how for variable, how in LAUNCHERS.items() if variable in os.environ), "python")
    if name == "rlaifv":
        return name if launcher == "python" else f"{launcher} {sys.argv[0]}"
    return f"{launcher} {sys.argv[0] if name == 'train.py' else 'train.py'}"
