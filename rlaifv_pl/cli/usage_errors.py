"""Short answers to mistakes on the command line."""

import difflib
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from rlaifv_pl.cli import trust
from rlaifv_pl.cli.moved_classes import moved_classes
from rlaifv_pl.cli.option_aliases import OPTION_ALIASES, RENAMED_KEYS
from rlaifv_pl.cli.own_classes import told_lacking

LONGEST_LINE = 200
MOST_LINES = 8
NO_KEY = "no key belongs in a config or an option: set an environment variable, and name it in api_key_env"
MOST_ANSWERS = 4

# What jsonargparse says of the ways that it tried, and values that are whole configs.
_NOISE = re.compile(
    r"Subtypes: |Errors:$|Given value type: |Given value: ([{\[]|NestedArg|Namespace)"
    r"|(- )?Does not validate against any of the Union|- Expected (NoneType|a path but )"
)
_WORDS = (
    (re.compile(r"(?:a )?<class '([\w.]+)'>"), r"\1"),
    (re.compile(r"^\s+- "), ""),
    (re.compile(r"a typing\.Literal"), "one of "),
    (re.compile(r"Type typing\.Callable.* expects a function or a callable class: "), ""),
    (re.compile(r"\.? Got value: Namespace\(.*"), ""),
    (
        re.compile(r"Importing '([\w.]+)' is not allowed.*"),
        r"configs may not name \1, unless you trust it: --trust-config PACKAGE",
    ),
)
_OPTION = re.compile(r"(?:[Oo]ption|arguments?:?|resolved to) ['\"]?-*(?:(?:fit|validate)\.)?([\w.]+)")
_SECRET = re.compile(
    r"(?:[Oo]ption|arguments?:?|resolved to) ['\"]?-*[\w.]*(?:api_?key|token|secret|password)\b"
)
_PARENT = re.compile(r'Parser key "([\w.]+)"')
_UNRECOGNISED = re.compile(r"^unrecognized arguments: (.*)$", re.MULTILINE)
_GROUP = re.compile(r"Group '([\w.]+)' does not accept option '([\w.]+)'")
_PROTOCOL = re.compile(r"Import path ([\w.]+) does not implement protocol (\w+)")
_MEMBER = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
_CLASS = re.compile(r"Expected a dot import path string: (\w+)")
_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from ([^)]*)\)")
_VALUE = re.compile(r"Expected one of (\[[^\]]*\])\. Got value: ([\w-]+)")
_FILE = re.compile(r"File does not exist: '([^']+)'")
_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.\w+)+")
CLASSES_OF = ("rlaifv_pl.", "lightning.pytorch.", "torch.optim")
"""Modules whose classes are named without them."""


def explain_usage_error(message: str, names: Iterable[str]) -> str:
    """The parser's message without its detours, and our name, or the nearest ones, where one is unknown.

    Args:
        message: of jsonargparse.
        names: options that there are, and commands of more than one word.

    >>> explain_usage_error("Option 'trainer.max_epoch' is not accepted", ["trainer.max_epochs", "data.train"])
    "Option 'trainer.max_epoch' is not accepted\\n  did you mean trainer.max_epochs?"
    >>> explain_usage_error("unrecognized arguments: --learning_rate=1e-6", ["trainer.max_epochs", "data.train"])
    'unrecognized arguments: --learning_rate=1e-6\\n  learning_rate is, here, model.optimizer.lr'
    >>> print(explain_usage_error("Subcommand 'fit' does not accept option 'memory'", []))
    Subcommand 'fit' does not accept option 'memory'
      memory is now cache
    >>> explain_usage_error("module 'difflib' has no attribute 'Difer'", [])
    "module 'difflib' has no attribute 'Difer'\\n  did you mean Differ?"
    >>> print(explain_usage_error("Option 'api_key' is not accepted", ["policy.api_key_env"]))
    Option 'api_key' is not accepted
      no key belongs in a config or an option: set an environment variable, and name it in api_key_env
    """
    faults = list(dict.fromkeys(_import_faults(message)))
    for pattern, words in _WORDS:
        message = pattern.sub(words, message)
    lines = [line for line in message.splitlines() if line.strip() and not _NOISE.match(line.strip())]
    text = "\n".join([*(_clip(line) for line in lines[:MOST_LINES]), *faults])
    if NO_KEY in text:
        return text
    if (refused := _PROTOCOL.search(text)) and (lacks := told_lacking(*refused.groups())):
        return f"{refused[0]}\n  it lacks {'; '.join(lacks)}"
    if _SECRET.search(text):
        return f"{text}\n  {NO_KEY}"
    if "did you mean" in text or " is, here, " in text or " is now " in text:
        return text
    if renamed := _renamed_keys(text):
        return "\n".join([text, *(f"  {old} is now {RENAMED_KEYS[old]}" for old in renamed)])
    # The options of a verb are not those of training, which the names from elsewhere are about.
    if "data.train" in (names := list(names)) and (known := _known_aliases(text)):
        return "\n".join(
            [text, *(f"  {name} is, here, {OPTION_ALIASES[name]}" for name in known[:MOST_ANSWERS])]
        )
    if moved := moved_classes(message):
        return "\n".join([text, *(f"  {line}" for line in moved)])
    near = _nearest_options(text, names) + _nearest_members(text) + _nearest_values(message, names)
    return f"{text}\n  did you mean {' or '.join(dict.fromkeys(near))}?" if near else text


