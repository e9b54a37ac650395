"""SFT on answers; continual SFT when the model is trained already."""

from collections.abc import Sequence

import torch

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.models.chat import Dialogue, prompt_messages, text_message
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.objectives.step_means import SAMPLES, TARGETS, LossOutput, PartialMean, counts_of
from rlaifv_pl.records import Sample


class SFTModule(AlignmentModule):
    """Cross-entropy on answers: the mean over all target tokens of a step.

    Every assistant turn of an SFT sample is a target, as in LLaVA's training; a preference sample has `chosen`
    alone as target, which is the continual-SFT baseline of DPO on the same shards.
    """

    parts = 1

    def dialogues(self, sample: Sample) -> Sequence[Dialogue]:
        """Return one dialogue that ends in `completion`, or in `chosen`; every target is part 0."""
        answer = sample.chosen if sample.completion is None else sample.completion
        if answer is None:
            raise BadSample(
                Reason.MISSING_ANSWER, f"sample {sample.key}", "SFT needs `completion` or `chosen`"
            )
        messages = [*prompt_messages(sample), text_message("assistant", answer)]
        earlier = sum(message["role"] == "assistant" for message in messages) - 1
        side = "chosen" if sample.completion is None else "completion"
        return [
            Dialogue(
                messages,
                (*[None if sample.completion is None else 0] * earlier, 0),
                truncated=(earlier,) if side in sample.truncated else (),
            )
        ]

    def objective(self, batch: Batch) -> LossOutput:
        logps, _ = self.score(batch)
        tokens = {"tokens": PartialMean(torch.ones_like(logps).sum(), SAMPLES)}
        return LossOutput([PartialMean(-logps.sum(), TARGETS)], tokens, counts_of(batch))
