"""Reference log-ps: those of the model that the policy started from, at the least cost."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from rlaifv_pl.models.policy import vision_tower
from rlaifv_pl.models.sharding import local_tensor, shard_like
from rlaifv_pl.models.vision_cache import patched_forward
from rlaifv_pl.models.vlm import VLM, Batch

ReferenceMode = Literal["live", "adapter_off", "cached", "none"]
"""`live`: a frozen copy of the policy as it was loaded; `adapter_off`: the policy without its LoRA adapters;
`cached`: log-ps that were computed once, before training, and lie beside the shards."""


class VisionFeatureMemo:
    """Outputs of a frozen vision tower on a batch, computed for the policy and reused for the reference.

    Policy and reference hold the same frozen tower, or are one model with adapters on and off.
    """

    def __init__(self) -> None:
        self._outputs: list = []

    @contextmanager
    def record(self, policy: VLM) -> Iterator[None]:
        """Keep the tower's outputs."""
        # Copied, since the Qwen families write into what their tower returns.
        tower = vision_tower(policy.model)
        hook = tower.register_forward_hook(lambda _m, _i, output: self._outputs.append(copy.copy(output)))
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def replay(self, reference: VLM) -> Iterator[None]:
        """Return the kept outputs call by call instead of running the tower."""
        outputs = iter(self._outputs)
        with patched_forward(
            vision_tower(reference.model), lambda *_inputs, **_options: copy.copy(next(outputs))
        ):
            yield


@torch.no_grad()
def copy_frozen(model: VLM) -> VLM:
    """Return a frozen copy that shares the parameters which are frozen already; only the others cost memory."""
    shared = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
    return copy.deepcopy(model, shared).requires_grad_(False).eval()


class Reference:
    """Computes reference log-ps of a batch after the policy did, without running a frozen vision tower again.

    Args:
        policy: model as it was loaded, before any training.
        mode: `live` keeps a frozen copy, which shares the frozen parameters of the policy; `adapter_off`
            is the policy without its LoRA adapters, valid since nothing else of it trains.
    """

    def __init__(self, policy: VLM, mode: Literal["live", "adapter_off"]) -> None:
        self.policy = policy
        self.copy = copy_frozen(policy) if mode == "live" else None
        self._memo = VisionFeatureMemo()
        self._shares_tower = not any(p.requires_grad for p in vision_tower(policy.model).parameters())

    @torch.no_grad()
    def refresh(self, policy: VLM, keep: float = 0.0) -> None:
        """Update the copy from the policy's present weights.

        Args:
            policy: model in training.
            keep: share of the copy's own weights that stays; 0 makes it equal to the policy.
        """
        own = self._copied_parameters()
        for name, parameter in _trained(policy):
            old, new = local_tensor(own[name]), local_tensor(parameter)
            old.copy_(new if keep == 0 else torch.lerp(new.to(old), old, keep))

    def state(self) -> dict[str, Tensor]:
        """Return the copy's own weights: those that train in the policy; shards where it is sharded."""
        own = self._copied_parameters()
        return {name: own[name].detach() for name, _ in _trained(self.policy)}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Load unsharded weights as `state` returned them.

        Raises:
            KeyError: they belong to other parameters.
        """
        own = self._copied_parameters()
        for name, _ in _trained(self.policy):
            own[name].copy_(shard_like(state[name], own[name]))

    def _copied_parameters(self) -> dict[str, Tensor]:
        if self.copy is None:
            raise ValueError("reference: adapter_off has no weights of its own; only a live reference has.")
        return dict(self.copy.named_parameters())

    @contextmanager
    def capture_vision_features(self) -> Iterator[None]:
        """Keep the frozen tower's outputs during the policy's forward pass on a batch."""
        self._memo = VisionFeatureMemo()
        with self._memo.record(self.policy) if self._shares_tower else nullcontext():
            yield

    @torch.no_grad()
    def token_logps(self, batch: Batch) -> Tensor:
        """(M,) reference log-ps of the batch that `capture_vision_features` was entered for, in nats."""
        model = self.copy or self.policy
        adapters = nullcontext() if self.copy is not None else frozen(self.policy, adapters=False)
        with self._memo.replay(model) if self._shares_tower else nullcontext(), adapters:
            return model(batch)


@contextmanager
def frozen(policy: VLM, *, adapters: bool = True) -> Iterator[None]:
    """Use the policy as a reference: without dropout, and without its LoRA adapters unless `adapters` is set."""
    training = policy.training
    policy.eval()
    without_adapters = nullcontext if adapters else getattr(policy.model, "disable_adapter", nullcontext)
    try:
        with without_adapters():
            yield
    finally:
        policy.train(training)


def _trained(policy: VLM) -> Iterator[tuple[str, Tensor]]:
    return ((name, parameter) for name, parameter in policy.named_parameters() if parameter.requires_grad)


def resolve_reference(mode: ReferenceMode | Literal["auto"], has_adapters: bool) -> ReferenceMode:
    """Resolve `auto`: `adapter_off` for a policy with adapters, `live` for others.

    Raises:
        ValueError: `adapter_off` without adapters.
    """
    if mode == "auto":
        return "adapter_off" if has_adapters else "live"
    if mode == "adapter_off" and not has_adapters:
        raise ValueError(
            "reference: adapter_off takes the policy without its adapters as reference, but policy.lora is not set, "
            "so the reference would be the policy itself. Set policy.lora, or reference: live."
        )
    return mode