def _clip(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ..."


def _unknown_options(text: str) -> list[str]:
    """Dotted names of the options that the parser does not know, without repetition."""
    names = [name for line in _UNRECOGNISED.findall(text) for name in re.findall(r"(?:^|\s)--([\w.]+)", line)]
    for group, option in _GROUP.findall(
        text
    ):  # Some versions of the message name the option within its group.
        names += [option, f"{group}.{option}"]
    return list(dict.fromkeys(names + _OPTION.findall(text)))


def _known_aliases(text: str) -> list[str]:
    """The unknown options that have a name here, as their authors write them."""
    last = (option.split(".")[-1] for option in _unknown_options(text))
    return [name for name in dict.fromkeys(last) if name in OPTION_ALIASES]


def _renamed_keys(text: str) -> list[str]:
    """Old names, as in `RENAMED_KEYS`, of the unknown options, and of all others beside one of them.

    The parser names one unknown key of a config at a time.
    """
    # The parser of a nested class names its options without the keys that lead to it.
    parents = ["", *(f"{parent}." for parent in _PARENT.findall(text))]
    unknown = [
        f".{parent}{name}.".replace(".init_args.", ".")
        for name in _unknown_options(text)
        for parent in parents
    ]
    found = [old for old in RENAMED_KEYS if any(_names_old_key(old, name) for name in unknown)]
    groups = {old.rpartition(".")[0] for old in found} - {""}
    return [old for old in RENAMED_KEYS if old in found or old.rpartition(".")[0] in groups]


def _names_old_key(old: str, name: str) -> bool:
    """Whether a dotted name, with a dot at both ends, has an old key in it; one without a dot, at an end."""
    key = f".{old}."
    return key in name if "." in old else name.startswith(key) or name.endswith(key)


def _nearest_options(text: str, names: list[str]) -> list[str]:
    grouped = [".".join(found) for found in _GROUP.findall(text)]
    unknown = grouped or [option for option in _OPTION.findall(text) if option not in names]
    return [name for option in unknown for name in difflib.get_close_matches(option, names, n=3, cutoff=0.8)]


def _nearest_members(text: str) -> list[str]:
    near = []
    for module, name in _MEMBER.findall(text):
        near += _nearest(
            name, [key for key, value in vars(sys.modules[module]).items() if isinstance(value, type)]
        )
    for name in _CLASS.findall(text):
        near += _nearest(name, _classes(), cutoff=0.7)
    return near


def _classes() -> list[str]:
    """Names of the classes that a config may name without their module."""
    modules = [module for name, module in sys.modules.items() if name.startswith(CLASSES_OF)]
    return [
        key
        for module in modules
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__.startswith(CLASSES_OF) and not key.startswith("_")
    ]


def _nearest_values(text: str, names: list[str]) -> list[str]:
    """Commands, values and files that are near to those named."""
    near, commands = [], {name.split()[-1]: name for name in names if " " in name}
    for wrong, listed in _CHOICE.findall(text):
        known = commands | {choice: choice for choice in re.findall(r"[\w-]+", listed)}
        near += [known[name] for name in _nearest(wrong, list(known), cutoff=0.6)]
    for listed, wrong in _VALUE.findall(text):
        near += _nearest(wrong, re.findall(r"[\w-]+", listed))
    for path in map(Path, _FILE.findall(text)):
        siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        near += [str(path.with_name(name)) for name in _nearest(path.name, siblings, cutoff=0.7)]
    return near


def _nearest(name: str, known: list[str], cutoff: float = 0.5) -> list[str]:
    by_lower = {each.lower(): each for each in known}
    return [by_lower[key] for key in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=cutoff)]


def _import_faults(text: str) -> Iterator[str]:
    """Why classes of trusted packages cannot be had."""
    for name in _NO_MODULE.findall(text):
        yield (
            f"  {name} is no module in the directories that Python looks in: put PYTHONPATH=DIR before the command, "
            "with the directory that it lies in"
        )
    for name in _DOTTED.findall(text):
        if trust.is_trusted(name):
            yield from _raised_by(name.rpartition(".")[0])


def _raised_by(module: str) -> Iterator[str]:
    try:
        import_module(module)
    except ModuleNotFoundError:
        return  # Told by its name.
    except Exception as error:
        at: Any = traceback.extract_tb(error.__traceback__)[-1]
        yield f"  importing {module} raises {type(error).__name__}: {error} ({at.filename}, line {at.lineno})"


def option_names(parser: Any) -> list[str]:
    """Names of the options of a parser of jsonargparse, and of its subcommands."""
    action = parser._subcommands_action
    inner = action._name_parser_map.values() if action else ()
    own = [each.dest for each in parser._actions if not each.dest.endswith("help")]
    return own + [name for each in inner for name in option_names(each)]
