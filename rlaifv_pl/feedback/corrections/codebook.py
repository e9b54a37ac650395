"""The codebook: which visual mistakes there are, in words that a model is shown and ids that are counted.

The idea is nSFT's (Zhu et al., CVPR 2025): with such a list before it, a model writes about things in
the picture and not about wording. The list itself is our own; another is one YAML file away.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.errors import UserError

LEVELS = ("instance", "image")
SHIPPED = Path(__file__).with_name("codebook.yaml")


class CodebookError(UserError, ValueError):
    """A file that is no codebook; the message names file, entry and remedy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorType:
    """One kind of mistake."""

    id: str
    """What it is counted by."""
    level: str
    """`instance`: about one thing. `image`: about the whole picture or several things together."""
    description: str
    example: str
    omission: bool = False
    """Something is left unsaid, so that nothing in the wrong answer can be quoted."""


@dataclass(frozen=True)
class Codebook:
    """Error types in the order in which a model reads them."""

    types: tuple[ErrorType, ...]

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Codebook":
        """Read a YAML list of error types, by default the one that comes with the package.

        Raises:
            CodebookError: the file is missing or no such list; an entry lacks a field, has an unknown
                one or one of the wrong type, is of no known level, or repeats an id.
        """
        path = SHIPPED if path is None else Path(path)
        types: dict[str, ErrorType] = {}
        for number, entry in enumerate(_entries(path), start=1):
            where = f"{path}, entry {number}"
            found = _error_type(entry, where)
            if found.id in types:
                raise CodebookError(
                    f"{where}: the id {found.id!r} is taken by an entry above. Give each its own."
                )
            types[found.id] = found
        return cls(tuple(types.values()))

    @cached_property
    def by_id(self) -> Mapping[str, ErrorType]:
        """The error types by their ids."""
        return {one.id: one for one in self.types}

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the contents, in hex; comments and layout of the file do not count."""
        return hash_json([asdict(one) for one in self.types])

    def text(self) -> str:
        """The list as a model reads it, a line for each type under the heading of its level."""
        return "\n".join(
            line
            for level in LEVELS
            if (lines := [_line(one) for one in self.types if one.level == level])
            for line in (f"Level {level}:", *lines)
        )


def _line(one: ErrorType) -> str:
    return f"- {one.id}: {one.description} For example: {one.example}"


def _entries(path: Path) -> list[Any]:
    try:
        document = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise CodebookError(f"{path} cannot be read as YAML: {error}") from None
    if not isinstance(document, list) or not document:
        raise CodebookError(f"{path} holds no list. Write error types as the shipped {SHIPPED} does.")
    return document


def _error_type(entry: Any, where: str) -> ErrorType:
    known = {one.name: one for one in fields(ErrorType)}
    needed = {name for name, one in known.items() if one.default is MISSING}
    given = set(entry) if isinstance(entry, dict) else set()
    if not needed <= given <= known.keys():
        wrong = [f"lacks {name}" for name in sorted(needed - given)]
        wrong += [f"has the unknown field {name!r}" for name in sorted(map(str, given - known.keys()))]
        raise CodebookError(f"{where} {' and '.join(wrong)}. An error type has {', '.join(known)}.")
    for name in needed:
        if not isinstance(entry[name], str) or not entry[name].strip():
            raise CodebookError(f"{where}: {name} is {entry[name]!r}. Give it a text.")
    if entry["level"] not in LEVELS:
        raise CodebookError(f"{where}: the level is {entry['level']!r}. Use one of {', '.join(LEVELS)}.")
    if not isinstance(entry.get("omission", False), bool):
        raise CodebookError(f"{where}: omission is {entry['omission']!r}. Write true or false.")
    return ErrorType(**entry)
