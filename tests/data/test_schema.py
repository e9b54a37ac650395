"""A sample survives its members, and each fault gets its own name and a message to act on."""

import io
import json
import pickle
from dataclasses import replace

import pytest
from PIL import Image

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.images import MAX_PIXELS, open_image, open_images
from rlaifv_pl.data.schema import Kind, check_key, check_sample, decode_sample, encode_sample, kinds
from rlaifv_pl.records import Correction, Sample
from tests.data.samples import bomb, pair, picture

TWO_IMAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "or"}, {"type": "image"}]},
    {"role": "assistant", "content": "Both."},
    {"role": "user", "content": "Why?"},
]

FULL = Sample(
    key="full-1",
    prompt=TWO_IMAGES,
    images=(picture("PNG"), picture("WEBP")),
    chosen="Because of the cat \u2603.",
    rejected="Because of the dog.",
    completion="Because.",
    corrections=(Correction(question="A dog?", answer="No.", codes=("obj.absent",)),),
    rejected_images=(picture(colour=1), picture(colour=2)),
    evidence={
        "rejected": {"score": -1, "claims": [{"text": "A dog.", "question": "A dog?", "yes": 0.1, "no": 0.9}]}
    },
    spans=({"side": "rejected", "start": 15, "end": 18, "weight": 5.0},),
    provenance={"source": "rows.parquet", "row": 3},
    extra={"topic": ["animals"]},
)


@pytest.mark.parametrize("sample", [FULL, pair(), pair(images=()), Sample(key="a", prompt="Hi?")])
def test_a_sample_comes_back_as_it_went_in(sample):
    check_sample(sample, "here")
    assert decode_sample(sample.key, encode_sample(sample), "here") == sample


def test_members_have_the_documented_names():
    assert sorted(encode_sample(pair())) == ["jpg", "json"]
    assert sorted(encode_sample(FULL)) == ["0.png", "1.webp", "json", "rejected.0.jpg", "rejected.1.jpg"]


def test_empty_fields_are_left_out_of_the_json():
    assert json.loads(encode_sample(Sample(key="a", prompt="Hi?"))["json"]) == {"prompt": "Hi?"}


def test_images_are_ordered_by_number_not_by_name():
    images = tuple(picture(colour=number) for number in range(11))
    assert decode_sample("a", encode_sample(pair(images=images)), "here").images == images


def test_null_means_absent():
    sample = decode_sample("a", {"json": b'{"prompt": "Hi?", "chosen": null}'}, "here")
    assert sample.chosen is None and sample.extra == {}


def test_kinds_may_overlap():
    assert kinds(FULL) == {Kind.PREFERENCE, Kind.SFT, Kind.NSFT}
    assert kinds(pair()) == {Kind.PREFERENCE}
    assert kinds(Sample(key="a", prompt="Hi?")) == {Kind.PROMPT}


@pytest.mark.parametrize("key", ["a.b", "a/b", "A", "", "../a", "a b", "a" * 81, "\u00e4", "a\n"])
def test_a_key_that_a_tar_would_change_is_refused(key):
    with pytest.raises(BadSample, match="lower-case letters, digits") as raised:
        check_key(key)
    assert raised.value.reason is Reason.BAD_KEY


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"prompt": " \n"}, Reason.EMPTY_PROMPT, "prompt is"),
        ({"prompt": []}, Reason.WRONG_TURNS, "last turn is of None"),
        ({"prompt": TWO_IMAGES[:2]}, Reason.WRONG_TURNS, "'assistant'"),
        ({"prompt": [{"role": "user", "content": " "}]}, Reason.EMPTY_PROMPT, "no turn of the user"),
        ({"prompt": TWO_IMAGES}, Reason.IMAGE_COUNT, "2 image blocks, but there are 1 images"),
        ({"rejected_images": (picture(),) * 2}, Reason.IMAGE_COUNT, "2 rejected images stand for 1"),
        ({"chosen": " "}, Reason.EMPTY_ANSWER, "chosen is ' '"),
        ({"completion": ""}, Reason.EMPTY_ANSWER, "completion is ''"),
        (
            {"corrections": (Correction(question="A?", answer=""),)},
            Reason.EMPTY_ANSWER,
            r"corrections\[0\]\.answer",
        ),
        ({"rejected": "Two cats."}, Reason.EQUAL_ANSWERS, "both 'Two cats.'"),
        ({"rejected": None}, Reason.MISSING_ANSWER, "rejected is missing"),
        (
            {"spans": ({"side": "chosen", "start": 0, "end": 10, "weight": 1.0},)},
            Reason.BAD_SPAN,
            "leaves the 9 characters of chosen",
        ),
    ],
)
def test_a_senseless_sample_is_refused(changes, reason, message):
    with pytest.raises(BadSample, match=message) as raised:
        check_sample(pair(**changes), "shard-000000.tar, sample 'a'")
    assert raised.value.reason is reason
    assert str(raised.value).startswith("shard-000000.tar, sample 'a': ")
    assert str(raised.value).endswith(f"{reason.remedy} [{reason}]")


