"""Objects that an image shows: those that COCO's annotators outlined, and those that its captions mention."""

import difflib
import re
from collections import defaultdict
from pathlib import Path

from rlaifv_pl.coco import PLAIN
from rlaifv_pl.evaluation.benchmark_files import (
    BenchmarkError,
    FileRow,
    as_row,
    inner_rows,
    object_names,
    read_json,
)
from rlaifv_pl.evaluation.chair.forms import Variant
from rlaifv_pl.evaluation.chair.mentions import mentions

Objects = dict[str, frozenset[str]]
"""Classes by the image's identity."""

_CLASSES = frozenset(PLAIN)
_NUMBER = re.compile(r"(?:COCO_[a-z]+\d+_)?0*(\d+)(?:\.\w+)?")


def image_key(name: str | int) -> str:
    """Return the identity of an image of COCO, however it is written.

    >>> image_key("COCO_val2014_000000000042.jpg"), image_key("000000000042.jpg"), image_key(42), image_key("a.png")
    ('42', '42', '42', 'a.png')
    """
    match = _NUMBER.fullmatch(str(name))
    return match[1] if match else str(name)


def read_objects(path: Path, variant: Variant) -> Objects:
    """Read objects from a file of image to classes, or from a directory of COCO's annotation files.

    Raises:
        BenchmarkError: a file is missing or cannot be used.
    """
    return coco_objects(path, variant) if path.is_dir() else _classes_by_image(path)


def objects_of(row: FileRow, objects: Objects) -> frozenset[str]:
    """Return the classes in the image of a row's `image_id`.

    Raises:
        BenchmarkError: the image's objects are not known.
    """
    if (key := image_key(row.key("image_id"))) not in objects:
        raise row.error(
            f"field 'image_id': expected an image of the ground truth, got {key!r}. Remove the row, or give the ground "
            "truth that has the image"
        )
    return objects[key]


def coco_objects(directory: Path, variant: Variant) -> Objects:
    """Read objects from the official `instances_*.json` and `captions_*.json`, joined as by CHAIR's authors.

    Args:
        variant: how the captions' words are read.

    Raises:
        BenchmarkError: a file is missing or cannot be used.
    """
    there: defaultdict[str, set[str]] = defaultdict(set)
    for path in _files(directory, "instances_*.json"):
        content = as_row(read_json(path, dict), str(path))
        names = {row.get(int, "id"): row.get(str, "name") for row in inner_rows(content, "categories")}
        for row in inner_rows(content, "annotations"):
            number = row.get(int, "category_id")
            if number not in names:
                raise row.error(f"field 'category_id': expected one of the file's categories, got {number}")
            there[row.key("image_id")].add(_checked(names[number], row.where))
    for path in _files(directory, "captions_*.json"):
        content = as_row(read_json(path, dict), str(path))
        for row in inner_rows(content, "annotations"):
            there[row.key("image_id")].update(mentions(row.get(str, "caption"), variant))
    return {name: frozenset(found) for name, found in there.items()}


def _files(directory: Path, pattern: str) -> list[Path]:
    if found := sorted(directory.glob(pattern)):
        return found
    raise BenchmarkError(f"{directory}: expected COCO's annotations there, got no {pattern}")


def _classes_by_image(path: Path) -> Objects:
    table: Objects = {}
    for name, there in read_json(path, dict).items():
        where = f"{path}, image {name!r}"
        if (key := image_key(name)) in table:
            raise BenchmarkError(f"{where}: expected each image once, got it under another name before")
        table[key] = frozenset(_checked(one, where) for one in object_names(there, where))
    return table


def _checked(name: str, where: str) -> str:
    if name in _CLASSES:
        return name
    near = difflib.get_close_matches(name, PLAIN, n=1)
    remedy = f" (did you mean {near[0]!r}?)" if near else ""
    raise BenchmarkError(f"{where}: expected one of COCO's 80 classes, got {name!r}{remedy}")
