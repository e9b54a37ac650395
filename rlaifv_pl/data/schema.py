"""What a shard holds: the members of a sample, the JSON among them, and what a sample must fulfil.

`encode_sample` and `decode_sample` are inverse to each other and check types; `check_sample` checks
sense. shards/README.md says the same in words.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.images import image_extension
from rlaifv_pl.data.sample_json import decode_fields, encode_fields, shorten
from rlaifv_pl.data.sample_texts import answers, check_text, prompt_texts
from rlaifv_pl.models.special_tokens import without_end
from rlaifv_pl.records import Message, Sample

MAX_KEY_LENGTH = 80
"""Leaves room for `.rejected.99.webp` in the 100 bytes of a tar header's name field."""

MAX_SAMPLE_BYTES = 2**29
"""Limit for all members of a sample, which is read into memory whole."""

_KEY = re.compile(rf"[a-z0-9_-]{{1,{MAX_KEY_LENGTH}}}")
_IMAGE_MEMBER = re.compile(r"(?:(?P<side>rejected)\.)?(?:(?P<number>\d{1,4})\.)?(?:jpe?g|png|webp)")


class Kind(StrEnum):
    """Use of a sample to an objective."""

    PREFERENCE = "preference"
    """`chosen` over `rejected`: DPO."""
    SFT = "sft"
    """A `completion` to imitate."""
    NSFT = "nsft"
    """`chosen` to imitate, with `corrections` that name the errors of `rejected`."""
    PROMPT = "prompt"
    """Nothing yet: an input of feedback."""


def kinds(sample: Sample) -> frozenset[Kind]:
    """Tell what can be learned from a sample; more than one kind may hold.

    >>> sorted(kinds(Sample(key="a", prompt="How many?", chosen="Two.", rejected="Six.")))
    [<Kind.PREFERENCE: 'preference'>]
    """
    is_pair = sample.chosen is not None and sample.rejected is not None
    held = {
        Kind.PREFERENCE: is_pair,
        Kind.SFT: sample.completion is not None,
        Kind.NSFT: is_pair and bool(sample.corrections),
    }
    return frozenset(kind for kind, holds in held.items() if holds) or frozenset({Kind.PROMPT})


def check_key(key: str, where: str = "sample") -> None:
    """Refuse a key that would not come back from a tar as it went in.

    Raises:
        BadSample: `bad_key`. WebDataset splits a member's name at the first dot and lower-cases what
            follows, so that 'a.b' would silently come back as 'a'.
    """
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise BadSample(
            Reason.BAD_KEY, where, f"the key {shorten(key, length=100)} would not survive in a tar"
        )


def is_image_member(extension: str) -> bool:
    """Return whether a member of this extension is an image of its sample.

    >>> is_image_member("rejected.0.jpg"), is_image_member("json")
    (True, False)
    """
    return _IMAGE_MEMBER.fullmatch(extension) is not None


def encode_sample(sample: Sample) -> dict[str, bytes]:
    """Turn a sample into the members of its tar entry, by extension: `jpg`, `0.png`, `json`.

    Empty fields are left out. What is written has been read back: whatever `decode_sample` would
    refuse is refused here.

    Raises:
        BadSample: as `decode_sample`; `undecodable_image` if an image is no JPEG, PNG or WebP;
            `bad_key`.
    """
    where = f"sample {sample.key!r}"
    check_key(sample.key, where)
    members = _encode_images(sample.images, "", where)
    members |= _encode_images(sample.rejected_images, "rejected.", where)
    members["json"] = encode_fields(sample, where)
    decode_sample(sample.key, members, where)
    return members


def decode_sample(key: str, members: Mapping[str, bytes], where: str) -> Sample:
    """Turn the members of a tar entry into a sample; unknown keys of the JSON go to `extra`.

    Args:
        key: the part of the members' names before the first dot.
        members: contents by the part after it.
        where: shard and key, named in errors.

    Raises:
        BadSample: `missing_json`, `invalid_json`, `wrong_type`, `foreign_member`,
            `duplicate_member` (two members for one image) or `missing_image` (a gap in the numbers).
    """
    check_key(key, where)
    if "json" not in members:
        raise BadSample(Reason.MISSING_JSON, where, f"found only {shorten(sorted(members), length=200)}")
    sides: dict[str, dict[int, bytes]] = {"": {}, "rejected": {}}
    for name, data in members.items():
        if name != "json":
            side, number = _image_place(name, where)
            if number in sides[side]:
                detail = f"{name!r} is the second member for one image"
                raise BadSample(Reason.DUPLICATE_MEMBER, where, detail)
            sides[side][number] = data
    return Sample(
        key=key,
        images=_in_order(sides[""], where),
        rejected_images=_in_order(sides["rejected"], where),
        **decode_fields(members["json"], where),
    )


