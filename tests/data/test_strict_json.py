"""JSON that two readers could take for two things is refused."""

import json

import pytest

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.schema import decode_sample
from rlaifv_pl.data.strict_json import MAX_DEPTH, parse_json


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1e999}', "the number 1e999 is beyond floats"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": {"b": 1, "b": 1}}', "the field 'b' stands there twice"),
        (b'{"a": "\\ud83d"}', "surrogates not allowed"),
        (b'{"\\uDE00": 1}', "surrogates not allowed"),
        (b'{"a": "\xed\xa0\x80"}', "can't decode byte 0xed"),
        ('{"a": 1}'.encode("utf-16"), "can't decode byte 0xff"),
        (nested(MAX_DEPTH + 1), "nested more than 64 deep"),
        (nested(950), "nested more than 64 deep"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "nested more than 64 deep"),
        (b"[" * 10**5, "nested more than 64 deep"),
        (b"9" * 5000, "integer string conversion"),
    ],
)
def test_what_could_be_misread_is_refused(data: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        parse_json(data)


@pytest.mark.parametrize(
    "data",
    [b'{"a": "\\ud83d\\ude00 \\\\ud800", "b": 1.5, "c": [null]}', b"\xef\xbb\xbf{}", nested(MAX_DEPTH)],
)
def test_what_is_sound_is_parsed(data: bytes):
    assert parse_json(data) == json.loads(data)


def test_a_sample_with_a_field_twice_is_bad():
    """Who reads the last one does not see the first, and the pair is another."""
    with pytest.raises(BadSample, match="'chosen' stands there twice") as raised:
        decode_sample(
            "a", {"json": b'{"prompt": "Hi?", "chosen": "a", "rejected": "b", "chosen": "c"}'}, "here"
        )
    assert raised.value.reason is Reason.INVALID_JSON


def test_a_message_about_much_is_short():
    document = json.dumps({"x" * 10**6: 1}).encode()
    with pytest.raises(BadSample, match="has no prompt, only") as raised:
        decode_sample("a", {"json": document}, "here")
    assert len(str(raised.value)) < 500