def test_equal_answers_are_legal_where_the_images_differ():
    check_sample(pair(rejected="Two cats.", rejected_images=(picture(colour=9),)), "here")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prompt", 7, "prompt: expected a string or a list of messages, got 7"),
        ("prompt", [{"role": "robot", "content": "Hi"}], "expected a role of"),
        ("prompt", [{"role": "user", "content": [{"type": "audio"}]}], "prompt: expected an object with"),
        ("prompt", [{"role": "user", "content": "Hi", "name": "Al"}], "prompt: expected an object with"),
        ("chosen", ["a"], r"chosen: expected a string, got \['a'\]"),
        ("corrections", {"question": "a"}, "corrections: expected a list"),
        ("corrections", [{"question": "a"}], "corrections: expected an object with"),
        ("evidence", {"left": {}}, "evidence: expected a side of"),
        (
            "spans",
            [{"side": "chosen", "start": True, "end": 2, "weight": 1}],
            "whole number as start, got True",
        ),
        ("provenance", "me", "provenance: expected an object, got 'me'"),
    ],
)
def test_wrong_types_name_the_field(field, value, message):
    document = json.dumps({"prompt": "Hi?", field: value}).encode()
    with pytest.raises(BadSample, match=message) as raised:
        decode_sample("a", {"json": document}, "here")
    assert raised.value.reason is Reason.WRONG_TYPE


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"jpg": picture()}, Reason.MISSING_JSON),
        ({"json": b"{"}, Reason.INVALID_JSON),
        ({"json": b"[]"}, Reason.INVALID_JSON),
        ({"json": b'{"prompt": "\xff"}'}, Reason.INVALID_JSON),
        ({"json": b'{"prompt": "a", "x": NaN}'}, Reason.INVALID_JSON),
        ({"json": b"[" * 100_000}, Reason.INVALID_JSON),
        ({"json": b"{}"}, Reason.MISSING_FIELD),
        ({"json": b'{"prompt": "a"}', "cls": b"1"}, Reason.FOREIGN_MEMBER),
        ({"json": b'{"prompt": "a"}', "pickle": b""}, Reason.FOREIGN_MEMBER),
        ({"json": b'{"prompt": "a"}', "1.jpg": picture()}, Reason.MISSING_IMAGE),
        ({"json": b'{"prompt": "a"}', "jpg": picture(), "0.png": picture()}, Reason.DUPLICATE_MEMBER),
    ],
)
def test_broken_members_are_named(members, reason):
    with pytest.raises(BadSample) as raised:
        decode_sample("a", members, "here")
    assert raised.value.reason is reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": (b"GIF89a",)}, Reason.UNDECODABLE_IMAGE),
        ({"extra": {"chosen": "again"}}, Reason.WRONG_TYPE),
        ({"extra": {"number": float("nan")}}, Reason.WRONG_TYPE),
        ({"provenance": {"bytes": b""}}, Reason.WRONG_TYPE),
        ({"chosen": "\ud800"}, Reason.WRONG_TYPE),
        ({"chosen": 3}, Reason.WRONG_TYPE),
    ],
)
def test_what_could_not_be_read_back_is_not_written(changes, reason):
    with pytest.raises(BadSample) as raised:
        encode_sample(replace(pair(), **changes))
    assert raised.value.reason is reason


def test_images_open_as_upright_rgb():
    """Orientation 6 asks for a quarter turn: 24 x 16 pixels stand up as 16 x 24."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = open_image(picture(exif=exif), "here")
    assert (image.size, image.mode) == ((16, 24), "RGB")
    grey = io.BytesIO()
    Image.new("LA", (3, 2)).save(grey, "PNG")
    assert open_image(grey.getvalue(), "here").mode == "RGB"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (picture()[:-200], Reason.UNDECODABLE_IMAGE),
        (b"", Reason.UNDECODABLE_IMAGE),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, Reason.UNDECODABLE_IMAGE),
        (picture("GIF"), Reason.UNDECODABLE_IMAGE),
        (bomb(8192, MAX_PIXELS // 8192 + 1), Reason.HUGE_IMAGE),
        (bomb(60_000, 60_000), Reason.HUGE_IMAGE),
        (picture("PNG", size=(201, 1)), Reason.HUGE_IMAGE),
        (picture("PNG", size=(1, 201)), Reason.HUGE_IMAGE),
    ],
)
def test_images_that_nobody_should_decode_are_named(data, reason):
    with pytest.raises(BadSample) as raised:
        open_image(data, "shard-000000.tar, sample 'a'")
    assert raised.value.reason is reason
    assert raised.value.where == "shard-000000.tar, sample 'a'"


def test_a_line_of_pixels_opens_up_to_a_length():
    """A processor that scales the short side to 336 pixels would make 23 million of a line of 69,000."""
    assert open_image(picture("PNG", size=(200, 1)), "here").size == (200, 1)


def test_many_images_of_a_sample_are_limited_together(monkeypatch):
    monkeypatch.setattr("rlaifv_pl.data.images.MAX_SAMPLE_PIXELS", 3 * 24 * 16)
    assert len(open_images([picture()] * 3, "sample a, images")) == 3
    with pytest.raises(BadSample, match="more than 1152 pixels") as raised:
        open_images([picture()] * 4, "sample a, images")
    assert (raised.value.reason, raised.value.where) == (Reason.HUGE_IMAGE, "sample a, images[3]")


def test_a_fault_survives_the_way_between_processes():
    fault = BadSample(Reason.EMPTY_ANSWER, "here", "chosen is ''")
    copy = pickle.loads(pickle.dumps(fault))
    assert (copy.reason, copy.where, str(copy)) == (fault.reason, fault.where, str(fault))
    assert copy.reason.remedy
