"""Memory of a device in training, part by part: the run's own step, on shapes."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from rlaifv_pl.models.attention import AUTO
from rlaifv_pl.models.policy import load_model
from rlaifv_pl.models.reference import Reference
from rlaifv_pl.models.vlm import VLM, Batch, Precomputed
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.preflight.parallelism import Parallelism
from rlaifv_pl.preflight.shapes import Held, Shape, counted, meta_of, size_of, without_values

CONTEXT = 1_000_000_000
"""Bytes of a GPU that CUDA, its kernels and libraries take before anything is computed."""
SLACK = 0.05
"""Share of a GPU that is lost between blocks of unequal size."""
ON_A_GPU = ("flex", "flash")
"""Attention that this machine may not run; it keeps what `AUTO` keeps."""


class CannotEstimate(RuntimeError):
    """The model's code looks at values that shapes do not have."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of a device."""

    steady: dict[str, int]
    """What is held all the time, by part."""
    passing: dict[str, int]
    """What comes and goes, by occasion; only the largest counts."""

    @property
    def total(self) -> int:
        """At the highest."""
        return sum(self.steady.values()) + max(self.passing.values(), default=0)


@dataclass(frozen=True)
class Situation:
    """In which a step is computed."""

    batch: Batch
    spread: Parallelism
    is_cuda: bool
    accumulates: bool


def usable(memory: int, is_cuda: bool) -> int:
    """Bytes of a device that a run can fill."""
    return int((memory - CONTEXT) * (1 - SLACK)) if is_cuda else memory