def check_sample(sample: Sample, where: str) -> None:
    """Check that a sample of right types also makes sense. A sample with nothing to learn is legal.

    Raises:
        BadSample: as `check_prompt`; `missing_answer`, `empty_answer`, `equal_answers`, `image_count` or `bad_span`.
    """
    check_prompt(sample, where)
    _check_answers(sample, where)
    if sample.rejected_images and len(sample.rejected_images) != len(sample.images):
        detail = f"{len(sample.rejected_images)} rejected images stand for {len(sample.images)} images"
        raise BadSample(Reason.IMAGE_COUNT, where, detail)
    for span in sample.spans:
        text = getattr(sample, span["side"]) or ""
        if not 0 <= span["start"] < span["end"] <= len(text):
            detail = f"spans: {shorten(dict(span), length=200)} leaves the {len(text)} characters of {span['side']}"
            raise BadSample(Reason.BAD_SPAN, where, detail)


def check_prompt(sample: Sample, where: str) -> None:
    """Check prompt and images: all that matters of a sample that is to be answered.

    Raises:
        BadSample: `empty_prompt`, `wrong_turns`, `image_count`, `rendered_prompt` or `special_token`.
    """
    _check_turns(sample, where)
    for name, text in prompt_texts(sample.prompt):
        check_text(name, text, where)
    blocks = _count_image_blocks(sample.prompt)
    if blocks and blocks != len(sample.images):
        detail = f"prompt has {blocks} image blocks, but there are {len(sample.images)} images"
        raise BadSample(Reason.IMAGE_COUNT, where, detail)


def _encode_images(images: Sequence[bytes], side: str, where: str) -> dict[str, bytes]:
    """Name the images of one side: a number each, unless there is a single one and no side to tell."""
    members = {}
    for number, data in enumerate(images):
        extension = image_extension(data)
        if extension is None:
            detail = f"{side}image {number} starts with {data[:8]!r}, which is no JPEG, PNG or WebP"
            raise BadSample(Reason.UNDECODABLE_IMAGE, where, detail)
        is_numbered = side or len(images) > 1
        members[f"{side}{number}.{extension}" if is_numbered else extension] = data
    return members


def _image_place(name: str, where: str) -> tuple[str, int]:
    """Return side and number of an image, by the member's name."""
    match = _IMAGE_MEMBER.fullmatch(name)
    if match is None:
        raise BadSample(Reason.FOREIGN_MEMBER, where, f"a sample has no member {shorten(name)}")
    return match["side"] or "", int(match["number"] or 0)


def _in_order(images: Mapping[int, bytes], where: str) -> tuple[bytes, ...]:
    if sorted(images) != list(range(len(images))):
        detail = f"images must be numbered from 0 without a gap, got {shorten(sorted(images))}"
        raise BadSample(Reason.MISSING_IMAGE, where, detail)
    return tuple(images[number] for number in range(len(images)))


def _check_turns(sample: Sample, where: str) -> None:
    if isinstance(sample.prompt, str):
        if not sample.prompt.strip():
            raise BadSample(Reason.EMPTY_PROMPT, where, f"prompt is {shorten(sample.prompt)}")
        return
    last_role = sample.prompt[-1]["role"] if sample.prompt else None
    if last_role != "user":
        detail = f"prompt must end with a turn of the user, but its last turn is of {last_role!r}"
        raise BadSample(Reason.WRONG_TURNS, where, detail)
    if not any(_has_content(message["content"]) for message in sample.prompt if message["role"] == "user"):
        raise BadSample(Reason.EMPTY_PROMPT, where, "no turn of the user has a text or an image")
    for number, message in enumerate(sample.prompt):
        if message["role"] != "system" and not _has_content(message["content"]):
            reason = Reason.EMPTY_PROMPT if message["role"] == "user" else Reason.EMPTY_ANSWER
            detail = f"prompt, turn {number} ({message['role']}) has neither text nor image"
            raise BadSample(reason, where, detail)


def _check_answers(sample: Sample, where: str) -> None:
    if (sample.chosen is None) != (sample.rejected is None):
        missing = "chosen" if sample.chosen is None else "rejected"
        raise BadSample(Reason.MISSING_ANSWER, where, f"{missing} is missing")
    for name, text in answers(sample):
        if not text.strip():
            raise BadSample(Reason.EMPTY_ANSWER, where, f"{name} is {shorten(text)}")
        check_text(name, text, where)
    for side in sample.truncated:
        if getattr(sample, side) is None:
            raise BadSample(
                Reason.MISSING_ANSWER, where, f"truncated names {side!r}, and the sample has no {side}"
            )
    # Equal answers can still teach which image they belong to.
    if sample.chosen is None or sample.rejected is None or sample.rejected_images:
        return
    if without_end(sample.chosen).strip() == without_end(sample.rejected).strip():
        raise BadSample(Reason.EQUAL_ANSWERS, where, f"chosen and rejected are both {shorten(sample.chosen)}")


def _has_content(content: str | Sequence[Mapping[str, Any]]) -> bool:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return any(block["type"] == "image" or block["text"].strip() for block in blocks)


def _count_image_blocks(prompt: str | Sequence[Message]) -> int:
    if isinstance(prompt, str):
        return 0
    contents = [message["content"] for message in prompt if not isinstance(message["content"], str)]
    return sum(block["type"] == "image" for content in contents for block in content)
