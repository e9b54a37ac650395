"""AMBER from its authors' directory `data`."""

import json
from collections.abc import Mapping
from pathlib import Path

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.evaluation.amber.count import ImageTruth, Vocabulary
from rlaifv_pl.evaluation.amber.metric import KINDS, Amber, Asked, Question
from rlaifv_pl.evaluation.amber.nouns import Nouns
from rlaifv_pl.evaluation.amber.similarity import Similarity
from rlaifv_pl.evaluation.benchmark import Item, check_keys, match
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError, FileRow, read_file_rows, read_json, read_text
from rlaifv_pl.evaluation.yes_no import LABELS

_DESCRIPTION = "generative"


class AmberBenchmark:
    """Descriptions of AMBER's images and questions about them.

    Args:
        directory: with annotations.json, relation.json, safe_words.txt and query/query_all.json.
        similarity: see `Amber`.
        nouns: see `Amber`.

    Raises:
        BenchmarkError: a file is missing or not as it must be.
    """

    def __init__(
        self, directory: Path, similarity: Similarity | None = None, nouns: Nouns | None = None
    ) -> None:
        self.similarity = similarity
        self.nouns = nouns
        self.vocabulary = _vocabulary(directory)
        queries = read_file_rows(directory / "query" / "query_all.json")
        self.items = [
            Item(key=row.key("id"), prompt=row.get(str, "query"), image=row.get(str, "image"))
            for row in queries
        ]
        check_keys(self.items, str(directory))
        annotations = {row.key("id"): row for row in read_file_rows(directory / "annotations.json")}
        if missing := [item.key for item in self.items if item.key not in annotations]:
            raise BenchmarkError(
                f"{directory / 'annotations.json'}: expected a row for each query, got none for {missing[0]}"
            )
        self.asked = [_asked(annotations[item.key]) for item in self.items]

    def metric(self) -> Amber:
        """As `Benchmark.metric`."""
        return Amber(self.asked, self.vocabulary, self.similarity, self.nouns)

    def read(self, path: Path) -> dict[int, str]:
        """As `Benchmark.read`, from a JSON list of {id, response}, of all queries or of some."""
        return match(self.items, read_file_rows(path), lambda row: row.key("id"), "response")

    def write(self, path: Path, completions: Mapping[int, str]) -> None:
        """As `Benchmark.write`."""
        rows = [
            {"id": int(self.items[number].key), "response": text}
            for number, text in sorted(completions.items())
        ]
        with atomic_file(path) as file:
            file.write(json.dumps(rows, indent=1, ensure_ascii=False).encode())


def _vocabulary(directory: Path) -> Vocabulary:
    path = directory / "relation.json"
    related = read_json(path, dict)
    for word, others in related.items():
        if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
            raise BenchmarkError(f"{path}, {word!r}: expected a list of words, got {others!r:.60}")
    neutral = read_text(directory / "safe_words.txt").split("\n")
    return Vocabulary(related=related, neutral=frozenset(neutral) - {""})


def _asked(row: FileRow) -> Asked:
    kind = row.get(str, "type")
    if kind == _DESCRIPTION:
        return ImageTruth(truth=_words(row, "truth"), imagined=_words(row, "hallu"))
    if kind not in KINDS:
        raise row.error(f"field 'type': expected {_DESCRIPTION!r} or one of {sorted(KINDS)}, got {kind!r}")
    return Question(kind=KINDS[kind], label=row.one_of(LABELS, "truth"))


def _words(row: FileRow, name: str) -> list[str]:
    words = row.get(list, name)
    if not all(isinstance(word, str) for word in words):
        raise row.error(f"field {name!r}: expected words, got {words!r:.60}")
    return words
