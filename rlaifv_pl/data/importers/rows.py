"""The rows of a source, one by one, each knowing where it comes from."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.encoded_images import is_encoded
from rlaifv_pl.data.importers.images import ImageLoader
from rlaifv_pl.data.importers.readers import read_cells
from rlaifv_pl.data.importers.sources import Source, bad_row
from rlaifv_pl.data.remote_directory import redact
from rlaifv_pl.data.sample_json import shorten

_MAX_PROVENANCE_CHARACTERS = 1000
"""Length of a cell as JSON; a longer one says more than where a row comes from."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of a source.

    What its methods and the readers of formats raise is a `BadSample` without a place; `locate` adds it.
    """

    columns: Mapping[str, Any]
    source: Source
    number: int
    """Counted from 0; in JSON lines, the line."""
    images: ImageLoader
    fault: BadSample | None = None
    """Why the row could not be read; it has no columns then."""

    @property
    def key(self) -> str:
        """Key of its sample."""
        return f"{self.source.stem}_{self.number:08d}"

    @property
    def where(self) -> str:
        """File and row, for messages."""
        return f"{self.source.path}, row {self.number}"

    def locate(self, error: BadSample | RecursionError) -> BadSample:
        """Add file and row to what is wrong with the row."""
        if isinstance(error, RecursionError):
            return BadSample(Reason.INVALID_JSON, self.where, "the row is nested too deeply")
        return BadSample(error.reason, self.where, error.detail)

    def require(self, column: str) -> Any:
        """Return the value of a column.

        Raises:
            BadSample: `missing_field` if there is no such column, or nothing in it.
        """
        value = self.columns.get(column)
        if value is None:
            columns = shorten(sorted(self.columns), length=200)
            raise bad_row(Reason.MISSING_FIELD, f"there is no {column!r} among the columns {columns}")
        return value

    def require_one(self, *columns: str, remedy: str = "") -> Any:
        """Return the value of the only one of these columns that holds something.

        Args:
            columns: their names.
            remedy: what else helps a row that has none of them, to end the message.

        Raises:
            BadSample: `missing_field` if none does, `wrong_type` if several do.
        """
        held = {name: value for name in columns if (value := self.columns.get(name)) is not None}
        held = {name: value for name, value in held.items() if value != ""} or held
        if len(held) > 1:
            raise bad_row(Reason.WRONG_TYPE, f"{' and '.join(held)}: expected one of them")
        if not held:
            raise bad_row(Reason.MISSING_FIELD, f"expected one of the columns {', '.join(columns)}{remedy}")
        return next(iter(held.values()))

    def messages(self, column: str) -> list[Any]:
        """Return the messages of a column, at least one.

        Raises:
            BadSample: `missing_field`, `wrong_type`.
        """
        value = self.require(column)
        if not isinstance(value, list) or not value:
            raise bad_row(Reason.WRONG_TYPE, f"{column}: expected messages, got {shorten(value)}")
        return value

    def provenance(self, *columns: str) -> dict[str, Any]:
        """Return source and row, and what the row itself says about its origin, without images and secrets of URLs."""
        origin = {name: _provenance_value(self.columns.get(name)) for name in columns}
        origin = {name: value for name, value in origin.items() if value is not None}
        return {"source": self.source.path.name, "row": self.number, **origin}


def read_source_rows(source: Source, images: ImageLoader) -> Iterator[SourceRow]:
    """Read a source lazily, in its own order.

    Args:
        source: of any kind.
        images: loads the rows' images.

    Raises:
        SourceError: the source is damaged as a whole; what is no object becomes a row with a `fault`.
    """
    for number, cells in read_cells(source):
        if isinstance(cells, Mapping):
            yield SourceRow(cells, source, number, images)
            continue
        if not isinstance(cells, BadSample):
            cells = bad_row(Reason.INVALID_JSON, f"expected a JSON object, got {shorten(cells)}")
        yield SourceRow({}, source, number, images, cells)


def _provenance_value(value: object) -> object:
    """Return a cell as it may stand in a shard's JSON; None for an image, or anything else that is long."""
    if isinstance(value, str):
        value = None if is_encoded(value) else redact(value).encode(errors="backslashreplace").decode()
    try:
        text = json.dumps(value, ensure_ascii=False).encode().decode()
        return json.loads(redact(text)) if len(text) <= _MAX_PROVENANCE_CHARACTERS else None
    except (TypeError, ValueError, RecursionError):
        return None
