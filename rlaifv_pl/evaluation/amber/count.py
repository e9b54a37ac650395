"""Counts of what a description gets right and wrong, by AMBER's rules."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rlaifv_pl.evaluation.amber.similarity import SAME, Similarity


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """The nouns that AMBER knows."""

    related: Mapping[str, Sequence[str]]
    """Word to the words that may stand for it."""
    neutral: Collection[str]
    """Words that are right of any image."""

    @property
    def words(self) -> set[str]:
        """All words."""
        return {*self.related, *(other for others in self.related.values() for other in others)}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTruth:
    """Objects that an image shows, and those that a model may imagine there."""

    truth: Sequence[str]
    imagined: Sequence[str]


def describe_row(
    nouns: Sequence[str], shown: ImageTruth, vocabulary: Vocabulary, similarity: Similarity
) -> tuple[int, int, int, int, int, int]:
    """Count wrong nouns, nouns, things of the truth that are covered, things of the truth, imagined things that are
    named, and imagined things.

    Args:
        nouns: of the description that are in the vocabulary, in order, as often as they stand there.
    """
    truth, imagined = (_named(words, vocabulary) for words in (shown.truth, shown.imagined))
    covered: set[int] = set()
    named: set[int] = set()
    wrong = 0
    for noun in nouns:
        if noun in vocabulary.neutral:
            continue
        if (exact := _first(truth, noun, None)) is not None:
            covered.add(exact)
            continue
        # A noun may mark two imagined things: itself, and one before it that is like it.
        matches = (_first(imagined, noun, None), _first(imagined, noun, similarity))
        named |= {number for number in matches if number is not None}
        if (alike := _first(truth, noun, similarity)) is not None:
            covered.add(alike)
        else:
            wrong += 1
    return wrong, len(nouns), len(covered), len(shown.truth), len(named), len(shown.imagined)


def _named(words: Sequence[str], vocabulary: Vocabulary) -> list[tuple[str, int]]:
    """Return words that stand for each word, with its number: first those related to any, then the words themselves."""
    related = [
        (other, number) for number, word in enumerate(words) for other in vocabulary.related.get(word, ())
    ]
    return related + [(word, number) for number, word in enumerate(words)]


def _first(named: Sequence[tuple[str, int]], noun: str, similarity: Similarity | None) -> int | None:
    """Return the number of the first word that the noun is, or is like."""
    for word, number in named:
        if noun == word if similarity is None else similarity(noun, word) > SAME:
            return number
    return None
