"""Columns as a source names them, and as the formats do: renamed by `keys`, and a prompt for rows without one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlaifv_pl.data.importers.cells import unpack
from rlaifv_pl.data.importers.column_names import PROMPTS
from rlaifv_pl.data.importers.rows import SourceRow
from rlaifv_pl.data.importers.samples import holds_any, is_asked
from rlaifv_pl.data.importers.sources import SourceError
from rlaifv_pl.data.sample_json import shorten

_SPELLINGS = {"reject": "rejected"}
"""Names that some write for one of ours: HA-DPO and SeVa."""
_ASKED = (
    *PROMPTS, "raw_question", "context", "conversations", "messages", "text", "chosen_messages", "chosen_conversations",
)  # fmt: skip
"""Columns that hold a prompt, alone or with its answers."""


@dataclass(frozen=True)
class Columns:
    """How the columns of rows become those that formats know.

    Args:
        keys: names of ours, and of the source's column for each.
        prompt: of rows that have none.
        ignored: columns of the source that are left behind.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    prompt: str | None = None
    ignored: Sequence[str] = ()

    @classmethod
    def parse(cls, keys: str | None, prompt: str | None, ignore: str | None = None) -> "Columns":
        """Out of options, `keys` as `prompt=query,chosen=good`, `ignore` as `margin,tools`.

        Raises:
            SourceError: they are not written like that.
        """
        pairs = [part.partition("=") for part in keys.split(",")] if keys is not None else []
        named = {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
        is_whole = all(ours and theirs for ours, theirs in named.items())
        if not is_whole or {len(named), len(set(named.values()))} != {len(pairs)}:
            raise SourceError(
                f"--keys: expected each name once with its column, as in prompt=query,chosen=good, got {shorten(keys)}"
            )
        ignored = [name.strip() for name in ignore.split(",")] if ignore is not None else []
        return cls(named, prompt, ignored)

    def check(self, rows: Sequence[SourceRow]) -> None:
        """Refuse a key or an ignored column that none of a source's first rows has.

        Raises:
            SourceError: naming it.
        """
        held = {name.strip() for row in rows if isinstance(row.columns, Mapping) for name in row.columns}
        for option, names in (("--keys", self.keys.values()), ("--ignore", self.ignored)):
            if missing := sorted({*names} - held):
                raise SourceError(
                    f"{rows[0].source.path}: {option} names the columns {missing}, but its first rows have "
                    f"{shorten(sorted(held), length=200)}. Name columns of the source."
                )

    def renamed(self, row: SourceRow) -> SourceRow:
        """A row with its columns under the names that formats know; what is no object stays as it is."""
        return replace(row, columns=self._apply(row.columns)) if isinstance(row.columns, Mapping) else row

    def _apply(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        told = {name.strip(): value for name, value in columns.items()}
        told = {name: value for name, value in told.items() if name not in self.ignored}
        spelt = {ours: theirs for theirs, ours in _SPELLINGS.items() if told.get(ours) is None}
        names = {theirs: ours for ours, theirs in {**spelt, **self.keys}.items()}
        # A column that another one replaces is kept under a name that no format knows, to be counted as not read.
        names = {name: f"{name} (replaced)" for name in self.keys if name in told} | names
        renamed = {names.get(name, name): value for name, value in told.items()}
        renamed = {name: unpack(name, value) for name, value in renamed.items()}
        return renamed if self.prompt is None or _is_asked(renamed) else {**renamed, "prompt": self.prompt}


def _is_asked(columns: Mapping[str, Any]) -> bool:
    """Whether a row has a prompt, be it in a dialogue that ends in an answer."""
    chosen = columns.get("chosen")
    return holds_any(columns, *_ASKED) or (isinstance(chosen, list) and is_asked(next(iter(chosen), None)))
