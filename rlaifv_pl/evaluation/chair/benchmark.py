"""CHAIR (Rohrbach et al. 2018, "Object Hallucination in Image Captioning"): a detailed description of each image.

CHAIRi is the share of mentions that are wrong, each mention counting; CHAIRs the share of captions with a wrong
mention; Recall the share of the objects that are there and are mentioned.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rlaifv_pl.evaluation.benchmark import Benchmark, Item
from rlaifv_pl.evaluation.benchmark_files import FileRow, number_or_text, read_file_rows
from rlaifv_pl.evaluation.chair.forms import Variant
from rlaifv_pl.evaluation.chair.ground_truth import Objects, image_key, objects_of
from rlaifv_pl.evaluation.chair.mentions import located, mentions
from rlaifv_pl.evaluation.table_metric import answered, mean, percent

PROMPT = "Please describe this image in detail."


def object_counts(named: Sequence[str], objects: Collection[str]) -> tuple[int, int, int, int]:
    """Return wrong mentions, mentions, objects found, and objects there.

    Args:
        named: class of each mention.
        objects: classes in the image.
    """
    wrong = sum(name not in objects for name in named)
    return wrong, len(named), len(set(named) & set(objects)), len(set(objects))


def chair_row(caption: str, objects: Collection[str], variant: Variant) -> tuple[int, int, int, int, int]:
    """Return wrong mentions, mentions, objects found, objects there, and words.

    >>> chair_row("A dog and two cats near a dog.", {"dog", "car"}, "A")
    (1, 3, 1, 2, 8)
    """
    return *object_counts(mentions(caption, variant), objects), len(caption.split())


def chair_figures(table: Tensor) -> dict[str, float]:
    """Compute CHAIRs, CHAIRi and Recall in per cent, and words a caption, from rows as `chair_row` gives them."""
    rows = table[answered(table)]
    wrong, named, found, there, _ = rows.sum(0).tolist()
    return {
        "CHAIRs": percent((rows[:, 0] > 0).sum(), len(rows)),
        "CHAIRi": percent(wrong, named),
        "Recall": percent(found, there),
        "words": mean(rows[:, 4]),
        "n_mentions": named,
    }


class ChairBenchmark(Benchmark):
    """Captions of images whose objects are known.

    Args:
        objects: classes of COCO in each image.
        variant: how words are brought into the singular, see `forms`.
        images: those to describe, each as often as it stands here; all whose objects are known unless given.
    """

    columns = ("wrong", "mentions", "found", "there", "words")
    key_fields = ("image_id",)
    completion_fields = ("caption",)

    def __init__(self, objects: Objects, variant: Variant, images: Sequence[str] | None = None) -> None:
        self.objects = objects
        self.variant: Variant = variant
        named = list(objects) if images is None else images
        self.items = [Item(key=image, prompt=PROMPT, image=image) for image in named]

    @classmethod
    def of_responses(cls, objects: Objects, variant: Variant, path: Path) -> "ChairBenchmark":
        """Open the benchmark over the images that a file of responses describes.

        Raises:
            BenchmarkError: a row is no response, or is about an image whose objects are not known.
        """
        rows = read_file_rows(path)
        for row in rows:
            objects_of(row, objects)
        return cls(objects, variant, [image_key(row.key("image_id")) for row in rows])

    @property
    def name(self) -> str:
        """`chair_A` or `chair_C`."""
        return f"chair_{self.variant}"

    def row(self, number: int, completion: str) -> tuple[int, ...]:
        """Return the counts of a caption, as `chair_row`."""
        return chair_row(completion, self.objects[self.items[number].key], self.variant)

    def record(self, number: int, completion: str) -> dict[str, Any]:
        """Return objects that are rightly named, hallucinated and missed, and each mention with its place."""
        there, found = self.objects[self.items[number].key], located(completion, self.variant)
        named = list(dict.fromkeys(mention.name for mention in found))
        return {
            "right_objects": [name for name in named if name in there],
            "hallucinated_objects": [name for name in named if name not in there],
            "missed_objects": sorted(there - set(named)),
            "mentions": [mention._asdict() | {"right": mention.name in there} for mention in found],
        }

    def figures(self, table: Tensor) -> dict[str, float]:
        """Compute CHAIR, as `chair_figures`."""
        return chair_figures(table)

    def key_of(self, row: FileRow) -> str:
        """Return the image's identity, however it is written."""
        return image_key(row.key("image_id"))

    def response_row(self, number: int, completion: str) -> dict[str, Any]:
        """Return {image_id, caption}."""
        return {"image_id": number_or_text(self.items[number].key), "caption": completion}
