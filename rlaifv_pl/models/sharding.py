"""Models sharded over many processes (FSDP2): each holds a shard of every weight, and gathers a layer to use it.

The first process alone loads the model and distributes its shards, so that a node never holds it more than once.
Weights outside the layers (embeddings, head, projector) belong to the root.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from rlaifv_pl.models.policy import PolicyError
from rlaifv_pl.models.vlm import VLM


class Sharding(NamedTuple):
    """Device mesh and compute type of sharded models."""

    mesh: DeviceMesh
    """Processes that share a model; with two dimensions, the first counts replicas."""
    compute: torch.dtype | None
    """Type that gathered weights are cast to, with gradients reduced in float32; None keeps the weights' type."""

    @property
    def is_first(self) -> bool:
        """Whether this process loads the weights."""
        return dist.get_rank() == 0

    def hand_out(self, models: Sequence[VLM]) -> None:
        """Shard models, with the first process's weights.

        Args:
            models: models with the same parameter names; on the CPU in the first process, on the `meta` device in the
                others.
        """
        weights = dict(models[0].state_dict()) if self.is_first else {}
        for model in models:
            buffers = dict(model.named_buffers()) if self.is_first else {}
            self._shard(model)
            if not self.is_first:
                model.to_empty(device=self.mesh.device_type)
            options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
            set_model_state_dict(model, dict(weights), options=options)  # The call writes into it.
            for name, buffer in model.named_buffers():
                if self.is_first:
                    buffer.copy_(buffers[name])
                dist.broadcast(buffer, src=0)

    def _shard(self, model: VLM) -> None:
        precision = (
            MixedPrecisionPolicy(self.compute, torch.float32) if self.compute else MixedPrecisionPolicy()
        )
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        if not layers:
            raise PolicyError(
                f"trainer.strategy cuts models layer by layer, and none of {type(model.model).__name__}'s modules is a "
                "layer of transformers' (GradientCheckpointingLayer). Set trainer.strategy: ddp."
            )
        # The root reshards after the forward pass too: a reference has no backward pass.
        for module in (*layers, model):
            fully_shard(module, mesh=self.mesh, mp_policy=precision, reshard_after_forward=True)
        model.compute = self.compute
        # A layer that is called before its root (by `generate`, for instance) would become a root itself.
        model.wake = MethodType(lambda _self: None, model)
        register_fsdp_forward_method(model, "wake")


def full_tensor(value: Tensor) -> Tensor:
    """Gather a sharded weight, in a call of all processes; return an unsharded one as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def on_rank_zero(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with gathered tensors on the CPU of the first process, and nothing on others; all must call it."""
    gathered = {}
    for name, value in values.items():
        gathered_value = full_tensor(value.detach()).cpu() if isinstance(value, Tensor) else value
        if not dist.is_initialized() or dist.get_rank() == 0:
            gathered[name] = gathered_value
    return gathered


def local_tensor(value: Tensor) -> Tensor:
    """Return this process's shard of a weight."""
    return value.to_local() if isinstance(value, DTensor) else value


def shard_like(value: Tensor, like: Tensor) -> Tensor:
    """Shard a tensor that all processes have like another; return this process's shard."""
    if not isinstance(like, DTensor):
        return value
    # Without communication: each process takes its own shard.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


@contextmanager
def gather_parameters(model: VLM) -> Iterator[None]:
    """Keep all weights of a model on each process inside of the context; all processes must enter it."""
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if parts:
        model.wake()
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(True, recurse=False)
