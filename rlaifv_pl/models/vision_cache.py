"""What a frozen vision tower makes of images, taken apart to be kept and put together again.

A tower returns more than the model reads (LLaVA's all hidden states, of which one is read). Only that is kept, and it
lies one image behind the other, so that a batch's is the concatenation of its images'.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rlaifv_pl.models.attention import rounding_dtype
from rlaifv_pl.models.policy import PolicyError, unwrap_model, vision_tower

Images = Mapping[str, Tensor]
"""Processor outputs, as a model's `get_image_features` takes them."""

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Of image features, relative in the Euclidean norm. Other images, and images in another order, differ by 0.3 and
more."""


@contextmanager
def patched_forward(tower: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Call `forward` in place of the tower's own; hooks still run."""
    before = vars(tower).get("forward")
    tower.forward = forward
    try:
        yield
    finally:
        del tower.forward
        if before is not None:
            tower.forward = before


def consumed(features: Any) -> list[Tensor]:
    """The tensors of a model's image features that its language model reads."""
    return pytree.tree_leaves((features.pooler_output, getattr(features, "deepstack_features", None) or ()))


class VisionFeatureLayout:
    """How a tower's output is built, which of its tensors the model reads, and how to do without the tower.

    Args:
        model: of transformers, or a PEFT model around one; its tower is frozen.
        images: any, to see what the tower returns.

    Raises:
        PolicyError: the model reads what cannot be kept.
    """

    def __init__(self, model: nn.Module, images: Images) -> None:
        # A validation may have begun, and what it computes can never have a gradient.
        with torch.inference_mode(False):
            output = vision_output(model, images)
            paths, self._spec = pytree.tree_flatten_with_path(output)
            self._used = self._find_used(model, images, [leaf for _, leaf in paths])
        self.names = [pytree.keystr(paths[number][0]) for number in self._used]
        """Of the tensors that are kept, for instance `['hidden_states'][1]`."""
        self.empty = [paths[number][1][:0].cpu() for number in self._used]
        """What is kept of no image."""
        self._checked: set[bool] = set()

    def take(self, output: Any) -> list[Tensor]:
        """What is kept of an output.

        Raises:
            PolicyError: it is shaped by what its images are, and cannot stand beside others.
        """
        leaves, spec = pytree.tree_flatten(output)
        if spec != self._spec:
            raise _refusal("its output is built in more than one way")
        kept = [leaves[number] for number in self._used]
        if [leaf.shape[1:] for leaf in kept] != [leaf.shape[1:] for leaf in self.empty]:
            raise _refusal(f"its output has the shapes {[tuple(leaf.shape) for leaf in kept]}")
        return kept

    def features(self, model: nn.Module, images: Images, kept: Sequence[Tensor], *, several: bool) -> Any:
        """Image features as the model's `get_image_features` computes them, without its tower.

        Args:
            images: of a batch.
            kept: of its images, one behind the other.
            several: whether they are of more than one tree.

        Raises:
            PolicyError: the features of the first batch are not those of the tower, or of the first of several trees.
        """
        if several not in self._checked:
            self.check(model, images, kept)
            self._checked.add(several)
        return self._replay(model, images, kept)

    @torch.no_grad()
    def check(self, model: nn.Module, images: Images, kept: Sequence[Tensor]) -> None:
        """Compare with what the tower computes.

        Raises:
            PolicyError: they differ by more than rounding.
        """
        expected = consumed(unwrap_model(model).get_image_features(**images, return_dict=True))
        try:
            found = consumed(self._replay(model, images, kept))
            errors = [_distance(one, other) for one, other in zip(found, expected, strict=True)]
        except (RuntimeError, TypeError, AttributeError, ValueError) as error:
            raise _refusal(f"the model says {error!r}") from error
        allowed = TOLERANCE[rounding_dtype(unwrap_model(model))]
        if not max(errors) <= allowed:
            raise _refusal(
                f"features differ by {max(errors):.2g} of their norm, and rounding explains {allowed:.2g}"
            )

    def _replay(self, model: nn.Module, images: Images, kept: Sequence[Tensor]) -> Any:
        # None where nothing is kept: whoever reads it fails aloud.
        leaves: list[Tensor | None] = [None] * self._spec.num_leaves
        for number, leaf in zip(self._used, kept, strict=True):
            leaves[number] = leaf
        return self._with_leaves(model, images, leaves)

    def _with_leaves(self, model: nn.Module, images: Images, leaves: list[Any]) -> Any:
        with patched_forward(vision_tower(model), lambda *_inputs, **_options: self._rebuilt(leaves)):
            return unwrap_model(model).get_image_features(**images, return_dict=True)

    def _rebuilt(self, leaves: list[Any]) -> Any:
        # Anew for each call, since families write into what their tower returns.
        return pytree.tree_unflatten(leaves, self._spec)

    def _find_used(self, model: nn.Module, images: Images, leaves: list[Any]) -> list[int]:
        """Numbers of the leaves that have a derivative of the features."""
        floating = [n for n, leaf in enumerate(leaves) if torch.is_tensor(leaf) and leaf.is_floating_point()]
        marked = list(leaves)
        for number in floating:
            marked[number] = leaves[number].detach().clone().requires_grad_()
        with torch.enable_grad():
            read = consumed(self._with_leaves(model, images, marked))
            total = torch.stack([value.float().sum() for value in read]).sum()
            if not total.requires_grad:
                raise _refusal("what the model reads of it has no derivative")
            slopes = torch.autograd.grad(total, [marked[number] for number in floating], allow_unused=True)
        return [number for number, slope in zip(floating, slopes, strict=True) if slope is not None]


@torch.no_grad()
def vision_output(model: nn.Module, images: Images) -> Any:
    """What the tower returns when the model computes the features of images.

    Raises:
        PolicyError: it is called more than once.
    """
    outputs: list[Any] = []
    # Copied, since families write into it.
    hook = vision_tower(model).register_forward_hook(
        lambda _tower, _inputs, output: outputs.append(copy.copy(output))
    )
    try:
        unwrap_model(model).get_image_features(**images, return_dict=True)
    finally:
        hook.remove()
    if len(outputs) != 1:
        raise _refusal(f"it is called {len(outputs)} times for one set of images")
    return outputs[0]


def _distance(one: Tensor, other: Tensor) -> float:
    return ((one - other).double().norm() / other.double().norm().clamp(min=1e-30)).item()


def _refusal(detail: str) -> PolicyError:
    return PolicyError(
        "What this policy's vision tower computes of a batch cannot be put together from what was kept of its samples: "
        f"{detail}. Set data.cache_vision: false."
    )
