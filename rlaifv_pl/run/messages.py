"""Short answers to mistakes on the command line."""

import difflib
import re
import sys
from collections.abc import Iterable

from rlaifv_pl.run.elsewhere import ELSEWHERE
from rlaifv_pl.run.protocols import told_lacking

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
_UNRECOGNISED = re.compile(r"^unrecognized arguments: (.*)$", re.MULTILINE)
_GROUP = re.compile(r"Group '([\w.]+)' does not accept option '([\w.]+)'")
_PROTOCOL = re.compile(r"Import path ([\w.]+) does not implement protocol (\w+)")
_MEMBER = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")


def explain(message: str, names: Iterable[str]) -> str:
    """The parser's message without its detours, and our name, or the nearest ones, where one is unknown.

    Args:
        message: of jsonargparse.
        names: options that there are.

    >>> explain("Option 'trainer.max_epoch' is not accepted", ["trainer.max_epochs", "data.train"])
    "Option 'trainer.max_epoch' is not accepted\\n  did you mean trainer.max_epochs?"
    >>> explain("unrecognized arguments: --learning_rate=1e-6", ["trainer.max_epochs", "data.train"])
    'unrecognized arguments: --learning_rate=1e-6\\n  learning_rate is, here, model.optimizer.lr'
    >>> explain("module 'difflib' has no attribute 'Difer'", [])
    "module 'difflib' has no attribute 'Difer'\\n  did you mean Differ?"
    >>> print(explain("Option 'api_key' is not accepted", ["policy.api_key_env"]))
    Option 'api_key' is not accepted
      no key belongs in a config or an option: set an environment variable, and name it in api_key_env
    """
    for pattern, words in _WORDS:
        message = pattern.sub(words, message)
    lines = [line for line in message.splitlines() if line.strip() and not _NOISE.match(line.strip())]
    text = "\n".join(_clip(line) for line in lines[:MOST_LINES])
    if NO_KEY in text:
        return text
    if (refused := _PROTOCOL.search(text)) and (lacks := told_lacking(*refused.groups())):
        return f"{refused[0]}\n  it lacks {'; '.join(lacks)}"
    if _SECRET.search(text):
        return f"{text}\n  {NO_KEY}"
    if "did you mean" in text or " is, here, " in text:
        return text
    # The options of a verb are not those of training, which the names from elsewhere are about.
    if "data.train" in (names := list(names)) and (known := _known_elsewhere(text)):
        return "\n".join([text, *(f"  {name} is, here, {ELSEWHERE[name]}" for name in known[:MOST_ANSWERS])])
    near = _nearest_options(text, names) + _nearest_members(text)
    return f"{text}\n  did you mean {' or '.join(dict.fromkeys(near))}?" if near else text


def _clip(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ..."


def _known_elsewhere(text: str) -> list[str]:
    """The unknown options that have a name here, as their authors write them."""
    told = [name for line in _UNRECOGNISED.findall(text) for name in re.findall(r"(?:^|\s)--([\w.]+)", line)]
    told += [option for _, option in _GROUP.findall(text)] + _OPTION.findall(text)
    return [name for name in dict.fromkeys(option.split(".")[-1] for option in told) if name in ELSEWHERE]


def _nearest_options(text: str, names: list[str]) -> list[str]:
    grouped = [".".join(found) for found in _GROUP.findall(text)]
    unknown = grouped or [option for option in _OPTION.findall(text) if option not in names]
    return [name for option in unknown for name in difflib.get_close_matches(option, names, n=3, cutoff=0.8)]


def _nearest_members(text: str) -> list[str]:
    near = []
    for module, name in _MEMBER.findall(text):
        members = vars(sys.modules[module]).items()
        classes = {key.lower(): key for key, value in members if isinstance(value, type)}
        near += [classes[key] for key in difflib.get_close_matches(name.lower(), classes, n=3, cutoff=0.5)]
    return near
