"""Bad rows of an import, and bad images beside them."""

import base64
import json
import os
import random
from collections.abc import Callable
from typing import Any

from tests.data.rows import odd_value
from tests.fuzz.base import COUNT, Case, photo, word
from tests.fuzz.pictures import MADE as PICTURES

Row = dict[str, Any]


def _texts(number: int) -> tuple[str, str, str]:
    return tuple(f"It is {word(number, part)}." for part in ("prompt", "chosen", "rejected"))


def trl_row(number: int, image: Any) -> Row:
    """As TRL has them."""
    prompt, chosen, rejected = _texts(number)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "images": [image]}


def rlaifv_row(number: int, image: Any) -> Row:
    """As RLAIF-V has them."""
    prompt, chosen, rejected = _texts(number)
    return {"question": prompt, "chosen": chosen, "rejected": rejected, "image": image, "idx": number}


def llava_row(number: int, image: Any) -> Row:
    """As LLaVA has them."""
    prompt, chosen, _ = _texts(number)
    turns = [{"from": "human", "value": f"<image>\n{prompt}"}, {"from": "gpt", "value": chosen}]
    return {"id": str(number), "image": image, "conversations": turns}


FAMILIES = {"trl": trl_row, "rlaifv": rlaifv_row, "llava": llava_row}


def rows(case: Case, family: str, embedded: bool = False) -> list[Row]:
    """Sound rows; their images lie in `photos`, or in the rows."""
    photos = case.here / "sources" / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(COUNT):
        data, name = photo(number, "first", "PNG"), f"{word(number, 'file')}.png"
        (photos / name).write_bytes(data)
        image = {"bytes": data, "path": name} if embedded else f"photos/{name}"
        made.append(FAMILIES[family](number, image))
    return made


def _image(row: Row, value: Any) -> None:
    row.update({"images" if "images" in row else "image": value})


OUTSIDE = (
    "../canary/secret.png",
    "photos/../../canary/secret.png",
    "../../case/canary/secret.png",
    "../sources.png",
)


