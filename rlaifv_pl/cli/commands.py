"""`rlaifv <verb>`: everything but training, as typed functions; `rlaifv <verb> --help` lists the options."""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace, auto_cli
from omegaconf.errors import OmegaConfBaseException

from rlaifv_pl.cli.library_logs import silence_library_logs
from rlaifv_pl.cli.short_help import FIT, listing
from rlaifv_pl.cli.trust import trust_packages
from rlaifv_pl.cli.usage_errors import explain_usage_error, option_names
from rlaifv_pl.miniature import resolve_shipped
from rlaifv_pl.training.exit_codes import told_in_a_line

HELP = "_help"
_SEVERAL = {"import": 1, "verify": 0, "show": 0}
"""Verbs of `shards` that take several paths, and how many other words come behind these."""
VERBS: Mapping[str, Any] = {
    "fit": "rlaifv_pl.cli.commands:fit",
    "validate": "rlaifv_pl.cli.commands:validate",
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
    "preflight": "rlaifv_pl.cli.preflight:preflight_command",
    "export": "rlaifv_pl.cli.export:export",
    "answer": "rlaifv_pl.cli.answer:answer",
    "miniature": {
        HELP: "tiny models of the miniature world",
        "new": "rlaifv_pl.cli.miniature:new",
        "measure": "rlaifv_pl.cli.miniature:measure",
        "ship": "rlaifv_pl.cli.miniature:ship",
    },
}
"""What may be named, and where it is: imports take seconds, and a verb needs few of them."""


class CommandParser(ArgumentParser):
    """Explains a mistake in a few lines."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sys.exit(f"error: {explain_usage_error(message, [*option_names(self), *_names(VERBS)])}")

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:
        try:
            return super().parse_args(*args, **kwargs)
        except OmegaConfBaseException as error:
            said = str(error).splitlines()[0]
            self.error(f"{error.full_key}: {said} (a text with ${{ is written with \\${{)", error)

    def instantiate(self, *args: Any, **kwargs: Any) -> Namespace:
        try:
            return super().instantiate(*args, **kwargs)
        except ValueError as error:  # Of our constructors, about what they were given.
            self.error(str(error), error)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the verb named on the command line, or in `arguments`."""
    with told_in_a_line():
        silence_library_logs()
        _run(list(sys.argv[1:] if arguments is None else arguments))


def fit(config: str) -> None:
    """Train a policy, as `python train.py fit` does.

    Args:
        config: file with objective, model, data and trainer; `rlaifv fit --help` tells of the options.
    """
    _train(["fit", "--config", config])


def validate(config: str) -> None:
    """Print the loss and metrics of a policy, or of a run's checkpoint (`--ckpt_path last`), on the shards data.val.

    Args:
        config: as for `fit`.
    """
    _train(["validate", "--config", config])


def opened(verbs: Mapping[str, Any], named: Sequence[str]) -> dict[str, Any]:
    """The verbs as functions: of those beside one another the named one alone, or all where none of them is named.

    Args:
        named: words of the command line.
    """
    name, *rest = named or [""]
    chosen = {key: verbs[key] for key in (HELP, name) if key in verbs} if name in verbs else verbs
    return {key: value if key == HELP else _opened(value, rest) for key, value in chosen.items()}


def _opened(verb: Any, named: Sequence[str]) -> Any:
    if isinstance(verb, Mapping):
        return opened(verb, named)
    module, _, function = verb.partition(":")
    return getattr(import_module(module), function)


def _listed(words: Sequence[str]) -> list[str]:
    """The words of a command with its paths, which a shell makes several of one pattern, as one list.

    >>> _listed(["shards", "import", "a.json", "b.json", "out", "--format", "trl"])
    ['shards', 'import', '["a.json", "b.json"]', 'out', '--format', 'trl']
    """
    if words[:1] != ["shards"] or not {*words[1:2]} & _SEVERAL.keys():
        return [*words]
    places = [
        number
        for number, word in enumerate(words)
        if number > 1
        and not word.startswith("-")
        and (not words[number - 1].startswith("--") or "=" in words[number - 1])
    ]
    paths = places[: len(places) - _SEVERAL[words[1]]]
    if len(paths) < 2:
        return [*words]
    bundle = json.dumps([words[number] for number in paths])
    return [
        *words[:2],
        bundle,
        *(word for number, word in enumerate(words) if number > 1 and number not in paths),
    ]


def _run(given: Sequence[str]) -> None:
    if given[:1] in (["fit"], ["validate"]):
        return _train(given)
    if given[:1] == ["preflight"]:
        from rlaifv_pl.cli.preflight import preflight

        return preflight(given[1:])
    named = _listed(trust_packages(given))
    if (group := _group(named)) is not None:
        return print(listing(group, " ".join(["rlaifv", *named[:-1]])), end="")
    if named[:1] == ["feedback"] and not {*named[1:2]} & {"run", "correct"}:
        named.insert(1, "run")  # `rlaifv feedback --config FILE` is what one means by feedback.
        if {"--help", "-h"} & {*named}:
            print(
                "`rlaifv feedback` is `rlaifv feedback run`, with these options; `rlaifv feedback correct --help`:"
            )
            print("corrections of the pairs that it makes.\n")
    resolve_shipped()
    # Feedback is made of parts that configs name, and a figure of files that are not alike, so that all they take is
    # an option.
    positional = not {*named[:1]} & {"feedback", "evaluate", "respond", "judge"}
    commands, program = VERBS, Path(sys.argv[0]).name
    if isinstance(group := VERBS.get(next(iter(named), "")), Mapping) and named[1:2] and named[1] in group:
        # jsonargparse stumbles over an unknown key in the config of a command two levels down.
        commands = {name: command for name, command in group.items() if name != HELP}
        program = f"{program} {named.pop(0)}"
    auto_cli(
        opened(commands, named),
        args=named,
        prog=program,
        parser_class=CommandParser,
        allow_abbrev=False,
        as_positional=positional,
        parser_mode="omegaconf+",
    )


def _train(given: Sequence[str]) -> None:
    """`rlaifv fit` and `rlaifv validate`, which `train.py` is."""
    if given in (["fit", "--help"], ["fit", "-h"]):
        return print(FIT, end="")
    from rlaifv_pl.cli import fit

    arguments = ["--help" if argument == "--help=all" else argument for argument in given]
    fit.explained_main(arguments)


def _group(named: Sequence[str]) -> Mapping[str, Any] | None:
    """The group of commands that help is asked of; None where it is not asked of several, or of feedback."""
    *words, last = named or [""]
    if last not in ("", "--help", "-h") or words == ["feedback"]:
        return None
    group: Any = VERBS
    for word in words:
        group = group.get(word) if isinstance(group, Mapping) else None
    return group if isinstance(group, Mapping) else None


def _names(commands: Mapping[str, Any], before: str = "") -> list[str]:
    """Commands as they are written, of one word or two."""
    inner = [
        name
        for key, command in commands.items()
        if isinstance(command, Mapping)
        for name in _names(command, f"{before}{key} ")
    ]
    return inner + [before + key for key in commands if key != HELP]


if __name__ == "__main__":
    main()
