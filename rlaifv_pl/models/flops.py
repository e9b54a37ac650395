"""Model FLOPs of a training step: those of the loss and its gradients, two for a multiply-add.

Families differ in the number of patches of an image and in the inputs of the projector, so hooks observe the modules;
FLOPs of the language model and the head follow from the batch. Padding does not count, nor do activations that
checkpointing recomputes. Left out, since small: everything but linear layers, convolutions and attention scores (norms,
embeddings, Gemma 3's projection by a bare matrix), and attention between an image's tokens beyond causality.

torch's FlopCounterMode is not used here: it multiplies the time of a step, each batch has a shape of its own, and it
counts padding, recomputation and full instead of causal scores. Tests compare with it.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rlaifv_pl.models.policy import unwrap_model, vision_tower
from rlaifv_pl.models.vlm import VLM, Batch

Product = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True)
class Extents:
    """Where the branches of a batch start and stop; rows without shared prefixes start at 0."""

    start: Tensor
    """(rows,) number of tokens of the path before the branch."""
    stop: Tensor
    """(rows,) length of the path."""
    cells: int
    """Tokens of the rows, or columns of the forest, padding included."""

    @cached_property
    def tokens(self) -> int:
        """Number of tokens that the language model reads, each once."""
        return int((self.stop - self.start).sum())

    def pairs(self, window: int | None = None) -> int:
        """Count pairs of a query and a key on its path, itself included.

        Args:
            window: number of keys that a query sees; all if not given.
        """
        return int((_causal_pairs(self.stop, window) - _causal_pairs(self.start, window)).sum())


def _causal_pairs(length: Tensor, window: int | None) -> Tensor:
    """Causal pairs of rows of a length: 1 + 2 + 3 ... up to the window, then the window for each token."""
    rising = length if window is None else length.clamp(max=window)
    return rising * (rising + 1) // 2 + (length - rising) * rising


def extents(policy: VLM, batch: Batch) -> Extents:
    """Return the extents of a batch as the policy reads it; on the device only if the lengths are."""
    if batch.layout.branches is None:
        stop = batch.tokens.rows["attention_mask"].sum(1)
        return Extents(torch.zeros_like(stop), stop, batch.tokens.rows["input_ids"].numel())
    start, stop = torch.tensor([(branch.start, branch.stop) for branch in batch.layout.branches]).T
    if not policy.shares(batch):
        return Extents(torch.zeros_like(stop), stop, batch.tokens.rows["input_ids"].numel())
    of_samples = (stop - start).view(batch.layout.rows_per_tree, -1).sum(0)
    lines = len(of_samples) * of_samples.max() if policy.attention == "dense" else of_samples.sum()
    return Extents(start, stop, int(lines))


class _Linear(NamedTuple):
    """One call of a linear layer or a convolution."""

    module: Product
    positions: int
    times: int
    """Number of products of that size: 1, and 1 each for the gradients of its weights and of its input."""


class _Scores(NamedTuple):
    """One call of an attention module."""

    module: nn.Module
    pairs: int | Tensor
    """Pairs of queries and keys; 0 in the language model, where they follow from the batch."""
    times: int


@dataclass(frozen=True)
class FlopCount:
    """FLOPs of a batch for the policy and its reference; numbers on a device are fetched when they are read."""

    extents: Extents
    fixed: int
    """FLOPs of tower, projector and head, without scores."""
    per_token: int
    per_pair: dict[int | None, int]
    """FLOPs of a pair in the language model's scores, by window."""
    towers: list[tuple[int | Tensor, int]]
    """Number of pairs in the tower's scores, and FLOPs of each."""

    @cached_property
    def flops(self) -> int:
        """FLOPs of forward and backward pass."""
        language = self.per_token * self.extents.tokens
        scores = sum(cost * self.extents.pairs(window) for window, cost in self.per_pair.items())
        return self.fixed + language + scores + sum(int(pairs) * cost for pairs, cost in self.towers)


