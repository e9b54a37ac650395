"""`rlaifv COMMAND`: one file a command; `rlaifv COMMAND --help` lists its options.

Nothing large is imported here, and a command imports what it needs when it runs: help, and mistakes in options, are
answered at once.
"""

import difflib
import sys
from collections.abc import Mapping, Sequence

from rlaifv_pl.training.exit_codes import exit_with_message

HELP = "_help"
Commands = Mapping[str, "str | Commands"]
COMMANDS: Commands = {
    "fit": "rlaifv_pl.cli.commands:fit",
    "validate": "rlaifv_pl.cli.commands:validate",
    "configs": {
        HELP: "the configs that come with the package",
        "list": "rlaifv_pl.cli.configs:list_configs",
        "copy": "rlaifv_pl.cli.configs:copy",
    },
    "shards": {
        HELP: "make, check and look at shards",
        "import": "rlaifv_pl.cli.shards:import_",
        "verify": "rlaifv_pl.cli.shards:verify",
        "show": "rlaifv_pl.cli.report:show",
    },
    "feedback": {
        HELP: "preference shards of a policy's own answers, and corrections of the rejected ones",
        "run": "rlaifv_pl.cli.feedback:make",
        "correct": "rlaifv_pl.cli.correct:correct",
    },
    "rounds": {HELP: "runs that make their own shards", "status": "rlaifv_pl.cli.rounds:status"},
    "evaluate": "rlaifv_pl.cli.evaluate:evaluate",
    "respond": "rlaifv_pl.cli.evaluate:respond",
    "judge": {
        HELP: "reviews of saved responses by a language model",
        "mmhal": "rlaifv_pl.cli.judge:mmhal",
        "objhal": "rlaifv_pl.cli.judge:objhal",
        "llava_bench": "rlaifv_pl.cli.judge:llava_bench",
        "refomb": "rlaifv_pl.cli.judge:refomb",
    },
    "pope": "rlaifv_pl.cli.evaluate:pope",
    "report": "rlaifv_pl.cli.report:report",
    "preflight": "rlaifv_pl.cli.commands:preflight",
    "export": "rlaifv_pl.cli.export:export",
    "answer": "rlaifv_pl.cli.answer:answer",
    "miniature": {
        HELP: "tiny models of the miniature world",
        "new": "rlaifv_pl.cli.miniature:new",
        "measure": "rlaifv_pl.cli.miniature:measure",
        "ship": "rlaifv_pl.cli.miniature:ship",
    },
}
"""Each command's function, by the words that name it."""
DEFAULT_SUBCOMMANDS = {"feedback": "run", "configs": "list"}
"""`rlaifv feedback --config FILE` and `rlaifv configs` name no second word."""
ASKS_HELP = ("--help", "-h")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command named on the command line, or in `arguments`."""
    with exit_with_message():
        _run(list(sys.argv[1:] if arguments is None else arguments))


def fit(arguments: Sequence[str]) -> None:
    """Train a policy."""
    _lightning_cli("fit", arguments)


def validate(arguments: Sequence[str]) -> None:
    """Print the loss and metrics of a policy, or of a run's checkpoint (`--ckpt_path last`), on the shards data.val."""
    _lightning_cli("validate", arguments)


def preflight(arguments: Sequence[str]) -> None:
    """Say what a run needs, before it is started: samples, steps, memory, time and disk."""
    from rlaifv_pl.cli import preflight

    preflight.preflight(arguments)


def _lightning_cli(subcommand: str, arguments: Sequence[str]) -> None:
    from rlaifv_pl.cli import fit

    fit.explained_main([subcommand, *arguments])


LIGHTNING_COMMANDS = {"fit": fit, "validate": validate, "preflight": preflight}
"""Commands whose options are those of Lightning's command line: objective, data and trainer."""


def _run(words: Sequence[str]) -> None:
    command, arguments = _split(words)
    target: str | Commands = COMMANDS
    for word in command:
        assert not isinstance(target, str)
        target = target[word]
    asks_help = bool({*ASKS_HELP} & {*arguments})
    if not isinstance(target, str):
        return _show_group(target, command, arguments)
    if asks_help and (command[0] in LIGHTNING_COMMANDS or words[:1] == ["feedback"]):
        from rlaifv_pl.cli import short_help

        print(short_help.TEXTS[command[0]], end="")
        if command[0] in LIGHTNING_COMMANDS:
            return
    if command[0] in LIGHTNING_COMMANDS:
        arguments = ["--help" if word == "--help=all" else word for word in arguments]
        return LIGHTNING_COMMANDS[command[0]](arguments)
    from rlaifv_pl.cli.command_parser import run_function

    run_function(target, command, arguments)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the words of its command and its arguments."""
    known: str | Commands = COMMANDS
    command: list[str] = []
    arguments, trusted = list(words), list[str]()
    while arguments:
        # May stand between the words of a command.
        if arguments[0].startswith("--trust-config"):
            length = 1 if "=" in arguments[0] else 2
            trusted, arguments = trusted + arguments[:length], arguments[length:]
        elif isinstance(known, str) or arguments[0] not in known:
            break
        else:
            command.append(arguments.pop(0))
            known = known[command[-1]]
    arguments += trusted
    is_group = not isinstance(known, str)
    default = DEFAULT_SUBCOMMANDS.get(" ".join(command))
    # Whoever asks for the help of `feedback` wants its options; that of `configs` lists what there is.
    if is_group and default and (not arguments or arguments[0].startswith("-")):
        command.append(default)
    return command, arguments


def _show_group(group: Commands, command: Sequence[str], arguments: Sequence[str]) -> None:
    if arguments and arguments[0] not in ASKS_HELP:
        sys.exit(f"error: {_unknown(group, command, arguments[0])}")
    from rlaifv_pl.cli.short_help import listing

    print(listing(group, " ".join(["rlaifv", *command])), end="")


def _unknown(group: Commands, command: Sequence[str], word: str) -> str:
    """Return the message about a word that is no command, with the nearest commands."""
    names = {name.split()[-1]: name for name in _names(COMMANDS)} | {
        name: name for name in group if name != HELP
    }
    near = [names[each] for each in difflib.get_close_matches(word, names, cutoff=0.6)]
    hint = f"\n  did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    known = ", ".join(name for name in group if name != HELP)
    return f"{' '.join(['rlaifv', *command])} has no command {word!r}, expected one of {known}{hint}"


def _names(commands: Commands, before: str = "") -> list[str]:
    """Return commands as they are written, of one word or two."""
    names = []
    for key, command in commands.items():
        if key != HELP:
            names += [f"{before}{key}"] if isinstance(command, str) else _names(command, f"{before}{key} ")
    return names


if __name__ == "__main__":
    main()
