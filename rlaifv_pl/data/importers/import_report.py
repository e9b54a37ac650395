"""What became of the rows of an import: counted in the manifest, and listed where one was left out."""

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Literal

from rich.console import Console

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.column_names import PROMPTS
from rlaifv_pl.data.importers.formats import FORMATS
from rlaifv_pl.data.importers.images import ImageFindings
from rlaifv_pl.data.importers.messages import simplify
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.sources import bad_row
from rlaifv_pl.data.importers.unread_columns import find_misspelled, prefers_rejected, refuse_context
from rlaifv_pl.data.sample_texts import without_ends
from rlaifv_pl.data.schema import check_sample
from rlaifv_pl.data.shard_writer import ShardWriter
from rlaifv_pl.records import Sample

# Names of the manifest's notes.
ENDS_NOTE = "end_tokens_removed"
"""Samples whose answers ended in an end token already."""
SHARED_NOTE = "shared_images"
"""Images that are links: how many, and the bytes that they would have taken."""
WITH_IMAGES_NOTE = "samples_with_images"
IMAGE_NOTES = {
    "transparent": "transparent_images",
    "scaled": "scaled_images",
    "first_frame": "images_of_several_frames",
}
"""Unusual images, by what is unusual about them."""
FORMATS_NOTE = "formats"
"""Rows by the format that they were read as."""
UNREAD_NOTE = "columns_not_read"
"""Rows by the columns, with something in them, that were not read."""
CONTRADICTED_NOTE = "rejected_scored_higher"
"""Rows whose own scores say that the rejected answer is the better one."""
LONGER_NOTE = "longer_side"
"""Pairs by the side that has more words: a bias here is learned before anything else is."""

DROPPED_NAME = "dropped.jsonl"
MAX_PRINTED_DROPS = 20

OnBad = Literal["skip", "raise"]


@dataclass
class ImportReport:
    """Writes the samples of rows, and counts what becomes of the rows."""

    writer: ShardWriter
    dropped_file: BinaryIO
    on_bad: OnBad
    is_format_named: bool
    """Whether the format was asked for by its name, and with it its column of the prompt."""
    console: Console = field(default_factory=lambda: Console(stderr=True))
    kept: int = 0
    dropped: int = 0
    findings: ImageFindings = field(default_factory=ImageFindings)
    notes: Counter[str] = field(default_factory=Counter)
    """Counts by the name of their note."""
    formats: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    longer: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    """Words of all pairs by side."""

    def import_row(self, row: SourceRow, name: str) -> None:
        """Write the samples of a row, or count and list why it makes none.

        Args:
            row: one row, or several that are read together.
            name: name of its format.

        Raises:
            BadSample: the row is bad, and `on_bad` is `raise`.
        """
        self.formats[name] += 1
        try:
            if row.fault:
                raise row.fault
            samples = FORMATS[name].read(row)
            self._count_columns(row, name)
        except (BadSample, RecursionError) as error:
            self._drop(row, error)
            return
        for sample in samples:
            try:
                self._write(sample)
            except (BadSample, RecursionError) as error:
                self._drop(row, error)

    def add_notes(self) -> None:
        """Put what was counted into the manifest."""
        notes: dict[str, object] = {WITH_IMAGES_NOTE: 0, **self.notes, SHARED_NOTE: self.writer.shared}
        notes |= {UNREAD_NOTE: self.unread, LONGER_NOTE: self.longer}
        for side, words in self.words.items():
            notes[f"{side}_words"] = words / self.longer.total()
        for name, value in notes.items():
            if value or name == WITH_IMAGES_NOTE:
                self.writer.note(name, dict(sorted(value.items())) if isinstance(value, Counter) else value)
        self.writer.note(FORMATS_NOTE, dict(self.formats))

    def _count_columns(self, row: SourceRow, name: str) -> None:
        """Count what the format does not read of a row; refuse the row where that is no small matter."""
        format = FORMATS[name]
        for columns in row.columns["rows"] if format.group else [row.columns]:
            names = format.unread(columns)
            self.unread.update(names)
            refuse_context(
                columns, [name for name in names if not self.is_format_named or name not in PROMPTS]
            )
            self.notes[CONTRADICTED_NOTE] += prefers_rejected(columns)
            if misspelled := find_misspelled(frozenset(names), frozenset(columns)):
                looks = ", ".join(f"{theirs!r} looks like {ours!r}" for theirs, ours in misspelled.items())
                raise bad_row(Reason.UNREAD_COLUMN, f"{looks}: spell it so")

    def _write(self, sample: Sample) -> None:
        check_sample(sample, "")
        ended = without_ends(sample)
        if isinstance(ended.prompt, str):
            raise TypeError("expected a prompt of turns, as the readers of formats make them")
        self.writer.write(replace(ended, prompt=simplify(ended.prompt)))
        self.kept += 1
        self.notes[ENDS_NOTE] += ended is not sample
        self.notes[WITH_IMAGES_NOTE] += bool(sample.images)
        for trait, count in self.findings.count_traits((*sample.images, *sample.rejected_images)).items():
            self.notes[IMAGE_NOTES[trait]] += count
        if ended.chosen is not None and ended.rejected is not None:
            chosen, rejected = len(ended.chosen.split()), len(ended.rejected.split())
            self.words.update(chosen=chosen, rejected=rejected)
            longer = "equal" if chosen == rejected else "chosen" if chosen > rejected else "rejected"
            self.longer[longer] += 1

    def _drop(self, row: SourceRow, error: BadSample | RecursionError) -> None:
        """Count a row that cannot be used, list it with its remedy, and print it if it is among the first."""
        fault = row.locate(error)
        if self.on_bad == "raise":
            raise fault
        self.writer.drop(fault.reason)
        self.dropped += 1
        record = {
            "file": str(row.source.path),
            "row": row.number,
            "reason": fault.reason,
            "detail": fault.detail,
            "remedy": fault.reason.remedy,
        }
        self.dropped_file.write(json.dumps(record).encode() + b"\n")
        if self.dropped <= MAX_PRINTED_DROPS:
            self.console.print(f"dropped {fault}", markup=False, highlight=False)
        elif self.dropped == MAX_PRINTED_DROPS + 1:
            self.console.print(f"further drops are only listed in {self.writer.directory / DROPPED_NAME}")
