"""Terms into one objective: which lists make sense, and what a pair costs under one that does."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from rlaifv_pl.objectives.losses import PairLogps
from rlaifv_pl.objectives.terms import Term


class ComposedLoss(NamedTuple):
    """What a preference step minimises, and what it logs."""

    loss: Tensor
    """`(B,)`, the weighted sum of the terms; the caller takes the mean."""
    parts: dict[str, Tensor]
    """`(B,)` by the term's name, before its weight and without gradient."""


def compose(terms: Iterable[Term], policy: PairLogps, reference: PairLogps | None) -> ComposedLoss:
    """The weighted sum of the terms on each pair.

    >>> import torch
    >>> from rlaifv_pl.objectives.terms import NLL, Sigmoid
    >>> start = PairLogps(*torch.tensor([[-20.0], [-24.0], [10.0], [8.0]]))
    >>> compose([Sigmoid(), NLL(weight=0.25)], start, start)
    ComposedLoss(loss=tensor([1.1931]), parts={'sigmoid': tensor([0.6931]), 'nll': tensor([2.])})
    """
    values = {term: term(policy, reference) for term in terms}
    loss = sum(term.weight * value for term, value in values.items())
    return ComposedLoss(loss, {term.name: value.detach() for term, value in values.items()})


def check_terms(terms: Sequence[Term], has_reference: bool) -> None:
    """Refuse a list of terms that cannot be meant, before a model is loaded for it.

    Raises:
        ValueError: the list is empty, trains nothing, names a class twice, lacks the reference that a
            term compares with, or has one that no term looks at.
    """
    if not terms:
        raise ValueError("`losses` is empty: give at least one term, for instance `class_path: Sigmoid`.")
    if all(term.weight == 0 for term in terms):
        raise ValueError(
            f"Every term of `losses` has weight 0 ({_names(terms)}), so nothing would be trained. "
            "Give one of them a positive weight."
        )
    classes = Counter(type(term).__name__ for term in terms)
    if repeated := [name for name, count in classes.items() if count > 1]:
        raise ValueError(
            f"`losses` names {', '.join(repeated)} more than once, and both parts would be logged under "
            "one name. Merge them into one term that has the sum of the weights."
        )
    comparing = [term for term in terms if term.needs_reference]
    if comparing and not has_reference:
        raise ValueError(
            f"{_names(comparing)} in `losses` compares with a reference, but `reference` is none. "
            "Configure a reference, or take a term without one: SimPO, CPO, ORPO."
        )
    if has_reference and not comparing:
        raise ValueError(
            f"No term of `losses` ({_names(terms)}) looks at the reference, which would be computed for "
            "nothing. Set `reference: none`, or add a term that needs it, such as Sigmoid."
        )


def _names(terms: Iterable[Term]) -> str:
    return ", ".join(type(term).__name__ for term in terms)
