"""nSFT: the negative signal of a rejected answer as ordinary supervised text (Zhu et al., CVPR 2025).

Each sample has `corrections`: question and answer turns that correct errors of its rejected answer.
 L = L_sft(chosen) + L_sft(corrections): one model, plain cross-entropy, no reference.
"""

from collections.abc import Sequence
from typing import Any, Literal

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.models.chat import Dialogue, message_with_images, prompt_messages, text_message
from rlaifv_pl.models.reference import ReferenceMode, resolve_reference
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.objectives.losses import token_kl
from rlaifv_pl.objectives.step_means import TARGETS, LossOutput, PartialMean, counts_of, targets_of
from rlaifv_pl.records import Message, Sample

CHOSEN, CORRECTIONS = 0, 1


class NSFTModule(AlignmentModule):
    """Supervised training on chosen answers and on the corrections of rejected ones.

    Args:
        merge: `append` continues the chosen answer with the corrections in one dialogue;
            `separate` makes two dialogues about the same image; `corrections_only` leaves the chosen
            answer out (the paper's ablation).
        reduction: `token_mean` is the mean over all targets of a step, in which longer parts weigh
            more; `sum_of_means` adds the means of the two parts, as the paper's formula does.
        kl_weight: weight of the per-token KL estimate against the reference (the paper's last ablation).
            It needs a reference, a second model in memory unless it is `adapter_off`.
        reference: reference of the KL term: `adapter_off` takes the policy without its LoRA adapters, `live`
            a frozen copy.
        kwargs: arguments of AlignmentModule.
    """

    parts = 2

    def __init__(
        self,
        merge: Literal["append", "separate", "corrections_only"] = "append",
        reduction: Literal["token_mean", "sum_of_means"] = "token_mean",
        kl_weight: float = 0.0,
        reference: ReferenceMode = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.reference_mode = resolve_reference(reference, self.policy_spec.lora is not None)
        if kl_weight < 0 or (kl_weight > 0) != (reference != "none"):
            raise ValueError(
                f"kl_weight is {kl_weight} and reference is {reference}: the KL term needs a reference and nothing "
                "else of nSFT does. Set both (kl_weight > 0, reference: adapter_off or live) or neither."
            )
        self.merge, self.reduction, self.kl_weight = merge, reduction, kl_weight

    @property
    def reading(self) -> dict[str, object]:
        return super().reading | {"merge": self.merge}

    def dialogues(self, sample: Sample) -> Sequence[Dialogue]:
        """Return the chosen answer and the corrections, in one dialogue or two as `merge` says.

        Raises:
            BadSample: `missing_answer`: the sample lacks corrections or a chosen answer.
        """
        correction_parts = (CORRECTIONS,) * len(sample.corrections)
        turns = _correction_turns(sample)
        opening = message_with_images(sample.corrections[0].question, len(sample.images))
        correction_dialogue = Dialogue([opening, *turns[1:]], correction_parts)
        if self.merge == "corrections_only":
            return [correction_dialogue]
        answer = sample.completion if sample.chosen is None else sample.chosen
        if answer is None:
            raise _missing(sample, "`chosen` or `completion`")
        prompt = prompt_messages(sample)
        context = (None,) * sum(message["role"] == "assistant" for message in prompt)
        answered = [*prompt, text_message("assistant", answer)]
        side = "completion" if sample.chosen is None else "chosen"
        truncated = (len(context),) if side in sample.truncated else ()
        if self.merge == "append":
            return [Dialogue([*answered, *turns], (*context, CHOSEN, *correction_parts), truncated=truncated)]
        return [Dialogue(answered, (*context, CHOSEN), truncated=truncated), correction_dialogue]

    def objective(self, batch: Batch) -> LossOutput:
        """Return the cross-entropy of answers and corrections, with the KL to a reference where there is one."""
        policy, reference = self.score(batch)
        chosen, corrections = (
            PartialMean(-sums.sum(), targets_of(part))
            for part, sums in enumerate(batch.sum_by_sequence(policy).chunk(self.parts))
        )
        logged = {"loss/chosen": chosen, "loss/corrections": corrections}
        whole = PartialMean(-policy.sum(), TARGETS)
        losses = [whole] if self.reduction == "token_mean" else [chosen, corrections]
        if reference is not None:
            logged["kl"] = PartialMean(token_kl(policy, reference).sum(), TARGETS)
            losses.append(logged["kl"].times(self.kl_weight))
        return LossOutput(losses, logged, counts_of(batch))


def _missing(sample: Sample, what: str) -> BadSample:
    return BadSample(Reason.MISSING_ANSWER, f"sample {sample.key}", f"nSFT needs {what}")


def _correction_turns(sample: Sample) -> list[Message]:
    if not sample.corrections:
        raise _missing(sample, "`corrections`")
    return [
        message
        for correction in sample.corrections
        for message in (
            text_message("user", correction.question),
            text_message("assistant", correction.answer),
        )
    ]
