"""The rows of a source, one by one, each knowing where it comes from."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.encoded_images import is_encoded
from rlaifv_pl.data.importers.images import PictureLoader
from rlaifv_pl.data.importers.readers import read_cells
from rlaifv_pl.data.importers.sources import Damaged, Source
from rlaifv_pl.data.remote_directory import redact
from rlaifv_pl.data.sample_json import shorten

_LONGEST_NOTE = 1000
"""Characters of JSON; a longer cell says more than where a row comes from."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of a source."""

    columns: Any
    """An object, unless the source is broken here; `parsed` checks."""
    source: Source
    number: int
    """Counted from 0; in JSON lines, the line."""
    loader: PictureLoader
    """Of its images."""

    @property
    def key(self) -> str:
        """Key of its sample."""
        return f"{self.source.stem}_{self.number:08d}"

    @property
    def where(self) -> str:
        """File and row, for messages."""
        return f"{self.source.path}, row {self.number}"

    def parsed(self) -> Mapping[str, Any]:
        """The columns.

        Raises:
            BadSample: `invalid_json` if the row is no object, or could not be read.
        """
        if isinstance(self.columns, Damaged):
            raise BadSample(Reason.INVALID_JSON, self.where, self.columns.detail)
        if not isinstance(self.columns, Mapping):
            detail = f"expected a JSON object, got {shorten(self.columns)}"
            raise BadSample(Reason.INVALID_JSON, self.where, detail)
        return self.columns

    def require(self, column: str) -> Any:
        """The value of a column.

        Raises:
            BadSample: `missing_field` if there is no such column, or nothing in it.
        """
        value = self.parsed().get(column)
        if value is None:
            detail = f"there is no {column!r} among the columns {shorten(sorted(self.parsed()), length=200)}"
            raise BadSample(Reason.MISSING_FIELD, self.where, detail)
        return value

    def messages(self, column: str) -> list[Any]:
        """The messages of a column, at least one.

        Raises:
            BadSample: `missing_field`, `wrong_type`.
        """
        value = self.require(column)
        if not isinstance(value, list) or not value:
            detail = f"{column}: expected messages, got {shorten(value)}"
            raise BadSample(Reason.WRONG_TYPE, self.where, detail)
        return value

    def load(self, pictures: Any) -> tuple[bytes, ...]:
        """Images in any form that `PictureLoader` takes.

        Raises:
            BadSample: as `PictureLoader.load`.
        """
        return self.loader.load(pictures, self.where)

    def pictures(self, *columns: str) -> tuple[bytes, ...]:
        """The images of the first of these columns that holds any.

        Raises:
            BadSample: as `PictureLoader.load`.
        """
        return next(filter(None, (self.load(self.parsed().get(column)) for column in columns)), ())

    def provenance(self, *columns: str) -> dict[str, Any]:
        """Source and row, and what the row itself says about its origin, less images and secrets of URLs."""
        told = {name: _note(self.parsed().get(name)) for name in columns}
        told = {name: value for name, value in told.items() if value is not None}
        return {"source": self.source.path.name, "row": self.number, **told}


def read_source_rows(source: Source, loader: PictureLoader) -> Iterator[SourceRow]:
    """Read a source lazily, in its own order.

    Args:
        loader: of the rows' images.

    Raises:
        SourceError: the source is damaged as a whole; single bad lines become rows that do not parse.
    """
    for number, columns in read_cells(source):
        yield SourceRow(columns, source, number, loader)


def _note(value: Any) -> Any:
    """A cell as it may stand in a shard's JSON; None for an image, or anything else that is long."""
    if isinstance(value, str):
        value = None if is_encoded(value) else redact(value)
    try:
        text = json.dumps(value)
        return json.loads(redact(text)) if len(text) <= _LONGEST_NOTE else None
    except (TypeError, ValueError, RecursionError):
        return None
