"""The codebook: kinds of visual mistakes, in words that a model reads and ids that are counted.

The idea is nSFT's (Zhu et al., CVPR 2025): with such a list before it, a model writes about objects in the image and
not about phrasing. The list itself is our own; another one is a YAML file.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args

from omegaconf import OmegaConf
from pydantic import BaseModel, Field, ValidationError
from yaml import YAMLError

from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.errors import UserError

Level = Literal["instance", "image"]
Text = Annotated[str, Field(pattern=r"\S")]
SHIPPED = Path(__file__).with_name("codebook.yaml")


class CodebookError(UserError, ValueError):
    """A file that is no codebook; the message names file, entry and remedy."""


class ErrorType(BaseModel, frozen=True, strict=True, extra="forbid"):
    """One kind of mistake."""

    id: Text
    level: Level
    """`instance`: about one object. `image`: about the whole image, or several objects together."""
    description: Text
    example: Text
    omission: bool = False
    """Whether something is left unsaid, so that nothing in the wrong answer can be quoted."""


class Codebook(BaseModel, frozen=True):
    """Error types in the order in which a model reads them."""

    types: tuple[ErrorType, ...]

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Codebook":
        """Read a YAML list of error types, by default the one that comes with the package.

        Raises:
            CodebookError: the file is missing or no such list; an entry lacks a field, has an unknown one or a value
                that is not allowed, or repeats an id.
        """
        path = SHIPPED if path is None else Path(path)
        try:
            entries = OmegaConf.to_container(OmegaConf.load(path))
        except (OSError, YAMLError, UnicodeDecodeError) as error:
            raise CodebookError(f"{path} cannot be read as YAML: {error}") from None
        if not isinstance(entries, list) or not entries:
            raise CodebookError(f"{path} holds no list. Write error types as the shipped {SHIPPED} does.")
        codebook = cls(
            types=tuple(_error_type(entry, f"{path}, entry {n}") for n, entry in enumerate(entries, 1))
        )
        ids = [one.id for one in codebook.types]
        for number, name in enumerate(ids, start=1):
            if name in ids[: number - 1]:
                raise CodebookError(
                    f"{path}, entry {number}: the id {name!r} is taken by an entry above. Give each its own."
                )
        return codebook

    @cached_property
    def by_id(self) -> dict[str, ErrorType]:
        """Error types by id."""
        return {one.id: one for one in self.types}

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the contents, in hex; comments and layout of the file do not count."""
        return hash_json([one.model_dump() for one in self.types])

    def text(self) -> str:
        """Return the list as a model reads it, a line for each type under the heading of its level."""
        lines = []
        for level in get_args(Level):
            of_level = [one for one in self.types if one.level == level]
            lines += [f"Level {level}:"] if of_level else []
            lines += [f"- {one.id}: {one.description} For example: {one.example}" for one in of_level]
        return "\n".join(lines)


def _error_type(entry: object, where: str) -> ErrorType:
    try:
        return ErrorType.model_validate(entry)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, one['loc'])) or 'entry'}: {one['msg']}" for one in error.errors()]
        raise CodebookError(
            f"{where} is no error type ({'; '.join(faults)}). An error type has {', '.join(ErrorType.model_fields)}."
        ) from None