def memory_of(module: AlignmentModule, now: Situation) -> MemoryEstimate:
    """Of a device, in a step on a batch.

    Args:
        module: as the config makes it, without its policy; it stays so.
        now: what it computes, and on how many devices.

    Raises:
        CannotEstimate: the model's code asks for values.
        PolicyError: the policy cannot be made.
    """
    spread, module = now.spread, in_shapes(module, now.spread)
    own = [[*model.parameters(), *model.buffers()] for model in _models(module)]
    trained = [parameter for parameter in module.policy.parameters() if parameter.requires_grad]
    weights, grads = size_of(own[0]), size_of(trained)
    with _told():
        state, spent = _optimiser(module, trained)
        peak = _step(module, now, trained)
        check = _check(module, now)
    foreach = grads if now.is_cuda and _is_foreach(module) else spent
    # What policy and reference share is held once.
    steady = {"weights": weights, "reference": size_of([t for each in own for t in each]) - weights}
    steady |= {"gradients": grads, "optimiser": state}
    steady = {name: -(-size // spread.together) for name, size in steady.items()}
    if spread.has_buckets:
        steady["gradient buckets"] = grads
    if spread.together > 1:
        peak += (gathered := _gathered(module.policy, spread))
        check += gathered
    passing = {
        "activations": max(0, peak - (0 if _frees(now) else grads)),
        "optimiser's step": -(-foreach // spread.together),
        "check of the first batch": check,
    }
    return MemoryEstimate(steady, passing)


def in_shapes(module: AlignmentModule, spread: Parallelism) -> AlignmentModule:
    """A copy of a module with a policy, and a reference, that have shapes and no values."""
    made = copy.copy(module)
    made._modules = dict(module._modules)
    spec = module.policy_spec
    if spec.attention in ON_A_GPU:
        spec = replace(spec, attention=AUTO)
    made.policy = VLM(load_model(spec, empty=True), spec.attention).train()
    mode = module.reference_mode
    made.__dict__["reference"] = Reference(made.policy, mode) if mode in ("live", "adapter_off") else None
    for model in _models(made):
        if spread.cast is not None:
            model.to(spread.cast)
    without_values(_models(made))
    return made


def _models(module: AlignmentModule) -> list[VLM]:
    """The policy, and the reference's copy if there is one."""
    copied = module.reference.copy if module.reference else None
    return [module.policy] if copied is None else [module.policy, copied]


def _frees(now: Situation) -> bool:
    """Whether all gradients are there besides what a batch computes of them."""
    return now.accumulates or now.spread.together > 1 or now.spread.has_buckets


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        if not any(word in str(error) for word in ("meta", "Meta", "item()", "fake")):
            raise
        raise CannotEstimate(
            f"its code asks for values that are computed: {str(error).splitlines()[0]}"
        ) from error


def _optimiser(module: AlignmentModule, trained: Sequence[nn.Parameter]) -> tuple[int, int]:
    """Bytes of its state, and the most that a step holds beside it: one is made."""
    optimizer = module.configure_optimizers()
    for parameter in trained:
        parameter.grad = Shape(torch.empty_like(meta_of(parameter)))
    held = Held()
    with counted(held):
        optimizer.step()
    for parameter in trained:
        parameter.grad = None
    state = size_of(
        value for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)
    )
    return state, max(0, held.peak - state)


def _is_foreach(module: AlignmentModule) -> bool:
    """Whether torch, on a GPU, takes all weights in one go, with a copy of them on the way."""
    settings = module._optimizer_settings[0]
    return "foreach" in settings and settings["foreach"] is not False and not settings.get("fused")


def _step(module: AlignmentModule, now: Situation, trained: Sequence[nn.Parameter]) -> int:
    """The most that forward and backward hold, gradients included unless there are some already."""
    held, hooks = Held(), []
    if _frees(now):
        hooks = [parameter.register_post_accumulate_grad_hook(_forget) for parameter in trained]
    batch = _with_reference(module, now.batch)
    with _computing(module, now.spread), counted(held):
        with now.spread.autocast():
            loss = module.objective(batch).loss
        loss.backward()
    for hook in hooks:
        hook.remove()
    for parameter in trained:
        parameter.grad = None
    return held.peak


def _forget(parameter: Tensor) -> None:
    parameter.grad = None


def _check(module: AlignmentModule, now: Situation) -> int:
    """The most that the comparison of trees and rows holds."""
    if not module.policy.shares(now.batch):
        return 0
    held = Held()
    with _computing(module, now.spread), counted(held), torch.no_grad(), now.spread.autocast():
        module.policy(now.batch.as_rows())
    return held.peak


@contextmanager
def _computing(module: AlignmentModule, spread: Parallelism) -> Iterator[None]:
    """The weights in the type that they are gathered in, not counted here."""
    if spread.compute is None:
        yield
        return
    models = _models(module)
    kept = [(part, dict(part._parameters)) for model in models for part in model.modules()]
    known: dict[int, nn.Parameter] = {}
    for part, parameters in kept:
        for name, weight in parameters.items():
            if weight is not None:
                part._parameters[name] = known.setdefault(
                    id(weight), _gathered_weight(weight, spread.compute)
                )
    for model in models:
        model.compute = spread.compute
    try:
        yield
    finally:
        for part, parameters in kept:
            part._parameters.update(parameters)


def _gathered_weight(weight: Tensor, dtype: torch.dtype) -> nn.Parameter:
    made = nn.Parameter(Shape(meta_of(weight).to(dtype)), requires_grad=weight.requires_grad)
    if weight.requires_grad:
        made.register_post_accumulate_grad_hook(_forget)
    return made


def _with_reference(module: AlignmentModule, batch: Batch) -> Batch:
    """With log-ps of a cached reference, which training finds beside the shards."""
    if module.reference_mode != "cached":
        return batch
    return replace(batch, precomputed=Precomputed(torch.zeros(len(batch.tokens.labels))))


def _gathered(policy: VLM, spread: Parallelism) -> int:
    """Bytes of what is whole at a time: the root with its gradients, two layers, the gradients of one, and the
    float32 in which those travel."""
    layers = [module for module in policy.modules() if isinstance(module, GradientCheckpointingLayer)]
    inside = {id(p) for layer in layers for p in layer.parameters()}
    root = [parameter for parameter in policy.parameters() if id(parameter) not in inside]
    width = spread.compute.itemsize if spread.compute else 4

    def count(parameters: Any, keep: Callable[[Tensor], bool] = lambda _p: True) -> int:
        return sum(p.numel() for p in parameters if keep(p))

    def trains(parameter: Tensor) -> bool:
        return parameter.requires_grad

    largest = max(layers, key=lambda layer: count(layer.parameters()))
    at_layer = 2 * count(largest.parameters()) * width + count(largest.parameters(), trains) * (width + 4)
    at_root = count(root, trains) * 4
    return (count(root) + count(root, trains)) * width + max(at_layer, at_root)
