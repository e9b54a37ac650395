"""Model FLOPs of a training step: what the loss and its gradients need, two for a multiply-add.

Families differ in how many patches an image becomes and in what passes the projector, so modules are watched at
work; what passes the language model and the head follows from the batch. Padding does not count, nor do activations
that checkpointing computes again. Left out, since small: whatever is neither a linear layer, a convolution nor an
attention score (norms, embeddings, Gemma 3's projection by a bare matrix), and what an image's tokens see of one
another beyond causality.
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
    """Cells of the rows, or columns of the forest, padding included."""

    @cached_property
    def tokens(self) -> int:
        """Those that the language model reads, each once."""
        return int((self.stop - self.start).sum())

    def pairs(self, window: int | None = None) -> int:
        """Pairs of a token and what it sees on its path, itself included.

        Args:
            window: how far back it sees; all the way if not given.
        """
        return int((_seen(self.stop, window) - _seen(self.start, window)).sum())


def _seen(length: Tensor, window: int | None) -> Tensor:
    """What the tokens of rows see: 1 + 2 + 3 ... up to the window, and from there on the window."""
    rising = length if window is None else length.clamp(max=window)
    return rising * (rising + 1) // 2 + (length - rising) * rising


def extents(policy: VLM, batch: Batch) -> Extents:
    """Of a batch as the policy reads it; on the device only where the lengths are known there alone."""
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
    """What passed a linear layer or a convolution in a call."""

    module: Product
    positions: int
    times: int
    """Products of that size: 1, and 1 each for the gradients of its weights and of its input."""


class _Scores(NamedTuple):
    """What an attention did in a call."""

    module: nn.Module
    pairs: int | Tensor
    """Of queries and keys; 0 in the language model, where the batch says it."""
    times: int


@dataclass(frozen=True)
class FlopCount:
    """What a batch was to the policy and its reference; numbers on a device are fetched when asked for."""

    extents: Extents
    fixed: int
    """FLOPs of everything but the language model and scores: tower, projector, head."""
    per_token: int
    per_pair: dict[int | None, int]
    """FLOPs of a pair of the language model's scores, by window."""
    towers: list[tuple[int | Tensor, int]]
    """Pairs of the tower's scores, and FLOPs of each."""

    @cached_property
    def flops(self) -> int:
        """Of forward and backward."""
        language = self.per_token * self.extents.tokens
        scores = sum(cost * self.extents.pairs(window) for window, cost in self.per_pair.items())
        return self.fixed + language + scores + sum(int(pairs) * cost for pairs, cost in self.towers)


class FlopMeter:
    """Watches a policy's forward passes that have gradients, and says what the last one amounts to.

    A layer whose output reaches no loss is taken for one whose gradient is computed (the last of a LLaVA tower that
    trains).

    Args:
        policy: whose parameters are frozen for good where they are.
    """

    def __init__(self, policy: VLM) -> None:
        self.policy = policy
        model = unwrap_model(policy.model)
        self._head = model.get_output_embeddings()
        self._config = model.get_decoder().config
        self._language = set(model.get_decoder().modules())
        tower = vision_tower(policy.model)
        trains = any(parameter.requires_grad for parameter in tower.parameters())
        # A reference takes over what a frozen tower computed for the policy, and has no adapters.
        self._policys_own = set() if trains else set(tower.modules())
        self._policys_own |= {module for name, module in policy.named_modules() if "lora_" in name}
        self._linears: list[_Linear] = []
        self._scores: list[_Scores] = []
        self._is_watching = False
        self._hooks = [
            policy.register_forward_pre_hook(self._begin),
            policy.register_forward_hook(self._end, always_call=True),
        ]
        for module in policy.modules():
            if isinstance(module, Product):
                self._hooks.append(module.register_forward_hook(self._passed))
            elif hasattr(module, "q_proj") or hasattr(module, "qkv"):
                self._hooks.append(module.register_forward_hook(self._attended, with_kwargs=True))

    def close(self) -> None:
        """Stop watching."""
        for hook in self._hooks:
            hook.remove()

    def _begin(self, _policy: nn.Module, _inputs: Any) -> None:
        # Without gradients it is the reference, a check or a validation.
        if torch.is_grad_enabled():
            self._linears, self._scores, self._is_watching = [], [], True

    def _end(self, _policy: nn.Module, _inputs: Any, _output: Any) -> None:
        # Checkpointing calls the layers again later.
        self._is_watching = False

    def _passed(self, module: Product, inputs: tuple, output: Tensor) -> None:
        if self._is_watching:
            times = 1 + module.weight.requires_grad + inputs[0].requires_grad
            self._linears.append(_Linear(module, output.numel() // module.weight.shape[0], times))

    def _attended(self, module: nn.Module, inputs: tuple, options: dict[str, Any], output: Any) -> None:
        if not self._is_watching:
            return
        attended = output[0] if isinstance(output, tuple) else output
        # The gradient is four products of the size of the forward's two.
        pairs = 0 if module in self._language else _tower_pairs(attended, options.get("cu_seqlens"))
        self._scores.append(_Scores(module, pairs, 1 + 2 * attended.requires_grad))

    def read(self, batch: Batch, reference: bool) -> FlopCount:
        """What the last forward with gradients amounts to.

        Args:
            batch: that it was of.
            reference: whether a reference scored the batch too.
        """
        fixed = 2 * len(batch.tokens.labels) * self._head.weight.numel()
        fixed *= 2 + self._head.weight.requires_grad + reference
        per_token, per_pair, towers = 0, Counter(), []
        for module, positions, times in self._linears:
            times += reference and module not in self._policys_own
            if module in self._language:
                per_token += 2 * module.weight.numel() * times
            else:
                fixed += 2 * module.weight.numel() * times * positions
        for attention, pairs, times in self._scores:
            times += reference and attention not in self._policys_own
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
    """Of all heads' queries together, in whichever family's attention."""
    return attention.q_proj.out_features if hasattr(attention, "q_proj") else attention.qkv.out_features // 3


def _tower_pairs(attended: Tensor, ends: Tensor | None) -> int | Tensor:
    """Each patch sees its image, or its window of it; left on the device where windows are there."""
    return attended.shape[:-1].numel() * attended.shape[-2] if ends is None else ends.diff().square().sum()
