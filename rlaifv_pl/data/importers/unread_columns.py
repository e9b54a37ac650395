"""What a format leaves unread of a row: refused where that changes what the row says, else counted by name."""

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from shlex import quote
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.column_names import DIALOGUES, HISTORIES, MARKS, PROMPTS, SYSTEMS
from rlaifv_pl.data.importers.image_columns import is_picture_name, read_columns, sure_columns
from rlaifv_pl.data.importers.samples import READ_BY_ALL
from rlaifv_pl.data.sample_json import shorten

_TELLING = (*PROMPTS, "context", "tools", "functions")
"""Columns of what comes before an answer: one that is not read makes it the answer to something else."""
_CALLS = ("tool_calls", "function_call")
_PLACES = ("<ref-object>", "<bbox>")
"""Stand in a text for what `objects` holds (ms-swift)."""
_WANTED = (
    PROMPTS,
    ("chosen", "chosen_response", "completion", "completions", "response", "answer", "output", "target", "refinement"),
    ("rejected", "rejected_response"),
    ("image", "images", "image_path"),
    SYSTEMS, HISTORIES, MARKS,
    *((name,) for name in (*DIALOGUES, "response_1", "response_2", "rejected_images")),
)  # fmt: skip
"""Columns of ours, those together of which a row wants one."""
_LIKENESS = 0.8
"""Of `difflib`: `choosen`, `quesiton` and `imgae` are above it."""


def unread(columns: Mapping[str, Any], reads: Collection[str]) -> Iterator[str]:
    """Names of the columns with something in them that are not read, and of such fields of messages.

    >>> list(unread({"messages": [{"role": "user", "content": "Hi", "loss": False}], "margin": 2}, ["messages"]))
    ['messages[].loss', 'margin']
    """
    is_pair = any(name.startswith("rejected") and _is_filled(value) for name, value in columns.items())
    shown = read_columns(columns)
    left = {*sure_columns(columns)} - shown
    if is_pair:
        left |= {*MARKS}
    read = {*reads, *READ_BY_ALL, *shown} - left
    for name, value in columns.items():
        if not _is_filled(value):
            continue
        if name not in read:
            yield name
        else:
            yield from sorted({f"{name}[].{field}" for field in _message_fields(value)})


def refuse_meaning(columns: Mapping[str, Any], names: Collection[str], where: str) -> None:
    """Raise for a row that says something else without one of its unread columns.

    Args:
        columns: of the row.
        names: of `unread`.
        where: file and row, named in errors.

    Raises:
        BadSample: `unread_column`.
    """
    for name in names:
        is_telling = name in _TELLING and not _is_repeated(name, columns)
        if is_telling or name.partition("[].")[2] in _CALLS:
            held = f", here {shorten(columns[name])}" if name in columns else ""
            raise BadSample(Reason.UNREAD_COLUMN, where, f"{name} is not read{held}")
    if "objects" in names and any(
        place in text for place in _PLACES for text in _strings([*columns.values()])
    ):
        detail = f"objects is not read, and {' and '.join(_PLACES)} in the texts stand for it"
        raise BadSample(Reason.UNREAD_COLUMN, where, detail)


def says_otherwise(columns: Mapping[str, Any]) -> bool:
    """Whether a row's own scores or margin say that the rejected answer is the better one.

    >>> says_otherwise({"score_chosen": 2.5, "score_rejected": 4}), says_otherwise({"margin": 0.5})
    (True, False)
    """
    margin = _number(columns.get("margin"))
    if margin is not None and margin < 0:
        return True
    for name in columns:
        if "chosen" in name and any(word in name for word in ("score", "rating", "reward")):
            sides = _number(columns[name]), _number(columns.get(name.replace("chosen", "rejected")))
            if sides[0] is not None and sides[1] is not None and sides[0] < sides[1]:
                return True
    return False


@cache
def misspelt(names: frozenset[str], held: frozenset[str]) -> Mapping[str, str]:
    """Of columns that are not read, those that look like one of ours which the row wants: ours by theirs.

    >>> misspelt(frozenset({"choosen", "prompt_id", "Rejected"}), frozenset({"choosen", "prompt_id", "Rejected"}))
    {'Rejected': 'rejected', 'choosen': 'chosen'}
    """
    found: dict[str, str] = {}
    missing = [ours for some in _WANTED if not held & {*some} for ours in some]
    for name in sorted(name for name in names if not is_picture_name(name)):
        plain = _plain(name)
        wanted = [ours for ours in missing if _words(ours) == _words(plain) and ours not in found.values()]
        if near := get_close_matches(plain, wanted, n=1, cutoff=_LIKENESS):
            found[name] = near[0]
    return found


def keys_option(renamed: Mapping[str, str], keys: Mapping[str, str]) -> str:
    """The option that reads columns by other names, for a shell.

    Args:
        renamed: our name by that of the source.
        keys: the renaming that was asked for already, the source's name by ours.
    """
    pairs = {**keys, **{ours: theirs for theirs, ours in renamed.items()}}
    return f"--keys {quote(','.join(f'{ours}={theirs}' for ours, theirs in pairs.items()))}"


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _words(name: str) -> int:
    """Number of words: `prompt_id` is no way to write `prompt`. A digit at the end is one, too."""
    return len(name.split("_")) + name[-1:].isdigit()


def _is_filled(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {}


def _message_fields(value: Any) -> Iterator[str]:
    """Fields of messages beside role and content."""
    for message in value if isinstance(value, list) else []:
        if isinstance(message, Mapping) and message.keys() & {"role", "from"}:
            known = ("role", "from", "content", "value")
            yield from (name for name, field in message.items() if name not in known and _is_filled(field))


def _is_repeated(name: str, columns: Mapping[str, Any]) -> bool:
    """Whether another column says the same: UltraChat's `prompt` is its first message."""
    value = columns.get(name)
    others = [other for key, other in columns.items() if key != name]
    return isinstance(value, str) and any(value.strip() == text.strip() for text in _strings(others))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item)


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except ValueError:
        return None
