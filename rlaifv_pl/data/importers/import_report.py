"""What became of the rows of an import: counted in the manifest, and listed where one was left out."""

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Literal

from rich.console import Console

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers.column_names import PROMPTS
from rlaifv_pl.data.importers.formats import Format
from rlaifv_pl.data.importers.images import PictureFindings
from rlaifv_pl.data.importers.messages import simplify
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.unread_columns import misspelt, refuse_meaning, says_otherwise, unread
from rlaifv_pl.data.sample_texts import without_ends
from rlaifv_pl.data.schema import check_sample
from rlaifv_pl.data.shard_writer import ShardWriter
from rlaifv_pl.records import Sample

ENDS_NOTE = "end_tokens_removed"
"""Name of the manifest's note on samples whose answers ended in an end token already."""
SHARED_NOTE = "shared_images"
"""Name of the manifest's note on images that are links: how many, and the bytes that they would have taken."""
WITH_IMAGES_NOTE = "samples_with_images"
IMAGE_NOTES = {
    "transparent": "transparent_images",
    "scaled": "scaled_images",
    "first_frame": "images_of_several_frames",
}
"""Names of the manifest's notes on unusual images, by what is unusual about them."""
FORMATS_NOTE = "formats"
"""Rows by the format that they were read as."""
UNREAD_NOTE = "columns_not_read"
"""Rows by the columns, with something in them, that were not read."""
CONTRADICTED_NOTE = "rejected_scored_higher"
"""Rows whose own scores say that the rejected answer is the better one."""
DROPPED_NAME = "dropped.jsonl"
MAX_PRINTED_DROPS = 20

OnBad = Literal["skip", "raise"]


@dataclass
class Account:
    """What became of the rows."""

    writer: ShardWriter
    file: BinaryIO
    on_bad: OnBad
    console: Console = field(default_factory=lambda: Console(stderr=True))
    kept: int = 0
    dropped: int = 0
    ends: int = 0
    """Samples whose answers ended in an end token."""
    words: Counter[str] = field(default_factory=Counter)
    longer: Counter[str] = field(default_factory=Counter)
    """Pairs by which side has more words: a bias here is learned before anything else is."""
    with_images: int = 0
    unusual: Counter[str] = field(default_factory=Counter)
    """Stored images by what is unusual about them."""
    findings: PictureFindings = field(default_factory=PictureFindings)
    formats: Counter[str] = field(default_factory=Counter)
    """Rows by the format that they were read as."""
    unread: Counter[str] = field(default_factory=Counter)
    """Rows by the columns with something in them that were not read."""
    contradicted: int = 0
    """Rows whose own scores say that the rejected answer is the better one."""

    def leave(self, row: SourceRow, format: Format, is_named: bool) -> None:
        """Count what a row's format does not read of it.

        Args:
            row: one that could be read.
            format: of the row.
            is_named: whether the format was asked for by its name, and with it its column of the prompt.

        Raises:
            BadSample: `unread_column` where that is no small matter.
        """
        told = row.parsed()
        for columns in told["rows"] if format.group else [told]:
            names = [*unread(columns, format.reads(columns))]
            self.unread.update(names)
            refuse_meaning(
                columns, [name for name in names if not is_named or name not in PROMPTS], row.where
            )
            self.contradicted += says_otherwise(columns)
            if near := misspelt(frozenset(names), frozenset(columns)):
                looks = ", ".join(f"{theirs!r} looks like {ours!r}" for theirs, ours in near.items())
                raise BadSample(Reason.UNREAD_COLUMN, row.where, f"{looks}: spell it so")

    def take(self, row: SourceRow, sample: Sample) -> None:
        """Write a sample of a row, or count what is wrong with it."""
        try:
            check_sample(sample, row.where)
            ended = without_ends(sample)
            turns: Any = ended.prompt  # As the readers make them, never text.
            self.writer.write(replace(ended, prompt=simplify(turns)))
            self.kept += 1
            self.ends += ended is not sample
            self.with_images += bool(sample.images)
            self.unusual += self.findings.counts((*sample.images, *sample.rejected_images))
            self._measure(ended)
        except (BadSample, RecursionError) as error:
            self.drop(row, error)

    def note(self) -> None:
        """Put what was measured into the manifest."""
        self.writer.note(WITH_IMAGES_NOTE, self.with_images)
        for trait, count in sorted(self.unusual.items()):
            self.writer.note(IMAGE_NOTES[trait], count)
        if self.ends:
            self.writer.note(ENDS_NOTE, self.ends)
        if shared := self.writer.shared:
            self.writer.note(SHARED_NOTE, shared)
        self.writer.note(FORMATS_NOTE, dict(self.formats))
        if self.unread:
            self.writer.note(UNREAD_NOTE, dict(sorted(self.unread.items())))
        if self.contradicted:
            self.writer.note(CONTRADICTED_NOTE, self.contradicted)
        if pairs := self.longer.total():
            self.writer.note("longer_side", dict(sorted(self.longer.items())))
            for side, words in sorted(self.words.items()):
                self.writer.note(f"{side}_words", words / pairs)

    def _measure(self, sample: Sample) -> None:
        if sample.chosen is None or sample.rejected is None:
            return
        chosen, rejected = len(sample.chosen.split()), len(sample.rejected.split())
        self.words.update(chosen=chosen, rejected=rejected)
        self.longer["equal" if chosen == rejected else "chosen" if chosen > rejected else "rejected"] += 1

    def drop(self, row: SourceRow, error: BadSample | RecursionError) -> None:
        """Count a row that cannot be used, list it with its remedy, and print it if it is among the first."""
        fault = _of_row(error, row)
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
        self.file.write(json.dumps(record).encode() + b"\n")
        if self.dropped <= MAX_PRINTED_DROPS:
            self.console.print(f"dropped {fault}", markup=False, highlight=False)
        elif self.dropped == MAX_PRINTED_DROPS + 1:
            self.console.print(f"further drops are only listed in {self.writer.directory / DROPPED_NAME}")


def _of_row(error: BadSample | RecursionError, row: SourceRow) -> BadSample:
    if isinstance(error, RecursionError):
        return BadSample(Reason.INVALID_JSON, row.where, "the row is nested too deeply")
    # What the writer refuses it names by key; a user looks for file and row.
    return BadSample(error.reason, row.where, error.detail)
