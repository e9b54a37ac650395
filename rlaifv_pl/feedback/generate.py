"""Generate: sample candidates from the policy.

Each candidate has a seed of its own and every token of it is drawn with that seed, so that what is
drawn does not depend on which other candidates share the batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from rlaifv_pl.data.images import open_image
from rlaifv_pl.models.chat import Chat, prompt_messages
from rlaifv_pl.models.policy import plain_model
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.records import Candidate, Sample
from rlaifv_pl.seeds import derive


class SeededDraw(LogitsProcessor):
    """Draws each row's next token with the row's own generator and forbids all others.

    The Gumbel trick: argmax of log-p plus Gumbel noise is a draw from the softmax.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.stack([torch.rand(scores.shape[1], generator=source) for source in self.generators])
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7))).to(scores.device)
        drawn = (scores.float() / self.temperature + noise).argmax(-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How candidates are drawn; the defaults are RLAIF-V's.

    Args:
        n: candidates of a prompt.
        temperature: of the softmax; 0 for the one greedy answer.
        max_new_tokens: of a candidate.
    """

    n: int = 10
    temperature: float = 0.7
    max_new_tokens: int = 512

    def __post_init__(self) -> None:
        if self.n < 1 or self.temperature < 0 or (self.temperature == 0 and self.n > 1):
            raise ValueError(
                f"sampling: n = {self.n} at temperature {self.temperature} makes no sense. Give n >= 1 and a positive "
                "temperature, or temperature 0 with n = 1: the greedy answer is always the same."
            )


@torch.inference_mode()
def generate(
    policy: VLM, chat: Chat, samples: Sequence[Sample], sampling: Sampling, seed: int = 0
) -> list[list[Candidate]]:
    """Candidates for each sample, by the policy in this process.

    Args:
        seed: of the run and round; each candidate's own seed is derived from it, the key and its number.

    Returns:
        `sampling.n` candidates for each sample, without claims yet.
    """
    texts = [chat.render(prompt_messages(sample), ask=True) for sample in samples]
    images = [[open_image(data, f"sample {sample.key}") for data in sample.images] for sample in samples]
    model = plain_model(policy.model)
    inputs = chat.prompt_tensors(texts, images).to(model.device)
    n = sampling.n
    seeds = [derive(seed, sample.key, number) for sample in samples for number in range(n)]
    training = policy.training
    policy.eval()
    out = model.generate(
        **inputs,
        **_how(sampling, seeds),
        # An image token in an answer would have no image when the answer is scored.
        suppress_tokens=sorted(
            {*(model.generation_config.suppress_tokens or ()), *chat.processor.image_token_ids}
        ),
    )
    policy.train(training)
    answers = chat.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    drawn = [Candidate(text=text.strip(), seed=own) for text, own in zip(answers, seeds, strict=True)]
    return [drawn[first : first + n] for first in range(0, len(drawn), n)]


def _how(sampling: Sampling, seeds: Sequence[int]) -> dict[str, Any]:
    limit = {"max_new_tokens": sampling.max_new_tokens}
    if sampling.temperature == 0:
        return {**limit, "do_sample": False}
    draw = SeededDraw(seeds, sampling.temperature)
    return {**limit, "do_sample": True, "num_return_sequences": sampling.n, "top_k": 0, "top_p": 1.0,
            "logits_processor": [draw]}  # fmt: skip


def batches(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    """Consecutive slices of at most `size` samples."""
    return (samples[first : first + size] for first in range(0, len(samples), size))
