"""Log-ps of completion tokens out of hidden states, without ever holding logits over the vocabulary.

A 7B model's logits for one LLaVA pair are half a gigabyte in float32, nearly all of it at positions
that no loss looks at. Here only positions with a target reach the head, and those go through it in
slices of the vocabulary; the backward pass computes each slice again instead of keeping it.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

VOCABULARY_CHUNK = 8192


class _ChunkedLogps(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, target: Tensor, chunk: int) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        log_norm = torch.full(target.shape, -torch.inf, dtype=wide, device=hidden.device)
        at_target = torch.zeros_like(log_norm)
        for start in range(0, weight.shape[0], chunk):
            logits = (hidden @ weight[start : start + chunk].T).to(wide)
            log_norm = torch.logaddexp(log_norm, logits.logsumexp(-1))
            inside, column = _locate(target, start, logits.shape[1])
            at_target = torch.where(inside, logits.gather(1, column[:, None])[:, 0], at_target)
        ctx.save_for_backward(hidden, weight, target, log_norm)
        ctx.chunk = chunk
        return at_target - log_norm

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        """Gradients of hidden states and weight, each slice of the logits computed once more."""
        hidden, weight, target, log_norm = ctx.saved_tensors
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        grad_hidden = (
            torch.zeros(hidden.shape, dtype=log_norm.dtype, device=hidden.device) if need_hidden else None
        )
        grad_weight = torch.empty_like(weight) if need_weight else None
        for start in range(0, weight.shape[0], ctx.chunk):
            part = weight[start : start + ctx.chunk]
            # d logp / d logits = one-hot(target) - softmax
            slope = ((hidden @ part.T).to(log_norm.dtype) - log_norm[:, None]).exp_().mul_(-grad[:, None])
            inside, column = _locate(target, start, part.shape[0])
            slope.scatter_add_(1, column[:, None], torch.where(inside, grad, 0)[:, None])
            slope = slope.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden += slope @ part
            if grad_weight is not None:
                grad_weight[start : start + ctx.chunk] = slope.T @ hidden
        if grad_hidden is not None:
            grad_hidden = grad_hidden.to(hidden.dtype)
        return grad_hidden, grad_weight, None, None


def _locate(target: Tensor, start: int, width: int) -> tuple[Tensor, Tensor]:
    column = target - start
    inside = (column >= 0) & (column < width)
    return inside, column.clamp(0, width - 1)


def target_logps(hidden: Tensor, weight: Tensor, target: Tensor, chunk: int = VOCABULARY_CHUNK) -> Tensor:
    """Log-p of each target token under softmax(hidden @ weight.T).

    Args:
        hidden: (M, D) hidden states that predict the targets.
        weight: (V, D) of the language-model head.
        target: (M,) token ids.
        chunk: slice of the vocabulary that is materialised at a time.

    Returns:
        (M,) log-ps in nats, at least float32 whatever the model's type.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    return _ChunkedLogps.apply(hidden, weight, target, chunk)


def group_sums(values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """(G,) sums of `values` (M,) over each group; 0 for an empty group."""
    return values.new_zeros(num_groups).index_add(0, group, values)


def sum_type(device: torch.device) -> torch.dtype:
    """Return the type for sums over many batches: float64, since float32 loses the last digits, where there is one."""
    return torch.float32 if device.type == "mps" else torch.float64
