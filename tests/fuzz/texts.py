"""JSON that is none, or not that of a sample, or absurd."""

import json
import random
from collections.abc import Callable

from tests.data.rows import odd_value
from tests.fuzz.base import Case, Member, rewrite, sample

ANSWERS = ("chosen", "rejected", "completion")
FIELDS = ("prompt", *ANSWERS, "corrections", "evidence", "spans", "provenance", "topic")

Document = dict[str, object]


def _put(name: str, text: str) -> Callable[[Document, random.Random], bytes]:
    """A field whose value is written just so."""
    return lambda document, rng: _behind(document, f'"{name}": {text}')


def _behind(document: Document, more: str) -> bytes:
    return (json.dumps(document)[:-1] + f", {more}" + "}").encode()


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def _dumped(**changes: object) -> Callable[[Document, random.Random], bytes]:
    return lambda document, rng: json.dumps(document | changes).encode()


def _turns(count: int) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": f"turn {n}"} for n in range(count)]


def _cut(document: Document, rng: random.Random) -> bytes:
    data = json.dumps(document).encode()
    return data[: rng.randrange(len(data))]


def _flipped(document: Document, rng: random.Random) -> bytes:
    data = bytearray(json.dumps(document).encode())
    for _ in range(rng.choice([1, 2, 9])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _odd(document: Document, rng: random.Random) -> bytes:
    def plain(value: object) -> str:
        return value.decode(errors="replace")

    changed = document | {name: odd_value(rng) for name in rng.sample(FIELDS, rng.choice([1, 2, 5]))}
    return json.dumps(changed, default=plain).encode()


def _twice(document: Document, rng: random.Random) -> bytes:
    other = sample(rng.randrange(9))
    name = rng.choice(["prompt", "chosen", "rejected"])
    return _behind(document, f'"{name}": {json.dumps(getattr(other, name))}')


SPAN = '[{{"side": "chosen", "start": {}, "end": {}, "weight": {}}}]'

MADE: dict[str, Callable[[Document, random.Random], bytes]] = {
    "cut": _cut,
    "flipped": _flipped,
    "odd values": _odd,
    "a field of another sample behind its own": _twice,
    "empty": lambda document, rng: b"",
    "a list": lambda document, rng: json.dumps([document]).encode(),
    "null": lambda document, rng: b"null",
    "a number": lambda document, rng: b"1" * 5000,
    "two documents": lambda document, rng: json.dumps(document).encode() * 2,
    "a comment": lambda document, rng: json.dumps(document).encode() + b" // sound",
    "UTF-16": lambda document, rng: json.dumps(document).encode("utf-16"),
    "UTF-32": lambda document, rng: json.dumps(document).encode("utf-32"),
    "Latin-1": lambda document, rng: json.dumps(document | {"chosen": "\xe9"}, ensure_ascii=False).encode(
        "latin-1"
    ),
    "a byte order mark": lambda document, rng: b"\xef\xbb\xbf" + json.dumps(document).encode(),
    "surrogates in UTF-8": lambda document, rng: json.dumps(
        document | {"chosen": "\ud800"}, ensure_ascii=False
    ).encode("utf-8", "surrogatepass"),
    "half a pair": lambda document, rng: json.dumps(
        document | {rng.choice(ANSWERS): "It is \ud83d."}
    ).encode(),
    "half a pair as a name": _put("\\udead", "1"),
    "half a pair in the prompt": _dumped(prompt="What\udc00?"),
    "NUL": lambda document, rng: json.dumps(document | {rng.choice(ANSWERS): "It\0 is."}).encode(),
    "controls": _dumped(chosen="\x1b[2J\x07\u202e\u2028 It is."),
    "raw control": _put("completion", '"a\nb"'),
    "NaN": _put("topic", "NaN"),
    "Infinity": _put("spans", SPAN.format(0, 2, "-Infinity")),
    "a number beyond floats": _put("topic", "1e999"),
    "a weight beyond floats": _put("spans", SPAN.format(0, 2, "1e999")),
    "a whole weight beyond floats": _put("spans", SPAN.format(0, 2, "9" * 400)),
    "a number of many digits": _put("topic", "9" * 4000),
    "a number of too many digits": _put("topic", "9" * 5000),
    "bounds of many digits": _put("spans", SPAN.format("-" + "9" * 4000, "9" * 4000, 1)),
    "deep": lambda document, rng: _behind(
        document, f'"topic": {_nested(rng.choice([50, 300, 900, 985, 10**5]))}'
    ),
    "deep prompt": lambda document, rng: _behind(
        {}, f'"prompt": {_nested(rng.choice([900, 950, 985]))}'
    ).replace(b"{, ", b"{"),
    "deep evidence": lambda document, rng: (
        json.dumps(document).encode()[:-1]
        + b', "evidence": {"chosen": {"claims": '
        + _nested(rng.choice([300, 900, 960])).encode()
        + b"}}}"
    ),
    "no prompt": lambda document, rng: json.dumps(
        {k: v for k, v in document.items() if k != "prompt"}
    ).encode(),
    "no prompt, but much else": lambda document, rng: json.dumps({"x" * 10**6: 1}).encode(),
    "no rejected": lambda document, rng: json.dumps(
        {k: v for k, v in document.items() if k != "rejected"}
    ).encode(),
    "equal answers": lambda document, rng: json.dumps(document | {"rejected": document["chosen"]}).encode(),
    "blank answers": lambda document, rng: json.dumps(document | {rng.choice(ANSWERS): " \n\u3000"}).encode(),
    "answers of nothing visible": _dumped(chosen="\u200b", rejected="\ufeff"),
    "blank prompt": _dumped(prompt="\t"),
    "no turns": _dumped(prompt=[]),
    "turns of the assistant alone": _dumped(prompt=[{"role": "assistant", "content": "Hello."}]),
    "turns in a wrong order": _dumped(
        prompt=[*_turns(2), *_turns(1), *_turns(1), {"role": "system", "content": "x"}]
    ),
    "system in the middle": _dumped(prompt=[*_turns(2), {"role": "system", "content": "x"}, *_turns(1)]),
    "many turns": _dumped(prompt=_turns(301)),
    "more image blocks than images": _dumped(prompt=[{"role": "user", "content": [{"type": "image"}] * 5}]),
    "a million image blocks": _dumped(prompt=[{"role": "user", "content": [{"type": "image"}] * 10**5}]),
    "image marks in a text": lambda document, rng: json.dumps(
        document | {rng.choice(["prompt", "chosen", "rejected"]): "An <image> here."}
    ).encode(),
    "special tokens in a text": _dumped(prompt="Hi</s><s> USER: <pad>?", chosen="</s>", rejected="<s>"),
    "template in a text": _dumped(prompt="{{ 7 * 7 }} {% for x in y %}", chosen="{{ messages }}"),
    "the sentinel of templates": _dumped(chosen="qzanswerzq", prompt="qzanswerzq?"),
    "a long prompt": lambda document, rng: json.dumps(
        document | {"prompt": "cat " * rng.choice([500, 50_000])}
    ).encode(),
    "a long answer": lambda document, rng: json.dumps(
        document | {rng.choice(ANSWERS): "cat " * 50_000}
    ).encode(),
    "an answer of one long word": lambda document, rng: json.dumps(
        document | {"chosen": "x" * 2**18}
    ).encode(),
    "blanks without end": _dumped(prompt="a" + " " * 2**18 + "b"),
    "many unknown fields": _dumped(**{f"topic{n}": n for n in range(20_000)}),
    "a field of a sample's own": _dumped(key="s0", images=["../canary/secret.png"], __class__="os.system"),
    "spans that leave the text": _put("spans", SPAN.format(-1, 10**6, 1)),
    "evidence of no claims": _put("evidence", '{"chosen": {"claims": 7}, "rejected": {"score": "high"}}'),
    "corrections of nothing": _put("corrections", '[{"question": "", "answer": ""}]'),
    "many corrections": _dumped(
        corrections=[{"question": f"Is it {n}?", "answer": "No."} for n in range(2000)]
    ),
}


def written(case: Case) -> None:
    """The JSON of one sample is another."""
    name = case.pick(MADE)

    def change(found: list[Member]) -> list[Member]:
        one = case.rng.choice(
            [member for member in found if str(member.name).endswith(".json")] or [found[0]]
        )
        try:
            document = json.loads(one.data)
        except ValueError:
            return found
        if not isinstance(document, dict) or "chosen" not in document:
            return found
        data = MADE[name](document, case.rng)
        case.touched.add(one.key)
        case.note(f"{one.name} is {name}: {data[:150]!r}")
        return [Member(one.name, data) if member is one else member for member in found]

    rewrite(case, change)


KINDS = {"text": written, "text again": written}
