"""Similarity of two words. AMBER asks the vectors of spaCy's `en_core_web_lg` and takes 0.8 for the same; they are
382 MB and change with their version. The words are a closed vocabulary, so whoever has them can write their answers in
a file once, and measure without them ever after."""

from collections.abc import Callable
from pathlib import Path

from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, read_text

Similarity = Callable[[str, str], float]
"""Cosine of two words."""

SAME = 0.8
"""Cosine above which two words count as one."""


def no_similarity(one: str, other: str) -> float:
    """Return 1 for equal words, else 0."""
    return float(one == other)


class SimilarityTable:
    """Similarities that were looked up before; 0 for two words that are not there.

    Args:
        pairs: by two words, in either order.
    """

    def __init__(self, pairs: dict[tuple[str, str], float]) -> None:
        self.pairs = {frozenset(words): cosine for words, cosine in pairs.items()}

    @classmethod
    def load(cls, path: Path) -> "SimilarityTable":
        """Read lines of two words and their cosine, between tabs.

        Raises:
            BenchmarkError: a line is something else.
        """
        pairs = {}
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            try:
                one, other, cosine = line.split("\t")
                pairs[one, other] = float(cosine)
            except ValueError as error:
                raise BenchmarkError(
                    f"{path}, line {number}: expected two words and a number between tabs, got {line!r:.80}"
                ) from error
        return cls(pairs)

    def __call__(self, one: str, other: str) -> float:
        return 1.0 if one == other else self.pairs.get(frozenset((one, other)), 0.0)
