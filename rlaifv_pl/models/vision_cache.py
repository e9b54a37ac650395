"""Storage of a frozen vision tower's output, image by image, and its reassembly for a batch.

A tower returns more than the model reads (LLaVA's returns all hidden states, one of which is read). Only what is read
is kept. It is laid out image by image, so that a batch's features are the concatenation of its images'.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rlaifv_pl.models.attention import rounding_dtype
from rlaifv_pl.models.policy import PolicyError, unwrap_model, vision_tower

Leaves = list[Any]
"""Leaves of a tower's output as a pytree: tensors, None and plain values."""
Images = Mapping[str, Tensor]
"""Processor outputs, as a model's `get_image_features` takes them."""


class ImageFeatures(Protocol):
    """Output of a model's `get_image_features`; some families add `deepstack_features`, one entry a layer."""

    pooler_output: Tensor | Sequence[Tensor]


TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Allowed relative difference of image features in the Euclidean norm, by type. Other images, and images in another
order, differ by 0.3 and more."""


@contextmanager
def patched_forward(tower: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace the tower's forward by `forward`; hooks still run."""
    before = vars(tower).get("forward")
    tower.forward = forward
    try:
        yield
    finally:
        del tower.forward
        if before is not None:
            tower.forward = before


def consumed(features: ImageFeatures) -> list[Tensor]:
    """Return the tensors of a model's image features that its language model reads."""
    return pytree.tree_leaves((features.pooler_output, getattr(features, "deepstack_features", None) or ()))


class VisionFeatureLayout:
    """Structure of a tower's output: which of its tensors the model reads, and how to replace the tower by them.

    Args:
        model: of transformers, or a PEFT model around one; its tower is frozen.
        images: examples on which the tower's output is examined.

    Raises:
        PolicyError: the model reads something that cannot be kept.
    """

    def __init__(self, model: nn.Module, images: Images) -> None:
        # Tensors of a validation's inference mode can never have a gradient.
        with torch.inference_mode(False):
            output = vision_output(model, images)
            paths, self._spec = pytree.tree_flatten_with_path(output)
            self._used = self._find_used(model, images, [leaf for _, leaf in paths])
        self.names = [pytree.keystr(paths[number][0]) for number in self._used]
        """Names of the tensors that are kept, for instance `['hidden_states'][1]`."""
        self.empty = [paths[number][1][:0].cpu() for number in self._used]
        """Kept tensors for no image, of length 0."""
        self._checked: set[bool] = set()

    def take(self, output: object) -> list[Tensor]:
        """Return the tensors of an output that are kept.

        Raises:
            PolicyError: their shapes depend on the images, so that they cannot be concatenated.
        """
        leaves, spec = pytree.tree_flatten(output)
        if spec != self._spec:
            raise _not_cacheable("its output is built in more than one way")
        kept = [leaves[number] for number in self._used]
        if [leaf.shape[1:] for leaf in kept] != [leaf.shape[1:] for leaf in self.empty]:
            raise _not_cacheable(f"its output has the shapes {[tuple(leaf.shape) for leaf in kept]}")
        return kept

    def features(
        self, model: nn.Module, images: Images, kept: Sequence[Tensor], *, several: bool
    ) -> ImageFeatures:
        """Compute image features as the model's `get_image_features` does, without running its tower.

        Args:
            model: model of transformers, or a PEFT model around one.
            images: processor outputs of a batch.
            kept: kept tensors, concatenated over its images.
            several: whether the images belong to more than one tree.

        Raises:
            PolicyError: the features of the first batch, or of the first with several trees, are not the tower's.
        """
        if several not in self._checked:
            self.check(model, images, kept)
            self._checked.add(several)
        return self._replay(model, images, kept)

    @torch.no_grad()
    def check(self, model: nn.Module, images: Images, kept: Sequence[Tensor]) -> None:
        """Compare kept tensors with the tower's output.

        Raises:
            PolicyError: they differ by more than rounding.
        """
        expected = consumed(unwrap_model(model).get_image_features(**images, return_dict=True))
        try:
            replayed = consumed(self._replay(model, images, kept))
            errors = [_distance(one, other) for one, other in zip(replayed, expected, strict=True)]
        except (RuntimeError, TypeError, AttributeError, ValueError) as error:
            raise _not_cacheable(f"the model says {error!r}") from error
        allowed = TOLERANCE[rounding_dtype(unwrap_model(model))]
        if not max(errors) <= allowed:
            raise _not_cacheable(
                f"features differ by {max(errors):.2g} of their norm, and rounding explains {allowed:.2g}"
            )

    def _replay(self, model: nn.Module, images: Images, kept: Sequence[Tensor]) -> ImageFeatures:
        # None where nothing is kept, so that reading it raises.
        leaves: Leaves = [None] * self._spec.num_leaves
        for number, leaf in zip(self._used, kept, strict=True):
            leaves[number] = leaf
        return self._with_leaves(model, images, leaves)

    def _with_leaves(self, model: nn.Module, images: Images, leaves: Leaves) -> ImageFeatures:
        with patched_forward(vision_tower(model), lambda *_inputs, **_options: self._rebuilt(leaves)):
            return unwrap_model(model).get_image_features(**images, return_dict=True)

    def _rebuilt(self, leaves: Leaves) -> object:
        # Anew for each call, since some families write into their tower's output.
        return pytree.tree_unflatten(leaves, self._spec)

    def _find_used(self, model: nn.Module, images: Images, leaves: Leaves) -> list[int]:
        """Return the indices of the leaves on which the features depend, by their derivative."""
        floating = [n for n, leaf in enumerate(leaves) if torch.is_tensor(leaf) and leaf.is_floating_point()]
        inputs = list(leaves)
        for number in floating:
            inputs[number] = leaves[number].detach().clone().requires_grad_()
        with torch.enable_grad():
            read = consumed(self._with_leaves(model, images, inputs))
            total = torch.stack([value.float().sum() for value in read]).sum()
            if not total.requires_grad:
                raise _not_cacheable("what the model reads of it has no derivative")
            gradients = torch.autograd.grad(total, [inputs[number] for number in floating], allow_unused=True)
        return [number for number, gradient in zip(floating, gradients, strict=True) if gradient is not None]


@torch.no_grad()
def vision_output(model: nn.Module, images: Images) -> object:
    """Return the tower's output while the model computes the features of images.

    Raises:
        PolicyError: it is called more than once.
    """
    outputs: list[object] = []
    # Copied, since some families write into it.
    hook = vision_tower(model).register_forward_hook(
        lambda _tower, _inputs, output: outputs.append(copy.copy(output))
    )
    try:
        unwrap_model(model).get_image_features(**images, return_dict=True)
    finally:
        hook.remove()
    if len(outputs) != 1:
        raise _not_cacheable(f"it is called {len(outputs)} times for one set of images")
    return outputs[0]


def _distance(one: Tensor, other: Tensor) -> float:
    return ((one - other).double().norm() / other.double().norm().clamp(min=1e-30)).item()


def _not_cacheable(detail: str) -> PolicyError:
    return PolicyError(
        "What this policy's vision tower computes of a batch cannot be put together from what was kept of its samples: "
        f"{detail}. Set data.cache_vision: false."
    )
