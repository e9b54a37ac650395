"""What preference training taught a model to like: how much likelier it makes an answer than its reference does.

DPO's policy is a reward model of its own. Summed over an answer, its log-ratio to the reference grows with length, so
that RLAIF-V takes the mean over tokens. Beta is the same for all answers to a prompt, and is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from rlaifv_pl.data.collate import Collator
from rlaifv_pl.feedback.engines.engine import Completion, EngineError
from rlaifv_pl.models.chat import Chat, Dialogue, prompt_messages, text_message
from rlaifv_pl.models.self_check import tree_error
from rlaifv_pl.models.vlm import VLM, Batch
from rlaifv_pl.records import Sample


class LogRatio(NamedTuple):
    """Of one answer, the token that ends it included, if the model ended it."""

    total: float
    """Log-p under the aligned model minus log-p under the reference, in nats."""
    tokens: int

    @property
    def mean(self) -> float:
        """Nats a token."""
        return self.total / self.tokens


@dataclass(eq=False)
class ImplicitReward:
    """An aligned model and the one that it was aligned from.

    Args:
        aligned, aligned_chat: the model, and how its processor writes dialogues.
        reference, reference_chat: of what it was before.
        batch_size: answers at a time; those to one prompt share what is read of it.
    """

    aligned: VLM
    aligned_chat: Chat
    reference: VLM
    reference_chat: Chat
    batch_size: int = 16

    def __post_init__(self) -> None:
        self._bears_trees: dict[int, bool] = {}

    def of(self, samples: Sequence[Sample], answers: Sequence[Sequence[Completion]]) -> list[list[LogRatio]]:
        """Of each answer to each sample's prompt; each sample has at least one.

        Raises:
            EngineError: the two models read an answer as other tokens.
        """
        found: list[list[LogRatio]] = [[] for _ in samples]
        longest = max(map(len, answers), default=0)
        width = min(self.batch_size, longest)
        for first in range(0, longest, max(width, 1)):
            asked = [n for n, own in enumerate(answers) if own[first : first + width]]
            at_once = max(1, self.batch_size // width)
            for start in range(0, len(asked), at_once):
                some = asked[start : start + at_once]
                parts = [list(answers[n][first : first + width]) for n in some]
                for n, ratios in zip(some, self._of_batch([samples[n] for n in some], parts), strict=True):
                    found[n] += ratios
        return found

    @torch.inference_mode()
    def _of_batch(self, samples: Sequence[Sample], answers: list[list[Completion]]) -> list[list[LogRatio]]:
        # Equally many each: a row that is there already costs nothing in a tree.
        width = max(map(len, answers))
        filled = [own + own[:1] * (width - len(own)) for own in answers]
        ours = answers_batch(self.aligned_chat, samples, filled)
        theirs = answers_batch(self.reference_chat, samples, filled)
        if not (
            torch.equal(ours.tokens.labels, theirs.tokens.labels)
            and torch.equal(ours.tokens.sequence_id, theirs.tokens.sequence_id)
        ):
            raise EngineError(
                f"sample {samples[0].key}: the aligned model and its reference read an answer as other tokens. Give as "
                "reference the model that the aligned one was trained from."
            )
        ratios = self._logps(self.aligned, ours) - self._logps(self.reference, theirs)
        sums = ours.sum_by_sequence(ratios).view(width, -1).T.tolist()
        counts = ours.sum_by_sequence(torch.ones_like(ratios, dtype=torch.long)).view(width, -1).T.tolist()
        return [
            [LogRatio(*pair) for pair in zip(total[: len(own)], count[: len(own)], strict=True)]
            for own, total, count in zip(answers, sums, counts, strict=True)
        ]

    def _logps(self, model: VLM, batch: Batch) -> Tensor:
        batch = move_data_to_device(batch, next(model.parameters()).device)
        if id(model) not in self._bears_trees:
            off, limit = tree_error(model, batch)
            self._bears_trees[id(model)] = off <= limit
        if not self._bears_trees[id(model)]:
            batch = batch.as_rows()
        return model(batch).cpu()


def answers_batch(chat: Chat, samples: Sequence[Sample], answers: Sequence[Sequence[Completion]]) -> Batch:
    """Make one batch of several answers to each prompt, equally many each; part p of a sample is its answer p."""
    said = {id(sample): own for sample, own in zip(samples, answers, strict=True)}
    return Collator(chat, partial(_dialogues, said), parts=len(answers[0]))(samples)


def _dialogues(said: dict[int, Sequence[Completion]], sample: Sample) -> list[Dialogue]:
    before = prompt_messages(sample)
    spoken = sum(message["role"] == "assistant" for message in before)
    return [
        Dialogue(
            [*before, text_message("assistant", one.text)],
            (*[None] * spoken, part),
            truncated=() if one.ended else (spoken,),
        )
        for part, one in enumerate(said[id(sample)])
    ]
