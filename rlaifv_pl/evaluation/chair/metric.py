"""CHAIR as counts and as a metric (Rohrbach et al. 2018, "Object Hallucination in Image Captioning").

CHAIRi is the share of mentions that are wrong, each mention counting; CHAIRs the share of captions with a wrong
mention; Recall the share of the objects that are there and are mentioned.
"""

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from rlaifv_pl.evaluation.chair.forms import Variant
from rlaifv_pl.evaluation.chair.mentions import located, mentions
from rlaifv_pl.evaluation.table_metric import TableMetric, answered, percent


def chair_row(caption: str, objects: Collection[str], variant: Variant) -> tuple[int, int, int, int, int]:
    """Wrong mentions, mentions, objects found, objects there, words.

    >>> chair_row("A dog and two cats near a dog.", {"dog", "car"}, "A")
    (1, 3, 1, 2, 8)
    """
    named = mentions(caption, variant)
    wrong = sum(name not in objects for name in named)
    found = len(set(named) & set(objects))
    return wrong, len(named), found, len(set(objects)), len(caption.split())


def chair_figures(table: Tensor) -> dict[str, float]:
    """CHAIRs, CHAIRi and Recall in per cent, and words a caption, of rows as `chair_row` gives them."""
    rows = table[answered(table)]
    wrong, named, found, there, words = rows.sum(0).tolist()
    return {
        "CHAIRs": percent((rows[:, 0] > 0).sum(), len(rows)),
        "CHAIRi": percent(wrong, named),
        "Recall": percent(found, there),
        "words": percent(words, len(rows)) / 100,
        "n_mentions": named,
    }


class Chair(TableMetric):
    """CHAIR of captions of images whose objects are known.

    Args:
        objects: classes of COCO in each image, by its number.
        variant: how words are brought into the singular, see `forms`.
        settings: of `torchmetrics.Metric`.
    """

    columns = ("wrong", "mentions", "found", "there", "words")

    def __init__(self, objects: Sequence[Collection[str]], variant: Variant, **settings: Any) -> None:
        super().__init__(len(objects), **settings)
        self.objects = [frozenset(there) for there in objects]
        self.variant = variant

    @property
    def name(self) -> str:
        """`chair_A` or `chair_C`."""
        return f"chair_{self.variant}"

    def row(self, number: int, completion: str) -> tuple[int, ...]:
        """As `chair_row`."""
        return chair_row(completion, self.objects[number], self.variant)

    def record(self, number: int, completion: str) -> dict[str, Any]:
        """Objects that are rightly named, hallucinated and missed, and each mention with its place in the caption."""
        there, found = self.objects[number], located(completion, self.variant)
        named = [mention.name for mention in found]
        return {
            "right_objects": [name for name in dict.fromkeys(named) if name in there],
            "hallucinated_objects": [name for name in dict.fromkeys(named) if name not in there],
            "missed_objects": sorted(there - set(named)),
            "mentions": [mention._asdict() | {"right": mention.name in there} for mention in found],
        }

    def figures(self, table: Tensor) -> dict[str, float]:
        """As `chair_figures`."""
        return chair_figures(table)
