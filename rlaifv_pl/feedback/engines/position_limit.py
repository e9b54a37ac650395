"""Prompts and answers that run beyond the positions that a model was made for."""

from collections.abc import Iterable, Sequence

from torch import Tensor
from transformers import PreTrainedConfig

from rlaifv_pl.console import stderr
from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.models.model_checks import max_positions


def check_prompt_lengths(limit: int | None, lengths: Iterable[int], names: Iterable[str]) -> None:
    """Refuse prompts that have more tokens than a model has positions.

    Args:
        limit: number of positions; None if it is not known.
        lengths: tokens of each prompt, its images included.
        names: what each prompt is about.

    Raises:
        BadSample: `too_long`, for the first of them.
    """
    for length, name in zip(lengths, names, strict=True):
        if limit is not None and length > limit:
            raise BadSample(
                Reason.TOO_LONG,
                name,
                f"expected a prompt within the {limit} positions that the model was made for "
                f"(max_position_embeddings in its config.json), got {length} tokens with its images",
            )


def warn_long_answers(
    config: PreTrainedConfig, prompt_mask: Tensor, is_token: Tensor, names: Sequence[str]
) -> bool:
    """Warn of the first prompt that has more tokens with its longest answer than the model has positions.

    Args:
        config: of the model.
        prompt_mask: (P, T) attention mask of the prompts.
        is_token: (P x n, A) True where an answer has a token, n rows for each prompt.
        names: what each of the P prompts is about.

    Returns:
        Whether there is one.
    """
    limit = max_positions(config)
    answers = is_token.sum(1).view(len(names), -1).amax(1).tolist()
    for name, prompt, answer in zip(names, prompt_mask.sum(1).tolist(), answers, strict=True):
        if limit is not None and prompt + answer > limit:
            stderr.print(
                f"warning: {name}: prompt ({prompt} tokens with its images) and answer ({answer}) have more tokens "
                f"than the {limit} positions that the model was made for (max_position_embeddings in its "
                "config.json), so the end of the answer is unreliable. Set max_new_tokens to "
                f"{max(1, limit - prompt)} or less, or shorten the prompt. Further ones are not named.",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
            return True
    return False