def _deep(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def _beside(case: Case, make: Callable[[Any], object]) -> str:
    path = case.here / "sources" / "photos" / "odd.png"
    make(path)
    return "photos/odd.png"


IMAGES: dict[str, Callable[[Case], Any]] = {
    "outside": lambda case: case.rng.choice(OUTSIDE),
    "outside in full": lambda case: str(case.here / "canary" / "secret.png"),
    "missing": lambda case: "photos/gone.png",
    "directory": lambda case: "photos",
    "of no name": lambda case: "",
    "NUL": lambda case: "photos/\0.png",
    "long name": lambda case: "x" * 5000,
    "half a pair": lambda case: "photos/\udcff.png",
    "URL": lambda case: "https://example.org/1.png",
    "file URL": lambda case: f"file://{case.here}/canary/secret.png",
    "pipe": lambda case: _beside(case, os.mkfifo),
    "device": lambda case: "/dev/zero",
    "circle": lambda case: _beside(case, lambda path: path.symlink_to(path.name)),
    "link to a device": lambda case: _beside(case, lambda path: path.symlink_to("/dev/zero")),
    "hole of gigabytes": lambda case: _beside(case, lambda path: (path.touch(), os.truncate(path, 2**33))),
    "broken file": lambda case: _beside(case, lambda path: path.write_bytes(PICTURES["damaged"](case.rng))),
    "any file": lambda case: _beside(
        case, lambda path: path.write_bytes(PICTURES[case.rng.choice(sorted(PICTURES))](case.rng))
    ),
    "any file in base64": lambda case: base64.b64encode(
        PICTURES[case.rng.choice(sorted(PICTURES))](case.rng)
    ).decode(),
    "broken base64": lambda case: "iVBORw0KGgo" + "=" * 7,
    "data URI of nothing": lambda case: "data:",
    "bytes of text": lambda case: {"bytes": "photos/gone.png"},
    "path of a list": lambda case: {"path": ["photos/gone.png"]},
    "deep lists": lambda case: _deep(case.rng.choice([50, 200, 300, 450, 490])),
    "many": lambda case: [_beside(case, lambda path: path.write_bytes(photo(98, "many", "PNG")))] * 500,
    "number": lambda case: 7,
    "odd": lambda case: _plain(odd_value(case.rng)),
}


def _plain(value: object) -> Any:
    return json.loads(json.dumps(value, default=lambda data: data.decode(errors="replace")))


def pictured(case: Case) -> None:
    """A row names an image that is not there, or not to be read."""
    made = rows(case, case.rng.choice(sorted(FAMILIES)))
    name = case.pick(IMAGES)
    case.note(f"image: {name}")
    _image(case.rng.choice(made), IMAGES[name](case))
    _write_lines(case, made)


def _write_lines(case: Case, made: list[Any]) -> None:
    path = case.here / "sources" / case.rng.choice(["rows.json", "rows.jsonl"])
    text = json.dumps(made) if case.rng.random() < 0.3 else "\n".join(map(json.dumps, made))
    path.write_text(text)


def celled(case: Case) -> None:
    """Cells hold values that no format foresees."""
    made = rows(case, case.rng.choice(sorted(FAMILIES)))
    for row in case.rng.sample(made, case.rng.choice([1, 3, COUNT])):
        for name in case.rng.sample(sorted(row), case.rng.randrange(1, len(row) + 1)):
            row[name] = _plain(odd_value(case.rng))
    case.note("odd cells")
    _write_lines(case, made)


LINES: dict[str, Callable[[random.Random], bytes]] = {
    "deep": lambda rng: b"[" * 10**5,
    "deep within limits": lambda rng: b"[" * (depth := rng.choice([900, 960, 985])) + b"]" * depth,
    "deep cell": lambda rng: (
        b'{"prompt": "a", "chosen": "b", "rejected": "c", "idx": '
        + b"[" * (depth := rng.choice([300, 900, 960]))
        + b"]" * depth
        + b"}"
    ),
    "deep texts": lambda rng: b'{"prompt": "a", "chosen": ' + b"[" * 950 + b"]" * 950 + b', "rejected": "c"}',
    "too many digits": lambda rng: b'{"idx": ' + b"9" * 5000 + b"}",
    "NaN": lambda rng: b'{"prompt": "a", "chosen": "b", "rejected": "c", "idx": NaN}',
    "beyond floats": lambda rng: b'{"prompt": "a", "chosen": "b", "rejected": "c", "idx": 1e999}',
    "half a pair": lambda rng: b'{"prompt": "a", "chosen": "b\\ud800", "rejected": "c"}',
    "half a pair as a name": lambda rng: b'{"prompt": 7, "\\ud800": 1}',
    "not UTF-8": lambda rng: b'{"prompt": "\xff"}',
    "noise": lambda rng: rng.randbytes(100).replace(b"\n", b""),
    "null": lambda rng: b"null",
    "long": lambda rng: b'{"prompt": "' + b"x" * 2**22 + b'"}',
    "many columns": lambda rng: json.dumps({f"{'x' * 50}{n}": n for n in range(20_000)}).encode(),
    "a field twice": lambda rng: (
        json.dumps({"prompt": word(0, "prompt"), "chosen": word(0, "chosen")}).encode()[:-1]
        + f', "rejected": "no", "chosen": "{word(1, "chosen")}"'.encode()
        + b"}"
    ),
    "RLHF-V of broken JSON": lambda rng: b'{"ds_name": "x", "text": "{\\"question\\": "}',
    "RLHF-V of deep JSON": lambda rng: b'{"ds_name": "x", "text": "' + b"[" * 9999 + b'"}',
    "RLHF-V of many digits": lambda rng: b'{"ds_name": "x", "text": "' + b"9" * 5000 + b'"}',
}


def lined(case: Case) -> None:
    """One line among sound ones is none, or the first, or all are in one array with it."""
    made = [json.dumps(row).encode() for row in rows(case, case.rng.choice(sorted(FAMILIES)))]
    name = case.pick(LINES)
    made.insert(case.rng.choice([0, 3, len(made)]), LINES[name](case.rng))
    path = case.here / "sources" / case.rng.choice(["rows.json", "rows.jsonl"])
    array = case.rng.random() < 0.3
    path.write_bytes(b"[" + b",\n".join(made) + b"]" if array else b"\n".join(made))
    case.note(f"{name} in {path.name}{', an array' if array else ''}")


KINDS = {"import image": pictured, "import cells": celled, "import line": lined}
