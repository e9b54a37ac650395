"""Rows that an import left out, one by one."""

import json
from collections.abc import Iterator
from pathlib import Path

from rlaifv_pl.data.importers.import_report import DROPPED_NAME
from rlaifv_pl.data.manifest import ManifestError
from rlaifv_pl.data.remote_directory import is_url

FIELDS = ("file", "row", "reason", "detail", "remedy")


def dropped_rows(directory: str | Path, number: int) -> Iterator[dict[str, str | int]]:
    """Yield the rows of `dropped.jsonl` beside the shards; none if there is no such file.

    Raises:
        ManifestError: the file is damaged.
    """
    path = Path(directory) / DROPPED_NAME
    if is_url(str(directory)) or not path.is_file():
        return
    for line_number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
            yield {name: str(row[name]) for name in FIELDS} | {"directory": number}
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(
                f"{path}, line {line_number}: no row of an import ({error!r}). Import again, or delete the file."
            ) from error
