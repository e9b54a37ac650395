"""Parse the options of a command and call its function: its signature and docstring are the schema."""

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace, auto_cli
from omegaconf.errors import OmegaConfBaseException

from rlaifv_pl.cli.configs import resolve_configs
from rlaifv_pl.cli.library_logs import ignore_library_warnings, silence_library_logs
from rlaifv_pl.cli.trust import trust_packages
from rlaifv_pl.cli.usage_errors import explain_usage_error, option_names
from rlaifv_pl.miniature import resolve_shipped

SEVERAL_PATHS = {"shards import": 1, "shards verify": 0, "shards show": 0}
"""Commands that take several paths, and how many other positional words follow the paths."""
OPTIONS_ONLY = ("feedback", "evaluate", "respond", "judge")
"""Commands without positional words: configs name their parts, or their files are not alike."""


class CommandParser(ArgumentParser):
    """Explains a mistake in a few lines."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sys.exit(f"error: {explain_usage_error(message, option_names(self))}")

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:
        try:
            return super().parse_args(*args, **kwargs)
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            self.error(f"{error.full_key}: {reason} (a text with ${{ is written with \\${{)", error)

    def instantiate(self, *args: Any, **kwargs: Any) -> Namespace:
        silence_library_logs()  # After the options are found right: it imports transformers.
        try:
            return super().instantiate(*args, **kwargs)
        except ValueError as error:  # A constructor of ours refuses what it was given.
            self.error(str(error), error)


def run_function(target: str, command: Sequence[str], arguments: Sequence[str]) -> None:
    """Call a command's function with the options of the command line.

    Args:
        target: `module:function`.
        command: words that name the command.
        arguments: the words behind them.
    """
    ignore_library_warnings()
    name = " ".join(command)
    arguments = resolve_configs(trust_packages(arguments))
    if name in SEVERAL_PATHS:
        arguments = bundle_paths(arguments, SEVERAL_PATHS[name])
    if name == "configs copy" and len(arguments) > 1 and not arguments[1].startswith("-"):
        arguments.insert(1, "--out")  # jsonargparse has no optional positional words.
    resolve_shipped()
    module, _, function = target.partition(":")
    auto_cli(
        getattr(import_module(module), function),
        args=arguments,
        prog=f"rlaifv {name}",
        parser_class=CommandParser,
        allow_abbrev=False,
        as_positional=command[0] not in OPTIONS_ONLY,
        parser_mode="omegaconf+",
    )


def bundle_paths(words: Sequence[str], behind: int) -> list[str]:
    """Join the paths, which a shell makes several of one pattern, to one list.

    Args:
        words: arguments of a command.
        behind: number of positional words behind the paths.

    >>> bundle_paths(["a.json", "b.json", "out", "--format", "trl"], 1)
    ['["a.json", "b.json"]', 'out', '--format', 'trl']
    """
    positional = [
        number
        for number, word in enumerate(words)
        if not word.startswith("-")
        and (number == 0 or not words[number - 1].startswith("--") or "=" in words[number - 1])
    ]
    paths = positional[: len(positional) - behind]
    if len(paths) < 2:
        return [*words]
    bundle = json.dumps([words[number] for number in paths])
    return [bundle, *(word for number, word in enumerate(words) if number not in paths)]
