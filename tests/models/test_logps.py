"""Log-ps in slices of the vocabulary equal the plain log-softmax, in value, gradient and type."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlaifv_pl.models.logps import group_sums, target_logps

M, D, V = 64, 4, 50
CHUNKS = [1, 7, V, V + 30]


def problem(dtype: torch.dtype = torch.float64, vocabulary: int = V) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, head, targets, and the slope of a loss in each log-p."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(M, D, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocabulary, D, generator=generator, dtype=torch.float64)
    target = torch.randint(vocabulary, (M,), generator=generator)
    slope = torch.randn(M, generator=generator, dtype=torch.float64)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), target, slope


def plain(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """All logits at once."""
    return (hidden @ weight.T).log_softmax(-1)[torch.arange(len(target)), target]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_log_ps_and_gradients_equal_the_plain_log_softmax(chunk):
    hidden, weight, target, slope = problem()
    ours, full = target_logps(hidden, weight, target, chunk), plain(hidden, weight, target)
    torch.testing.assert_close(ours, full, rtol=0, atol=1e-10)
    for mine, theirs in zip(
        torch.autograd.grad(ours, [hidden, weight], slope),
        torch.autograd.grad(full, [hidden, weight], slope),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_gradients_equal_finite_differences(chunk):
    hidden, weight, target, _ = problem()
    few = (hidden[:5].detach().requires_grad_(), weight, target[:5], chunk)
    assert torch.autograd.gradcheck(target_logps, few, atol=1e-8)


def test_a_frozen_head_or_frozen_states_get_no_gradient():
    for frozen in (0, 1):
        inputs = problem()
        inputs[frozen].requires_grad_(False)
        target_logps(*inputs[:3], 7).sum().backward()
        assert inputs[frozen].grad is None
        assert inputs[1 - frozen].grad.abs().max() > 0.1


def test_two_classes_give_the_logistic_function():
    """Logits 2 and 0: log-ps -log(1 + e^-2) = -0.126928 and -log(1 + e^2) = -2.126928."""
    hidden, weight = torch.tensor([[2.0], [2.0]]), torch.tensor([[1.0], [0.0]])
    logps = target_logps(hidden, weight, torch.tensor([0, 1]), chunk=1)
    torch.testing.assert_close(logps, torch.tensor([-0.126928, -2.126928]), rtol=0, atol=1e-6)


def test_half_precision_states_give_float32_log_ps():
    """Logits are rounded to bfloat16, which both sides share; all that follows is in float32."""
    hidden, weight, target, slope = problem(torch.bfloat16)
    logps = target_logps(hidden, weight, target, 7)
    assert logps.dtype == torch.float32
    full = (hidden @ weight.T).float().log_softmax(-1)[torch.arange(M), target]
    torch.testing.assert_close(logps, full, rtol=0, atol=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(logps, [hidden, weight], slope.float()),
        torch.autograd.grad(full, [hidden, weight], slope.float()),
        strict=True,
    ):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine, theirs, rtol=0.02, atol=0.02)


def test_autocast_multiplies_in_half_precision_and_gives_float32():
    hidden, weight, target, slope = problem(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        logps = target_logps(hidden, weight, target, 7)
    assert logps.dtype == torch.float32
    assert torch.equal(logps, target_logps(hidden.bfloat16(), weight.bfloat16(), target, 7))
    logps.backward(slope.float())
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32
    full = torch.autograd.grad(plain(hidden, weight, target), [hidden, weight], slope.float())
    torch.testing.assert_close(hidden.grad, full[0], rtol=0.03, atol=0.03)
    torch.testing.assert_close(weight.grad, full[1], rtol=0.05, atol=0.05)


def test_huge_logits_stay_finite():
    """exp would overflow at 88 nats in float32."""
    hidden, weight, target, _ = problem(torch.float32)
    logps = target_logps(hidden * 1e3, weight, target, 7)
    logps.sum().backward()
    assert logps.min() < -1e3
    assert logps.isfinite().all() and hidden.grad.isfinite().all() and weight.grad.isfinite().all()


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.numel = max(self.numel, *sizes, 0)
        return out


@pytest.mark.parametrize("chunk", [50, 100])
def test_no_tensor_spans_targets_and_vocabulary(chunk):
    """With 1000 words, 64 targets and width 4 nothing exceeds a slice of 64 x chunk or the head's gradient,
    1000 x 4; the plain computation makes 64 x 1000."""

    def largest(compute) -> int:
        hidden, weight, target, slope = problem(vocabulary=1000)
        with Largest() as seen:
            compute(hidden, weight, target).backward(slope)
        return seen.numel

    assert largest(lambda *inputs: target_logps(*inputs, chunk)) == max(M * chunk, 1000 * D)
    assert largest(plain) == M * 1000


def test_no_targets_give_no_log_ps():
    hidden, weight, target, _ = problem()
    assert target_logps(hidden[:0], weight, target[:0]).shape == (0,)


def test_group_sums_add_what_belongs_together():
    """Groups 2, 0, 2, 0 of 1, 2, 4, 8: group 0 has 2 + 8 = 10, group 1 nothing, group 2 has 1 + 4 = 5."""
    values = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    sums = group_sums(values, torch.tensor([2, 0, 2, 0]), 3)
    assert sums.tolist() == [10, 0, 5]
    sums.backward(torch.tensor([3.0, 5.0, 7.0]))
    assert values.grad.tolist() == [7, 3, 7, 3]
