"""In bfloat16 a tree is no further from float64 than plain rows are: sharing a prefix costs no precision.

The weights and pixels are those of bfloat16 on both sides, so that all of the difference is rounding on the way.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlaifv_pl.data.collate import Collator
from rlaifv_pl.models import attention
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor
from rlaifv_pl.models.vlm import VLM, Batch
from rlaifv_pl.records import Sample
from tests.families import build, unsupported_reason
from tests.models.plain import keep_wide, photo
from tests.models.test_vlm import sides
from tests.training.tiny import WORDS

BETA = 0.1
SEEDS, SIZES = range(3), (1, 2, 6)


class Trial(NamedTuple):
    """A policy in bfloat16, a batch for it, and what float64 makes of the same numbers."""

    policy: VLM
    batch: Batch
    exact: Tensor


def drawn_samples(seed: int, count: int) -> list[Sample]:
    """Pairs of 4 to 29 words."""
    rng = np.random.default_rng(seed)

    def text() -> str:
        return " ".join(rng.choice(WORDS, size=rng.integers(4, 30)))

    return [
        Sample(key=str(at), prompt=text(), images=(photo(10 * seed + at),), chosen=text(), rejected=text())
        for at in range(count)
    ]


def in_type(batch: Batch, dtype: torch.dtype) -> Batch:
    rounded = {
        name: value.bfloat16().to(dtype) if value.is_floating_point() else value
        for name, value in batch.tokens.images.items()
    }
    return replace(batch, tokens=replace(batch.tokens, images=rounded))


@torch.no_grad()
def logps(policy: VLM, batch: Batch, backend: str) -> Tensor:
    policy.attention = backend
    return policy(batch).double()


@pytest.fixture(scope="module", params=["llava", "qwen3_vl", "gemma3", "idefics3"])
def trials(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    if reason := unsupported_reason(request.param):
        pytest.skip(reason)
    made = []
    for seed in SEEDS:
        path = build(request.param, tmp_path_factory.mktemp("drawn") / request.param, seed)
        spec = PolicySpec(path=str(path), dtype="bfloat16")
        coarse, exact = VLM(load_model(spec)).eval(), keep_wide(VLM(load_model(spec))).double().eval()
        collate = Collator(Chat(load_processor(spec)), sides, parts=2)
        for size in SIZES:
            batch = collate(drawn_samples(100 * seed + size, size))
            truth = logps(exact, in_type(batch, torch.float64), "rows")
            made.append(Trial(coarse, in_type(batch, torch.bfloat16), truth))
    return made


def losses(tokens: Tensor, batch: Batch, reference: Tensor) -> Tensor:
    """DPO's, of each pair."""
    sums = torch.stack(
        [tokens[batch.tokens.sequence_id == group].sum() for group in range(batch.num_sequences)]
    )
    chosen, rejected = (sums - reference).chunk(2)
    return -logsigmoid(BETA * (chosen - rejected))


def mean_errors(trials: list[Trial], backend: str) -> tuple[float, float]:
    """Of a token's log-p and of a pair's loss, in nats, over all trials."""
    of_tokens, of_losses = [], []
    for at, (policy, batch, exact) in enumerate(trials):
        found = logps(policy, batch, backend)
        # A reference a nat away from the policy, where the loss is steep.
        near = torch.randn(batch.num_sequences, generator=torch.Generator().manual_seed(at))
        reference = torch.stack(
            [exact[batch.tokens.sequence_id == group].sum() for group in range(batch.num_sequences)]
        )
        of_tokens.append((found - exact).abs())
        two = (losses(values, batch, reference + near) for values in (found, exact))
        of_losses.append((next(two) - next(two)).abs())
    return torch.cat(of_tokens).mean().item(), torch.cat(of_losses).mean().item()


@pytest.mark.parametrize("backend", ["dense", "split"])
def test_a_tree_rounds_no_more_than_rows(trials: list[Trial], backend: str, record_property: Callable):
    """Some 1500 tokens of 27 pairs; they come out within 1 % and 5 % of one another."""
    (tokens, loss), (plain_tokens, plain_loss) = (mean_errors(trials, name) for name in (backend, "rows"))
    record_property("ratios", (tokens / plain_tokens, loss / plain_loss))
    assert 1e-3 < plain_tokens < 0.05  # it is bfloat16
    assert tokens < 1.1 * plain_tokens + 1e-6
    assert loss < 1.5 * plain_loss + 1e-6


def test_an_attention_that_rounds_to_two_bits_less_is_seen(
    trials: list[Trial], monkeypatch: pytest.MonkeyPatch
):
    """The comparison would be worth nothing if it passed."""
    attend = attention.sdpa_attention_forward

    def coarse(*arguments: Any, **options: Any) -> tuple[Tensor, None]:
        output = attend(*arguments, **options)[0]
        mantissa, exponent = torch.frexp(output.float())
        return torch.ldexp((mantissa * 2**6).round() / 2**6, exponent).to(output), None

    plain, _ = mean_errors(trials, "rows")
    monkeypatch.setattr(attention, "sdpa_attention_forward", coarse)
    assert mean_errors(trials, "split")[0] > 1.1 * plain
