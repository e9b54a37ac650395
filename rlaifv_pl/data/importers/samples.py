"""What the readers of all formats have in common: a row with its prompt found becomes a sample."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.fields import shorten
from rlaifv_pl.data.importers.picture_columns import likely_columns, sure_columns, unread_columns
from rlaifv_pl.data.importers.rows import Row
from rlaifv_pl.data.importers.turns import messages_of, pictures_in, read_turn, text_of
from rlaifv_pl.data.urls import redact
from rlaifv_pl.records import Sample

PROMPTS = ("prompt", "question", "query", "instruction", "input", "problem")
"""Columns of one text that come before an answer."""
ANSWERS = (
    "chosen", "rejected", "completion", "completions", "response", "answer", "output", "target", "refinement",
    "chosen_response", "rejected_response", "response_1", "response_2",
)  # fmt: skip

_TEXTS = ("messages", "conversations", "text", "system", "context", "raw_question")
_MOVING = ("video", "videos", "audio", "audios")
_ORIGIN = (
    "id", "idx", "ds_name", "origin_dataset", "origin_split", "image", "image_path", "image_id", "question_id",
    "ds_question_id", "data_source",
)  # fmt: skip


def holds(columns: Mapping[str, Any], *names: str) -> bool:
    """Whether there is something in each of these columns."""
    return all(columns.get(name) is not None for name in names)


def holds_any(columns: Mapping[str, Any], *names: str) -> bool:
    """Whether there is something in one of these columns."""
    return any(columns.get(name) is not None for name in names)


def are_lists(columns: Mapping[str, Any]) -> bool:
    """Whether chosen and rejected are lists of texts: several answers a side."""
    sides = [columns.get("chosen"), columns.get("rejected")]
    return all(
        isinstance(side, list) and side and all(isinstance(text, str) for text in side) for side in sides
    )


def is_asked(message: Any) -> bool:
    """Whether a message is one of those that come before an answer."""
    roles = [message.get("role"), message.get("from")] if isinstance(message, Mapping) else []
    return any(role in ("user", "human", "system") for role in roles)


def named_picture(row: Row) -> list[str]:
    """The file that `image_id` names, where no column holds the image: HA-DPO's number of a JPEG, SeVa's file name."""
    name = row.parsed().get("image_id")
    if sure_columns(row.parsed()) or not isinstance(name, str | int) or isinstance(name, bool):
        return []
    return [str(name) if PurePosixPath(str(name)).suffix else f"{name}.jpg"]


def make_sample(
    row: Row,
    prompt: Any,
    *,
    answers: Mapping[str, Any],
    number: int | None = None,
    pictures: Sequence[Any] = (),
) -> Sample:
    """A sample of a row.

    Images are those of the row's columns that can hold nothing else; without such, `pictures`; without these, what
    the prompt's blocks hold, or a column such as `file_name`.

    Args:
        row: gives images, origin and the system's turn, if there is a column of it.
        prompt: a text of the user, or messages, as the source writes them.
        answers: raw cells by field: chosen, rejected, completion.
        number: of the sample, if the row makes several.
        pictures: images in any form.

    Raises:
        BadSample: `wrong_type` and `wrong_turns`, naming the column; as `PictureLoader.load`.
    """
    _refuse_moving(row)
    messages = messages_of(prompt, "prompt", row.where)
    turns = [read_turn(message, row.where) for message in messages]
    system = row.parsed().get("system")
    if isinstance(system, str) and system.strip() and turns and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": system}, *turns]
    return Sample(
        key=row.key if number is None else f"{row.key}-{number}",
        prompt=turns,
        images=_images(row, [*pictures], pictures_in(messages)),
        rejected_images=row.pictures("rejected_images"),
        provenance=row.provenance(*_ORIGIN),
        **_texts(answers, row),
    )


def _images(row: Row, named: list[Any], in_blocks: list[Any]) -> tuple[bytes, ...]:
    columns = row.parsed()
    images, read = _of_columns(row, sure_columns(columns))
    if not images:
        images, read = row.load(named) or row.load(in_blocks), "image_id" if named else None
    if not images:
        images, read = _of_columns(row, likely_columns(columns))
    for name in unread_columns(columns, read, (*PROMPTS, *ANSWERS, *_TEXTS)):
        row.loader.findings.unread.setdefault(name, redact(shorten(columns[name])))
    return images


def _of_columns(row: Row, names: Sequence[str]) -> tuple[tuple[bytes, ...], str | None]:
    """The images of the first of these columns that holds any, and its name."""
    found = ((row.load(row.parsed()[name]), name) for name in names)
    return next((one for one in found if one[0]), ((), None))


def _texts(answers: Mapping[str, Any], row: Row) -> dict[str, Any]:
    return {name: text_of(value, name, row.where) for name, value in answers.items()}


def refuse_unpaired(row: Row, column: str) -> None:
    """Raise for an answer that is only marked as bad.

    Raises:
        BadSample: `unpaired`; `wrong_type` if the mark is neither true nor false.
    """
    mark = row.parsed().get(column)
    if mark is None or (isinstance(mark, bool | int) and mark == 1):
        return
    if not isinstance(mark, bool | int) or mark != 0:
        raise BadSample(Reason.WRONG_TYPE, row.where, f"{column}: expected true or false, got {mark!r:.60}")
    raise BadSample(Reason.UNPAIRED, row.where, f"{column} is {mark}: the answer is marked as bad")


def _refuse_moving(row: Row) -> None:
    held = [name for name in _MOVING if row.parsed().get(name)]
    if held:
        raise BadSample(Reason.VIDEO_OR_AUDIO, row.where, f"{held[0]}: samples hold images and texts only")
