"""The command that this process was started with, as it is shown to be given again."""

import os
import shlex
import sys
from collections.abc import Sequence

LAUNCHERS = {"TORCHELASTIC_RUN_ID": "torchrun ...", "SLURM_STEP_ID": "srun python"}
"""How a launcher is called, by a variable that it sets; its own options are not known here."""


def again(arguments: Sequence[str], **options: str) -> str:
    """A command line with options set anew.

    Args:
        arguments: of the command, without the program.
        options: by name.

    >>> again(["fit", "--config", "my dpo.yaml", "--ckpt_path=x.ckpt"], ckpt_path="last")
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
    set_anew = [word for name, value in options.items() for word in (f"--{name}", value)]
    return f"{_program()} {shlex.join([*kept, *set_anew])}"


def _program() -> str:
    name = os.path.basename(sys.argv[0])
    launcher = next((how for variable, how in LAUNCHERS.items() if variable in os.environ), "python")
    if name == "rlaifv":
        return name if launcher == "python" else f"{launcher} {sys.argv[0]}"
    return f"{launcher} {sys.argv[0] if name == 'train.py' else 'train.py'}"
