"""CHAIR as a benchmark: a detailed description of each image."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.evaluation.benchmark import Item
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, read_file_rows
from rlaifv_pl.evaluation.chair.forms import Variant
from rlaifv_pl.evaluation.chair.ground_truth import Objects, image_key
from rlaifv_pl.evaluation.chair.metric import Chair

PROMPT = "Please describe this image in detail."


class ChairBenchmark:
    """Captions of images whose objects are known.

    Args:
        objects: classes in each image.
        variant: of the metric.
        images: those to describe, each as often as it stands here; all whose objects are known unless given.
    """

    def __init__(self, objects: Objects, variant: Variant, images: Sequence[str] | None = None) -> None:
        self.objects = objects
        self.variant: Variant = variant
        named = list(objects) if images is None else images
        self.items = [Item(key=image, prompt=PROMPT, image=image) for image in named]

    @classmethod
    def of_responses(cls, objects: Objects, variant: Variant, path: Path) -> "ChairBenchmark":
        """Over the images that a file of responses describes.

        Raises:
            BenchmarkError: a row is no response, or of an image whose objects are not known.
        """
        rows = read_file_rows(path)
        for row in rows:
            if _image(row) not in objects:
                raise row.error(
                    f"field 'image_id': expected an image of the ground truth, got {_image(row)!r}"
                )
        return cls(objects, variant, [_image(row) for row in rows])

    def metric(self) -> Chair:
        """As `Benchmark.metric`."""
        return Chair([self.objects[item.image] for item in self.items], self.variant)

    def read(self, path: Path) -> dict[int, str]:
        """As `Benchmark.read`, from JSON lines of image_id and caption; each image's first row is its first item."""
        places: dict[str, list[int]] = {}
        for number, item in reversed(list(enumerate(self.items))):
            places.setdefault(item.key, []).append(number)
        found = {}
        for row in read_file_rows(path):
            if not places.get(_image(row)):
                raise row.error(f"expected an image that is still to be described, got {_image(row)!r}")
            found[places[_image(row)].pop()] = row.get(str, "caption")
        return found

    def write(self, path: Path, completions: Mapping[int, str]) -> None:
        """As `Benchmark.write`."""
        with atomic_file(path) as file:
            for number, text in sorted(completions.items()):
                key = self.items[number].key
                row = {"image_id": int(key) if key.isdecimal() else key, "caption": text}
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def _image(row: FileRow) -> str:
    try:
        return image_key(row.key("image_id"))
    except BenchmarkError as error:
        raise BenchmarkError(f"{error}; each row is {{image_id, caption}}") from error
