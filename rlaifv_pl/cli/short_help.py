"""Help that is printed without importing what a command needs: texts, and lists of commands from the sources."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]

FIT = """\
usage: rlaifv fit --config NAME [--config NAME ...] [--GROUP.OPTION VALUE ...]

Train a policy. Configs stack; later ones win, and options win over configs. `python train.py fit` is the same.

  --config NAME             objective, model, data, trainer: a file, or a packaged config (`rlaifv configs` lists them):
                            dpo, nsft, sft, rounds, quickstart; on top of them lora, held_out, machine/fsdp
  --model.policy.path DIR   the model that is trained: a directory, a hub name, or '${shipped:base}'
  --data.train DIR          shards that it is trained on
  --trainer.max_epochs N    epochs; the batch is --data.batch_size N
  --model.optimizer.lr X    learning rate
  --trainer.default_root_dir DIR   directory of the run
  --ckpt_path last          continue the run that is there
  --overwrite true          remove the run that is there, and start over
  --trust-config PACKAGE    let configs name classes of a package of yours
  --print_config            print all settings of the run, each option by its name, and exit

All options, with what they do:
  rlaifv fit --model.help DPOModule        the model's (or NSFTModule, SFTModule)
  rlaifv fit --model.losses.help Sigmoid   those of a term of model.losses
  rlaifv fit --help=all                    all others: trainer, data, checkpoint, rounds, held_out ...
  rlaifv preflight --config NAME ...       memory, time and disk that a run will need
"""
VALIDATE = """\
usage: rlaifv validate --config NAME [--config NAME ...] [--GROUP.OPTION VALUE ...]

Print the loss and metrics of a policy on the shards data.val. Takes the options of `rlaifv fit`.

  --config NAME             config of the run: a file, or a packaged config (`rlaifv configs` lists them)
  --data.val DIR            shards to measure on
  --ckpt_path last          a checkpoint of the run in trainer.default_root_dir: `last`, or a path

All options: rlaifv validate --help=all
"""
PREFLIGHT = """\
usage: rlaifv preflight --config NAME [--config NAME ...] [--GROUP.OPTION VALUE ...]

Say what a run needs, before it is started: samples, steps, memory, time and disk. Exits with code 1 if something is in
its way. Takes the options of `rlaifv fit`, and these:

  --out FILE        JSON file to write all figures to
  --samples N       samples to read, at most; a random part of larger sets, fixed by the run's seed (default: 1000)
  --trial N         steps to train here, to time one, if the model can be loaded and fits; 0 for none (default: 3)
  --memory_gb X     memory of a device of another machine that the run is meant for, in GB of 10^9 bytes
  --devices N       devices of one of its nodes (default: as the config says)
  --nodes N         its nodes (default: as the config says)
  --tflops X        peak of one device in the run's precision, without sparsity, to estimate the time without a trial
  --mfu X           share of `tflops` that the estimate assumes (default: 0.3)
"""
FEEDBACK = """\
`rlaifv feedback` is `rlaifv feedback run`, with these options. `rlaifv feedback correct --help`: corrections of the
pairs that it makes.

"""
TEXTS = {"fit": FIT, "validate": VALIDATE, "preflight": PREFLIGHT, "feedback": FEEDBACK}


def listing(commands: Mapping[str, Any], program: str) -> str:
    """List commands with the first sentence of their docstrings.

    Args:
        commands: `module:function` by name; a group of them is a mapping with a line of its own under `_help`.
        program: words that they are called by.
    """
    rows = list(_rows(commands))
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"usage: {program} COMMAND ...", ""]
    lines += [f"  {name:{width}}{summary}" for name, summary in rows]
    return "\n".join([*lines, "", f"{program} COMMAND --help lists the options of a command.", ""])


def _rows(commands: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, command in commands.items():
        if isinstance(command, Mapping):
            yield from _rows(command, f"{before}{name} ")
        elif name != "_help":
            yield before + name, _summary(command)


def _summary(command: str) -> str:
    """Return the first sentence of a function's docstring."""
    module, _, function = command.partition(":")
    path = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            return text.partition(". ")[0].rstrip(".")
    raise LookupError(f"{command} is not there")
