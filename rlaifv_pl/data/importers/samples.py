"""What the readers of all formats share: a row with its prompt and answers becomes a sample."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.column_names import ANSWERS, DIALOGUES, HISTORIES, MARKS, PROMPTS, SYSTEMS
from rlaifv_pl.data.importers.image_columns import likely_columns, sure_columns, unread_columns
from rlaifv_pl.data.importers.messages import Turn, markers_in, messages_of, read_turn, text_of
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.sources import bad_row
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
_HISTORY_FIELDS = {
    "user": ("user", "question", "query", "prompt", "instruction", "human", "input"),
    "assistant": ("assistant", "answer", "response", "output", "gpt", "bot"),
}
"""Fields of an earlier turn that is written as one object, by role."""
_TRUE, _FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")


def make_sample(
    row: SourceRow,
    prompt: object,
    answers: Mapping[str, object],
    *,
    number: int | None = None,
    images: Sequence[object] = (),
) -> Sample:
    """Make a sample of a row.

    Images are those of the row's columns that can hold nothing else; without such, `images`; without these, what
    the prompt itself holds, or a column such as `file_name`.

    Args:
        row: gives images, origin, the system's turn and earlier turns, if there are columns of them.
        prompt: a text of the user, or messages, as the source writes them.
        answers: raw cells by field: chosen, rejected, completion.
        number: number of the sample, if the row makes several.
        images: images in any form.

    Raises:
        BadSample: `wrong_type` and `wrong_turns`, naming the column; `unpaired` for a completion that is marked as
            bad; those of `ImageLoader.load`.
    """
    if moving := [name for name in _MOVING if row.columns.get(name)]:
        raise bad_row(Reason.VIDEO_OR_AUDIO, f"{moving[0]}: samples hold images and texts only")
    if answers.keys() == {"completion"}:
        _refuse_marked_bad(row)
    messages = [*_history(row), *messages_of(prompt, "prompt")]
    turns = _with_system(row, [read_turn(message) for message in messages])
    loaded = _images(row, markers_in(messages), images)
    rejected_images = row.images.load(row.columns.get("rejected_images"))
    texts: dict[str, Any] = {name: text_of(value, name) for name, value in answers.items()}
    return Sample(
        key=row.key if number is None else f"{row.key}-{number}",
        prompt=turns,
        images=loaded,
        rejected_images=rejected_images,
        provenance=row.provenance(*_ORIGIN),
        **texts,
    )


def read_instruction(row: SourceRow) -> str:
    """Return the text of a row's `instruction`, and below it that of its `input`, if there is one.

    Raises:
        BadSample: `missing_field`; `wrong_type` for what is no text.
    """
    texts = [
        text for text in (row.require("instruction"), row.columns.get("input")) if text not in (None, "")
    ]
    if not all(isinstance(text, str) for text in texts):
        raise bad_row(Reason.WRONG_TYPE, "instruction, input: expected texts")
    return "\n".join(texts)


def refuse_unanswered(row: SourceRow) -> None:
    """Refuse a row that has columns of answers, and nothing in them: it was to be a pair, not a prompt.

    Raises:
        BadSample: `missing_answer`.
    """
    if empty := [name for name in ANSWERS if name in row.columns]:
        raise bad_row(Reason.MISSING_ANSWER, f"nothing in the columns {empty}")


def is_marked(row: SourceRow, column: str) -> bool | None:
    """Whether a column says true or false, be it as a number or, in a table, as a word; None if it is empty.

    Raises:
        BadSample: `wrong_type` if it says neither.
    """
    mark = row.columns.get(column)
    if mark is None or mark == "":
        return None
    word = str(mark).strip().lower()
    if not isinstance(mark, bool | int | float | str) or word not in _TRUE + _FALSE:
        raise bad_row(Reason.WRONG_TYPE, f"{column}: expected true or false, got {mark!r:.60}")
    return word in _TRUE


def _refuse_marked_bad(row: SourceRow) -> None:
    for column in MARKS:
        if is_marked(row, column) is False:
            detail = f"{column} is {row.columns[column]}: the answer is marked as bad"
            raise bad_row(Reason.UNPAIRED, detail)


def _images(row: SourceRow, markers: Sequence[object], given: Sequence[object]) -> tuple[bytes, ...]:
    """Load the images of a row; where columns have some and the prompt's markers others, in the markers' order."""
    columns, load = row.columns, row.images.load
    in_prompt = [marker for marker in markers if marker is not None]
    images, column = _load_first(row, sure_columns(columns))
    if not images:
        images, column = load([*given]) or load(in_prompt), "image_id" if given else None
    elif in_prompt and len(images) + len(in_prompt) == len(markers):
        # With as many markers as images, both would name the same ones.
        rest = iter(images)
        ordered = [(next(rest),) if marker is None else load(marker) for marker in markers]
        images = tuple(image for loaded in ordered for image in loaded)
    if not images:
        images, column = _load_first(row, likely_columns(columns))
    for name in unread_columns(columns, column, _TEXTS):
        row.images.findings.unread.setdefault(name, redact(shorten(columns[name])))
    return images


def _load_first(row: SourceRow, names: Sequence[str]) -> tuple[tuple[bytes, ...], str | None]:
    """Load the images of the first of these columns that holds any, and return its name with them."""
    loaded = ((row.images.load(row.columns[name]), name) for name in names)
    return next(((images, name) for images, name in loaded if images), ((), None))


def _with_system(row: SourceRow, turns: list[Turn]) -> list[Turn]:
    """Put the text of a system column before the turns, unless one of them is the system's."""
    texts = [text for name in SYSTEMS if (text := row.columns.get(name)) not in (None, "")]
    if len(texts) > 1 or not all(isinstance(text, str) for text in texts):
        detail = f"{' and '.join(SYSTEMS)}: expected one text, got {shorten(texts)}"
        raise bad_row(Reason.WRONG_TYPE, detail)
    texts = [text for text in texts if text.strip()]
    in_turns = [turn["content"] for turn in turns if turn["role"] == "system"]
    if not texts or in_turns == texts:
        return turns
    if in_turns:
        detail = f"the system's turn is {shorten(in_turns[0])}, and the column of it says {shorten(texts[0])}"
        raise bad_row(Reason.WRONG_TURNS, detail)
    return [{"role": "system", "content": texts[0]}, *turns]


def _history(row: SourceRow) -> list[Any]:
    """Return earlier turns as messages."""
    names = [name for name in HISTORIES if row.columns.get(name)]
    if len(names) > 1:
        raise bad_row(Reason.WRONG_TYPE, f"{' and '.join(names)}: expected one of them")
    if not names:
        return []
    turns = row.columns[names[0]]
    if not isinstance(turns, list):
        raise _bad_history(names[0], turns)
    return [message for turn in turns for message in _history_messages(names[0], turn)]


def _history_messages(name: str, turn: object) -> list[Any]:
    """Return a message, or the messages of a question and its answer in a list or an object."""
    pair = turn
    if isinstance(turn, Mapping):
        if turn.keys() & {"role", "from"}:
            return [turn]
        fields = [next((name for name in names if name in turn), "") for names in _HISTORY_FIELDS.values()]
        pair = [turn.get(name) for name in fields] if len(turn) == len(fields) else []
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise _bad_history(name, turn)
    return [{"role": role, "content": text} for role, text in zip(_HISTORY_FIELDS, pair, strict=True)]


def _bad_history(name: str, value: object) -> BadSample:
    expected = "expected a list of [question, answer], of objects of these, or of messages"
    return bad_row(Reason.WRONG_TYPE, f"{name}: {expected}, got {shorten(value)}")
