"""Warn of answers that run beyond the positions that a model was made for."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from torch import Tensor

from rlaifv_pl.models.model_checks import max_positions
from rlaifv_pl.records import Sample


def warn_beyond_positions(model: Any, asked: Tensor, answers: Tensor, samples: Sequence[Sample]) -> bool:
    """Name the first sample whose prompt and answer have more tokens than the model has positions.

    Args:
        model: of transformers.
        asked: (P, T) attention mask of the prompts.
        answers: (P x n, A) tokens behind them, n rows for each prompt.
        samples: P, whose prompts they are.

    Returns:
        whether there was one.
    """
    limit = max_positions(model.config)
    written = (answers != model.generation_config.pad_token_id).sum(1).view(len(samples), -1).amax(1)
    for sample, before, behind in zip(samples, asked.sum(1).tolist(), written.tolist(), strict=True):
        if limit is not None and before + behind > limit:
            Console(stderr=True).print(
                f"warning: sample {sample.key}: prompt ({before} tokens with its images) and answer ({behind}) have "
                f"more tokens than the {limit} positions that the model was made for (max_position_embeddings in its "
                f"config.json), so what stands behind is unreliable. Set max_new_tokens to {max(1, limit - before)} or "
                "less, or shorten the prompt. Further ones are not named.",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
            return True
    return False
