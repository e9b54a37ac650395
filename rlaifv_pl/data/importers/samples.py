"""What the readers of all formats have in common: a row with its prompt found becomes a sample."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.column_names import ANSWERS, DIALOGUES, HISTORIES, MARKS, PROMPTS, SYSTEMS
from rlaifv_pl.data.importers.image_columns import likely_columns, sure_columns, unread_columns
from rlaifv_pl.data.importers.messages import Turn, markers_in, messages_of, read_turn, text_of
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.remote_directory import redact
from rlaifv_pl.data.sample_json import shorten
from rlaifv_pl.records import Sample

_TEXTS = (*PROMPTS, *ANSWERS, *DIALOGUES, *SYSTEMS, *HISTORIES, "text", "context", "raw_question")
_MOVING = ("video", "videos", "audio", "audios")
_ORIGIN = (
    "id", "idx", "ds_name", "origin_dataset", "origin_split", "image", "image_path", "image_id", "question_id",
    "ds_question_id", "data_source",
)  # fmt: skip
READ_BY_ALL = frozenset({*SYSTEMS, *HISTORIES, *MARKS, "rejected_images", *_MOVING, *_ORIGIN})
"""Columns that `make_sample` reads, whatever the format."""
_ASKERS = ("user", "question", "query", "prompt", "instruction", "human", "input")
_ANSWERERS = ("assistant", "answer", "response", "output", "gpt", "bot")
"""Fields of an earlier turn that is written as one object."""
_MARKED = {
    "true": True,
    "1": True,
    "1.0": True,
    "yes": True,
    "false": False,
    "0": False,
    "0.0": False,
    "no": False,
}


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


def image_name(row: SourceRow) -> list[str]:
    """The file that `image_id` names, where no column holds the image: HA-DPO's number of a JPEG, SeVa's file name."""
    name = row.parsed().get("image_id")
    if sure_columns(row.parsed()) or not isinstance(name, str | int) or isinstance(name, bool):
        return []
    return [str(name) if PurePosixPath(str(name)).suffix else f"{name}.jpg"]


def make_sample(
    row: SourceRow,
    prompt: Any,
    *,
    answers: Mapping[str, Any],
    number: int | None = None,
    pictures: Sequence[Any] = (),
) -> Sample:
    """A sample of a row.

    Images are those of the row's columns that can hold nothing else; without such, `pictures`; without these, what
    the prompt itself holds, or a column such as `file_name`.

    Args:
        row: gives images, origin, the system's turn and earlier turns, if there are columns of them.
        prompt: a text of the user, or messages, as the source writes them.
        answers: raw cells by field: chosen, rejected, completion.
        number: of the sample, if the row makes several.
        pictures: images in any form.

    Raises:
        BadSample: `wrong_type` and `wrong_turns`, naming the column; `unpaired` for a completion that is marked as
            bad; as `PictureLoader.load`.
    """
    _refuse_moving(row)
    if answers.keys() == {"completion"}:
        _refuse_marked_bad(row)
    messages = [*_history(row), *messages_of(prompt, "prompt", row.where)]
    turns = _with_system(row, [read_turn(message, row.where) for message in messages])
    return Sample(
        key=row.key if number is None else f"{row.key}-{number}",
        prompt=turns,
        images=_images(row, markers_in(messages), pictures),
        rejected_images=row.pictures("rejected_images"),
        provenance=row.provenance(*_ORIGIN),
        **_texts(answers, row),
    )


def instruction_of(row: SourceRow) -> str:
    """The text of a row's `instruction`, and below it that of its `input`, if there is one.

    Raises:
        BadSample: `missing_field`; `wrong_type` for what is no text.
    """
    texts = [
        text for text in (row.require("instruction"), row.parsed().get("input")) if text not in (None, "")
    ]
    if not all(isinstance(text, str) for text in texts):
        raise BadSample(Reason.WRONG_TYPE, row.where, "instruction, input: expected texts")
    return "\n".join(texts)


def refuse_unanswered(row: SourceRow) -> None:
    """Raise for a row that has columns of answers, and nothing in them: it was to be a pair, not a prompt.

    Raises:
        BadSample: `missing_answer`.
    """
    if empty := [name for name in ANSWERS if name in row.parsed()]:
        raise BadSample(Reason.MISSING_ANSWER, row.where, f"nothing in the columns {empty}")


def is_marked(row: SourceRow, column: str) -> bool | None:
    """Whether a column says true or false, be it as a number or, in a table, as a word; None if it is empty.

    Raises:
        BadSample: `wrong_type` if it says neither.
    """
    mark = row.parsed().get(column)
    if mark is None or mark == "":
        return None
    found = _MARKED.get(str(mark).strip().lower()) if isinstance(mark, bool | int | float | str) else None
    if found is None:
        raise BadSample(Reason.WRONG_TYPE, row.where, f"{column}: expected true or false, got {mark!r:.60}")
    return found


def _refuse_marked_bad(row: SourceRow) -> None:
    for column in MARKS:
        if is_marked(row, column) is False:
            detail = f"{column} is {row.parsed()[column]}: the answer is marked as bad"
            raise BadSample(Reason.UNPAIRED, row.where, detail)


def _images(row: SourceRow, markers: Sequence[Any], pictures: Sequence[Any]) -> tuple[bytes, ...]:
    """The images of a row; where columns have some and the prompt's markers others, in the markers' order."""
    columns, own = row.parsed(), [marker for marker in markers if marker is not None]
    images, read = _of_columns(row, sure_columns(columns))
    if not images:
        images, read = row.load([*pictures]) or row.load(own), "image_id" if pictures else None
    elif own and len(images) + len(own) == len(
        markers
    ):  # Of as many markers as images, both name the same ones.
        rest = iter(images)
        ordered = [(next(rest),) if marker is None else row.load(marker) for marker in markers]
        images = tuple(picture for loaded in ordered for picture in loaded)
    if not images:
        images, read = _of_columns(row, likely_columns(columns))
    for name in unread_columns(columns, read, _TEXTS):
        row.loader.findings.unread.setdefault(name, redact(shorten(columns[name])))
    return images


def _of_columns(row: SourceRow, names: Sequence[str]) -> tuple[tuple[bytes, ...], str | None]:
    """The images of the first of these columns that holds any, and its name."""
    found = ((row.load(row.parsed()[name]), name) for name in names)
    return next((one for one in found if one[0]), ((), None))


def _with_system(row: SourceRow, turns: list[Turn]) -> list[Turn]:
    """Turns after the system's, if there is a column of it and none of them is the system's."""
    texts = [text for name in SYSTEMS if (text := row.parsed().get(name)) not in (None, "")]
    if len(texts) > 1 or not all(isinstance(text, str) for text in texts):
        detail = f"{' and '.join(SYSTEMS)}: expected one text, got {shorten(texts)}"
        raise BadSample(Reason.WRONG_TYPE, row.where, detail)
    said = [text for text in texts if text.strip()]
    asked = [turn["content"] for turn in turns if turn["role"] == "system"]
    if not said or asked == said:
        return turns
    if asked:
        detail = f"the system's turn is {shorten(asked[0])}, and the column of it says {shorten(said[0])}"
        raise BadSample(Reason.WRONG_TURNS, row.where, detail)
    return [{"role": "system", "content": said[0]}, *turns]


def _history(row: SourceRow) -> list[Any]:
    """Earlier turns as messages: pairs of a question and its answer, in a list or an object, or messages."""
    held = [name for name in HISTORIES if row.parsed().get(name)]
    if len(held) > 1:
        raise BadSample(Reason.WRONG_TYPE, row.where, f"{' and '.join(held)}: expected one of them")
    turns = row.parsed()[held[0]] if held else []
    if not isinstance(turns, list):
        raise BadSample(Reason.WRONG_TYPE, row.where, f"{held[0]}: {_EARLIER}, got {shorten(turns)}")
    return [message for turn in turns for message in _earlier(row, held[0], turn)]


_EARLIER = "expected a list of [question, answer], of objects of these, or of messages"


def _earlier(row: SourceRow, name: str, turn: Any) -> list[Any]:
    if isinstance(turn, Mapping) and turn.keys() & {"role", "from"}:
        return [turn]
    pair = turn
    if isinstance(turn, Mapping):
        pair = [
            turn.get(next((name for name in names if name in turn), "")) for names in (_ASKERS, _ANSWERERS)
        ]
        pair = pair if len(turn) == len(pair) else []
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise BadSample(Reason.WRONG_TYPE, row.where, f"{name}: {_EARLIER}, got {shorten(turn)}")
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant"), pair, strict=True)]


def _texts(answers: Mapping[str, Any], row: SourceRow) -> dict[str, Any]:
    return {name: text_of(value, name, row.where) for name, value in answers.items()}


def _refuse_moving(row: SourceRow) -> None:
    held = [name for name in _MOVING if row.parsed().get(name)]
    if held:
        raise BadSample(Reason.VIDEO_OR_AUDIO, row.where, f"{held[0]}: samples hold images and texts only")
