"""Short help of a command line, out of the sources: nothing that a command needs is imported for it."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]

FIT = """\
usage: python train.py fit --config FILE [--config FILE ...] [--GROUP.OPTION VALUE ...]

Train a policy. Configs stack; what comes later wins, options win over configs. Each file in configs/ opens with its
command.

  --config FILE             objective, model, data, trainer: configs/dpo.yaml, nsft.yaml, sft.yaml, rounds.yaml,
                            quickstart.yaml; on top of them lora.yaml, held_out.yaml, machine/*.yaml
  --model.policy.path DIR   the model that is trained: a directory, a hub name, or '${shipped:base}'
  --data.train DIR          shards that it is trained on
  --trainer.max_epochs N    epochs; the batch is --data.batch_size N
  --model.optimizer.lr X    learning rate
  --trainer.default_root_dir DIR   directory of the run
  --ckpt_path last          go on with the run that is there
  --overwrite true          remove the run that is there, and start over
  --trust-config PACKAGE    let configs name classes of a package of yours
  --print_config            print all that a run would be given, each option by its name, and end

All options, with what they do:
  python train.py fit --model.help DPOModule        of model (or NSFTModule, SFTModule)
  python train.py fit --model.losses.help Sigmoid   of a term of model.losses
  python train.py fit --help=all                    of everything else: trainer, data, checkpoint, rounds, held_out ...
  rlaifv preflight --config FILE ...                what a run will take of memory, time and disk
"""


def listing(commands: Mapping[str, Any], program: str) -> str:
    """Commands with the first sentence of their docstrings.

    Args:
        commands: `module:function` by name; a group of them is a mapping with a line of its own under `_help`.
        program: what they are called by.
    """
    rows = list(_rows(commands))
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"usage: {program} COMMAND ...", ""]
    lines += [f"  {name:{width}}{what}" for name, what in rows]
    return "\n".join([*lines, "", f"{program} COMMAND --help lists the options of a command.", ""])


def _rows(commands: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, command in commands.items():
        if isinstance(command, Mapping):
            yield from _rows(command, f"{before}{name} ")
        elif name != "_help":
            yield before + name, _what(command)


def _what(command: str) -> str:
    """First sentence of a function's docstring."""
    module, _, function = command.partition(":")
    path = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            return text.partition(". ")[0].rstrip(".")
    raise LookupError(f"{command} is not there")
