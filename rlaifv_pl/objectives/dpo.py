"""DPO: preference training on the better of two completions, against a frozen reference."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.models.chat import Dialogue, prompt_messages, text_message
from rlaifv_pl.models.reference import ReferenceMode, resolve_reference
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.objectives.checks import check_terms
from rlaifv_pl.objectives.losses import PairLogps, pair_metrics
from rlaifv_pl.objectives.step_means import SAMPLES, LossOutput, PartialMean, counts_of
from rlaifv_pl.objectives.terms import Sigmoid, Term
from rlaifv_pl.records import Sample


class DPOModule(AlignmentModule):
    """Preference training on chosen and rejected completions (Rafailov et al. 2023; RLAIF-V).

    Args:
        losses: terms of the objective, summed with their weights; DPO's own by default.
        reference: `live` keeps a frozen copy of the policy as it was loaded, `adapter_off` takes the
            policy without its LoRA adapters, `auto` chooses between them, and `none` is for losses
            that compare with nothing.
        kwargs: arguments of AlignmentModule.
    """

    parts = 2

    def __init__(
        self,
        losses: list[Term] | None = None,
        reference: ReferenceMode | Literal["auto"] = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.reference_mode = resolve_reference(reference, self.policy_spec.lora is not None)
        terms = [Sigmoid()] if losses is None else losses
        check_terms(terms, has_reference=reference != "none")
        self._terms = terms
        self.losses = nn.ModuleList(terms)  # Registered, so that their buffers move and are saved.

    def dialogues(self, sample: Sample) -> Sequence[Dialogue]:
        """Return the prompt with `chosen` (part 0) and with `rejected` (part 1)."""
        if sample.chosen is None or sample.rejected is None:
            raise BadSample(
                Reason.MISSING_ANSWER, f"sample {sample.key}", "DPO needs `chosen` and `rejected`"
            )
        prompt = prompt_messages(sample)
        context = (None,) * sum(message["role"] == "assistant" for message in prompt)
        return [
            Dialogue(
                [*prompt, text_message("assistant", sample.chosen)],
                (*context, 0),
                truncated=(len(context),) if "chosen" in sample.truncated else (),
            ),
            Dialogue(
                [*prompt, text_message("assistant", sample.rejected)],
                (*context, 1),
                rejected_images=True,
                truncated=(len(context),) if "rejected" in sample.truncated else (),
            ),
        ]

    def objective(self, batch: Batch) -> LossOutput:
        logps, reference_logps = self.score(batch)
        policy = _pair_logps(logps, batch)
        reference = None if reference_logps is None else _pair_logps(reference_logps, batch)
        # Terms with state read training batches only, and none of weight 0.
        self.losses.train(self.training and not batch.accounting.is_stand_in)
        loss, by_term = compose(self._terms, policy, reference)
        metrics = pair_metrics(policy, reference, self._beta)
        metrics |= {f"loss/{name}": value.mean() for name, value in by_term.items()}
        logged = {name: PartialMean(value * len(batch.keys), SAMPLES) for name, value in metrics.items()}
        return LossOutput([PartialMean(loss.sum(), SAMPLES)], logged, counts_of(batch))

    def end_step(self) -> None:
        for term in self._terms:
            term.end_step()

    @property
    def _beta(self) -> float:
        """Beta of the logged rewards, which are of whole completions; 1 (log-ratios) without such a term."""
        betas = (getattr(term, "beta", None) for term in self._terms if not term.per_token)
        return next((beta for beta in betas if beta is not None), 1.0)


def compose(
    terms: Iterable[Term], policy: PairLogps, reference: PairLogps | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weigh and add up the terms.

    Returns:
        `(B,)` loss of each pair, and `(B,)` of each term by its name, before its weight and without gradient.

    >>> from rlaifv_pl.objectives.terms import NLL
    >>> start = PairLogps(*torch.tensor([[-20.0], [-24.0], [10.0], [8.0]]))
    >>> compose([Sigmoid(), NLL(weight=0.25)], start, start)
    (tensor([1.1931]), {'sigmoid': tensor([0.6931]), 'nll': tensor([2.])})
    """
    values = {term: term(policy, reference) for term in terms}
    total: Tensor = sum(term.weight * value for term, value in values.items())  # type: ignore[assignment]  # Of at least one.
    return total, {term.name: value.detach() for term, value in values.items()}


def _pair_logps(logps: Tensor, batch: Batch) -> PairLogps:
    """Sum (M,) log-ps of the batch's targets to those of chosen and rejected completions."""
    sums, counts = batch.sum_by_sequence(logps), batch.sum_by_sequence(torch.ones_like(logps))
    return PairLogps(*sums.chunk(2), *counts.chunk(2))
