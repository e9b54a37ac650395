"""Columns that a format does not read: refused where the row means something else without them, else counted."""

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from shlex import quote

from rlaifv_pl.data.bad_samples import Reason
from rlaifv_pl.data.importers.column_names import (
    DIALOGUES,
    HISTORIES,
    MARKS,
    PROMPTS,
    SYSTEMS,
    Cells,
    readable_name,
)
from rlaifv_pl.data.importers.image_columns import is_image_name, read_columns, sure_columns
from rlaifv_pl.data.importers.samples import READ_BY_ALL
from rlaifv_pl.data.importers.sources import bad_row
from rlaifv_pl.data.sample_json import shorten

_CONTEXT = (*PROMPTS, "context", "tools", "functions")
"""Columns of what comes before an answer: without one of them it is the answer to something else."""
_CALLS = ("tool_calls", "function_call")
_PLACEHOLDERS = ("<ref-object>", "<bbox>")
"""Parts of a text that stand for what `objects` holds (ms-swift)."""
_NEEDED = (
    PROMPTS,
    ("chosen", "chosen_response", "completion", "completions", "response", "answer", "output", "target", "refinement"),
    ("rejected", "rejected_response"),
    ("image", "images", "image_path"),
    SYSTEMS, HISTORIES, MARKS,
    *((name,) for name in (*DIALOGUES, "response_1", "response_2", "rejected_images")),
)  # fmt: skip
"""Our columns, those together of which a row needs one."""
_MIN_SIMILARITY = 0.8
"""Ratio of `difflib`: `choosen`, `quesiton` and `imgae` are above it."""


def unread(columns: Cells, read: Collection[str]) -> Iterator[str]:
    """Yield the names of the columns with something in them that are not read, and of such fields of messages.

    >>> list(unread({"messages": [{"role": "user", "content": "Hi", "loss": False}], "margin": 2}, ["messages"]))
    ['messages[].loss', 'margin']
    """
    filled = {name: value for name, value in columns.items() if _is_filled(value)}
    images = read_columns(columns)
    not_read = {*sure_columns(columns)} - images
    if any(name.startswith("rejected") for name in filled):
        not_read |= {*MARKS}  # A pair needs no mark.
    names = {*read, *READ_BY_ALL, *images} - not_read
    for name, value in filled.items():
        if name not in names:
            yield name
        else:
            yield from sorted({f"{name}[].{field}" for field in _message_fields(value)})


def refuse_context(columns: Cells, names: Collection[str]) -> None:
    """Refuse a row that means something else without one of its unread columns.

    Args:
        columns: columns of the row.
        names: those of `unread`.

    Raises:
        BadSample: `unread_column`.
    """
    for name in names:
        is_context = name in _CONTEXT and not _is_repeated(name, columns)
        if is_context or name.partition("[].")[2] in _CALLS:
            value = f", here {shorten(columns[name])}" if name in columns else ""
            raise bad_row(Reason.UNREAD_COLUMN, f"{name} is not read{value}")
    texts = _strings([*columns.values()]) if "objects" in names else ()
    if any(placeholder in text for text in texts for placeholder in _PLACEHOLDERS):
        detail = f"objects is not read, and {' and '.join(_PLACEHOLDERS)} in the texts stand for it"
        raise bad_row(Reason.UNREAD_COLUMN, detail)


def prefers_rejected(columns: Cells) -> bool:
    """Whether a row's own scores or margin say that the rejected answer is the better one.

    >>> prefers_rejected({"score_chosen": 2.5, "score_rejected": 4}), prefers_rejected({"margin": 0.5})
    (True, False)
    """
    margin = _number(columns.get("margin"))
    if margin is not None and margin < 0:
        return True
    for name in columns:
        if "chosen" in name and any(word in name for word in ("score", "rating", "reward")):
            chosen, rejected = (
                _number(columns[name]),
                _number(columns.get(name.replace("chosen", "rejected"))),
            )
            if chosen is not None and rejected is not None and chosen < rejected:
                return True
    return False


@cache
def find_misspelled(names: frozenset[str], held: frozenset[str]) -> Mapping[str, str]:
    """Return our name for each column that is not read and looks like one of ours which the row needs.

    Args:
        names: names of columns that are not read.
        held: names of all columns of the row.

    >>> columns = frozenset({"choosen", "prompt_id", "Rejected"})
    >>> find_misspelled(columns, columns)
    {'Rejected': 'rejected', 'choosen': 'chosen'}
    """
    misspelled: dict[str, str] = {}
    missing = [ours for group in _NEEDED if not held & {*group} for ours in group]
    for name in sorted(name for name in names if not is_image_name(name)):
        plain = name.strip().lower().replace("-", "_").replace(" ", "_")
        candidates = [
            ours for ours in missing if _words(ours) == _words(plain) and ours not in misspelled.values()
        ]
        if close := get_close_matches(plain, candidates, n=1, cutoff=_MIN_SIMILARITY):
            misspelled[name] = close[0]
    return misspelled


def keys_option(renamed: Mapping[str, str], keys: Mapping[str, str]) -> str:
    """Return the option that reads columns by other names, for a shell.

    Args:
        renamed: our name by that of the source.
        keys: the renaming that was asked for already, the source's name by ours.
    """
    pairs = {**keys, **{ours: theirs for theirs, ours in renamed.items()}}
    return f"--keys {quote(','.join(f'{ours}={theirs}' for ours, theirs in pairs.items()))}"


def _words(name: str) -> int:
    """Count the words: `prompt_id` is no way to write `prompt`. A digit at the end is one, too."""
    return len(name.split("_")) + name[-1:].isdigit()


def _is_filled(value: object) -> bool:
    return value is not None and value != "" and value != [] and value != {}


def _message_fields(value: object) -> Iterator[str]:
    """Yield the fields of messages beside role and content."""
    for message in value if isinstance(value, list) else []:
        if isinstance(message, Mapping) and message.keys() & {"role", "from"}:
            known = ("role", "from", "content", "value")
            fields = (name for name, field in message.items() if name not in known and _is_filled(field))
            yield from map(readable_name, fields)


def _is_repeated(name: str, columns: Cells) -> bool:
    """Whether another column says the same: UltraChat's `prompt` is its first message."""
    value = columns.get(name)
    others = [other for key, other in columns.items() if key != name]
    return isinstance(value, str) and any(value.strip() == text.strip() for text in _strings(others))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item)


def _number(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except ValueError:
        return None
