"""JSON that nobody vouches for: what could be read in two ways, or not be written again, is refused."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

MAX_DEPTH = 64
"""Objects and lists inside one another: far above any sample's, far below what stops Python."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(data: bytes) -> Any:
    """Parse UTF-8 as JSON.

    Raises:
        ValueError: it is not UTF-8 or not JSON, NaN and Infinity included; a number is beyond floats, a field stands
            twice in an object, half a surrogate pair stands for a character, or it is nested more than `MAX_DEPTH`
            deep.
    """
    text = data.decode("utf-8-sig")
    try:
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=unique_fields
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth(value)
    if _SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def unique_fields(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its fields, as `object_pairs_hook` of `json`.

    Raises:
        ValueError: a field stands there twice, and who reads the last one does not see the first.
    """
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice[:60]!r} stands there twice")
    return document


_TOO_DEEP = f"it is nested more than {MAX_DEPTH} deep"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:60]} is beyond floats")
    return value


def _check_depth(value: Any) -> None:
    level = _containers([value])
    for _ in range(MAX_DEPTH):
        level = _containers(
            inner for item in level for inner in (item.values() if isinstance(item, dict) else item)
        )
    if level:
        raise ValueError(_TOO_DEEP)


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]
