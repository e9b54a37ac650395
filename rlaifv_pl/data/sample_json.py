"""The JSON of a sample, field by field: plain values out, checked types in."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.strict_json import parse_json
from rlaifv_pl.records import Correction, Sample

ROLES = ("system", "user", "assistant")
SIDES = ("chosen", "rejected", "completion")


def encode_fields(sample: Sample, where: str) -> bytes:
    """Write all of a sample but its key and images as JSON, empty fields left out.

    The same sample always gives the same bytes: fields come in one order, then `extra`.

    Raises:
        BadSample: `wrong_type` if a value has no JSON, or a key of `extra` is a field's name.
    """
    if shadowed := sorted(_PARSERS.keys() & sample.extra.keys()):
        raise BadSample(Reason.WRONG_TYPE, where, f"extra holds {shadowed}, which are fields of a sample")
    document = {name: getattr(sample, name) for name in _PARSERS}
    document["corrections"] = [asdict(correction) for correction in sample.corrections]
    document = {name: value for name, value in document.items() if value not in (None, (), [], {})}
    try:
        text = json.dumps(document | dict(sample.extra), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadSample(Reason.WRONG_TYPE, where, f"the sample cannot be written as JSON: {error}") from error


def decode_fields(data: bytes, where: str) -> dict[str, Any]:
    """Read what `encode_fields` wrote, as keyword arguments of `Sample`; `null` means absent.

    Raises:
        BadSample: `invalid_json` if it is no JSON object; `wrong_type`, naming the field.
    """
    document = _parse_object(data, where)
    parsed = {}
    for name, parse in _PARSERS.items():
        value = document.pop(name, None)
        if value is None:
            continue
        try:
            parsed[name] = parse(value)
        except TypeError as error:
            raise BadSample(Reason.WRONG_TYPE, where, f"{name}: {error}") from None
    if "prompt" not in parsed:
        detail = f"the JSON has no prompt, only {shorten(sorted(document), length=200)}"
        raise BadSample(Reason.MISSING_FIELD, where, detail)
    return parsed | {"extra": document}


def shorten(value: object, length: int = 60) -> str:
    """Quote a value in an error message without flooding it.

    >>> shorten("x" * 100, length=8)
    "'xxxx..."
    """
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."


def _parse_object(data: bytes, where: str) -> dict[str, Any]:
    try:
        document = parse_json(data)
    except ValueError as error:
        raise BadSample(Reason.INVALID_JSON, where, f"cannot parse the JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadSample(Reason.INVALID_JSON, where, f"expected a JSON object, got {shorten(document)}")
    return document


def _expect(value: Any, types: type | tuple[type, ...], expected: str) -> Any:
    """Return `value` if it is of one of the types; bool is no number here, as JSON has it."""
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        raise TypeError(f"expected {expected}, got {shorten(value)}")
    return value


def _text(value: Any) -> str:
    return _expect(value, str, "a string")


def _mapping(value: Any) -> dict[str, Any]:
    return _expect(value, dict, "an object")


def _exactly(value: Any, required: set[str], optional: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Check the keys of an object whose unknown keys would otherwise be lost."""
    keys = _mapping(value).keys()
    if not required <= keys or not keys <= required | optional:
        raise TypeError(f"expected an object with {sorted(required)}, got {shorten(value)}")
    return value


def _prompt(value: Any) -> str | list[dict[str, Any]]:
    if isinstance(value, str):
        return value
    return [_message(turn) for turn in _expect(value, list, "a string or a list of messages")]


def _message(value: Any) -> dict[str, Any]:
    message = _exactly(value, {"role", "content"})
    if message["role"] not in ROLES:
        raise TypeError(f"expected a role of {ROLES}, got {shorten(message['role'])}")
    if not isinstance(message["content"], str):
        for block in _expect(message["content"], list, "a string or a list of blocks as content"):
            _block(block)
    return message


def _block(value: Any) -> None:
    if value == {"type": "image"}:
        return
    block = _exactly(value, {"type", "text"})
    if block["type"] != "text":
        raise TypeError(
            f'expected {{"type": "image"}} or {{"type": "text", "text": ...}}, got {shorten(block)}'
        )
    _text(block["text"])


def _corrections(value: Any) -> tuple[Correction, ...]:
    return tuple(_correction(turn) for turn in _expect(value, list, "a list"))


def _correction(value: Any) -> Correction:
    turn = _exactly(value, {"question", "answer"}, frozenset({"codes"}))
    codes = tuple(_text(code) for code in _expect(turn.get("codes", []), list, "a list of codes"))
    return Correction(question=_text(turn["question"]), answer=_text(turn["answer"]), codes=codes)


def _truncated(value: Any) -> tuple[str, ...]:
    sides = _expect(value, list, "a list of sides")
    if wrong := [side for side in sides if side not in SIDES]:
        raise TypeError(f"expected sides of {SIDES}, got {shorten(wrong[0])}")
    return tuple(sides)


def _evidence(value: Any) -> dict[str, Any]:
    for side, findings in _mapping(value).items():
        if side not in SIDES:
            raise TypeError(f"expected a side of {SIDES}, got {shorten(side)}")
        _mapping(findings)
    return value


def _spans(value: Any) -> tuple[dict[str, Any], ...]:
    return tuple(_span(span) for span in _expect(value, list, "a list"))


def _span(value: Any) -> dict[str, Any]:
    span = _exactly(value, {"side", "start", "end", "weight"})
    if span["side"] not in SIDES:
        raise TypeError(f"expected a side of {SIDES}, got {shorten(span['side'])}")
    for bound in ("start", "end"):
        _expect(span[bound], int, f"a whole number as {bound}")
    _expect(span["weight"], (int, float), "a number as weight")
    return span


_PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "prompt": _prompt,
    "chosen": _text,
    "rejected": _text,
    "completion": _text,
    "truncated": _truncated,
    "corrections": _corrections,
    "evidence": _evidence,
    "spans": _spans,
    "provenance": _mapping,
}
"""The fields in the order in which they are written."""