class FlopMeter:
    """Observes a policy's forward passes with gradients, and counts the FLOPs of the last one.

    A layer whose output reaches no loss counts as one with gradients (the last of a LLaVA tower that trains).

    Args:
        policy: a model whose frozen parameters stay frozen.
    """

    def __init__(self, policy: VLM) -> None:
        self.policy = policy
        model = unwrap_model(policy.model)
        self._head = model.get_output_embeddings()
        self._config = model.get_decoder().config
        self._language = set(model.get_decoder().modules())
        tower = vision_tower(policy.model)
        trains = any(parameter.requires_grad for parameter in tower.parameters())
        # A reference reuses the features of a frozen tower, and has no adapters.
        self._policy_only = set() if trains else set(tower.modules())
        self._policy_only |= {module for name, module in policy.named_modules() if "lora_" in name}
        self._linears: list[_Linear] = []
        self._scores: list[_Scores] = []
        self._is_recording = False
        self._hooks = [
            policy.register_forward_pre_hook(self._on_forward_start),
            policy.register_forward_hook(self._on_forward_end, always_call=True),
        ]
        for module in policy.modules():
            if isinstance(module, Product):
                self._hooks.append(module.register_forward_hook(self._on_product))
            elif hasattr(module, "q_proj") or hasattr(module, "qkv"):
                self._hooks.append(module.register_forward_hook(self._on_attention, with_kwargs=True))

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def _on_forward_start(self, _policy: nn.Module, _inputs: object) -> None:
        # Without gradients, the forward pass is one of the reference, a check or a validation.
        if torch.is_grad_enabled():
            self._linears, self._scores, self._is_recording = [], [], True

    def _on_forward_end(self, _policy: nn.Module, _inputs: object, _output: object) -> None:
        # Checkpointing calls the layers again in the backward pass.
        self._is_recording = False

    def _on_product(self, module: Product, inputs: tuple, output: Tensor) -> None:
        if self._is_recording:
            times = 1 + module.weight.requires_grad + inputs[0].requires_grad
            self._linears.append(_Linear(module, output.numel() // module.weight.shape[0], times))

    def _on_attention(
        self, module: nn.Module, inputs: tuple, options: dict[str, Any], output: Tensor | tuple
    ) -> None:
        if not self._is_recording:
            return
        attended = output[0] if isinstance(output, tuple) else output
        # The gradient is four products of the size of the forward's two.
        pairs = 0 if module in self._language else _tower_pairs(attended, options.get("cu_seqlens"))
        self._scores.append(_Scores(module, pairs, 1 + 2 * attended.requires_grad))

    def read(self, batch: Batch, reference: bool) -> FlopCount:
        """Return the FLOPs of the last forward pass with gradients, and of its backward pass.

        Args:
            batch: batch of that forward pass.
            reference: whether a reference scored the batch too.
        """
        fixed = 2 * len(batch.tokens.labels) * self._head.weight.numel()
        fixed *= 2 + self._head.weight.requires_grad + reference
        per_token, per_pair, towers = 0, Counter(), []
        for module, positions, times in self._linears:
            times += reference and module not in self._policy_only
            if module in self._language:
                per_token += 2 * module.weight.numel() * times
            else:
                fixed += 2 * module.weight.numel() * times * positions
        for attention, pairs, times in self._scores:
            times += reference and attention not in self._policy_only
            if attention in self._language:
                per_pair[self._window(attention)] += 4 * _width(attention) * times
            else:
                towers.append((pairs, 4 * _width(attention) * times))
        return FlopCount(extents(self.policy, batch), fixed, per_token, dict(per_pair), towers)

    def _window(self, attention: nn.Module) -> int | None:
        kinds = getattr(self._config, "layer_types", None)
        if kinds and kinds[attention.layer_idx] != "sliding_attention":
            return None
        return getattr(self._config, "sliding_window", None)


def _width(attention: Any) -> int:
    """Return the total width of all heads' queries, in any family's attention."""
    return attention.q_proj.out_features if hasattr(attention, "q_proj") else attention.qkv.out_features // 3


def _tower_pairs(attended: Tensor, ends: Tensor | None) -> int | Tensor:
    """Count pairs of patches of an image, or of its windows; on the device where window ends are."""
    return attended.shape[:-1].numel() * attended.shape[-2] if ends is None else ends.diff().square().sum()
