"""A model in slices over many processes (FSDP2): each holds a slice of every weight, and gathers a layer to use it.

The model is loaded by the first process alone and handed out slice by slice, so that a node never holds it more
than once. Weights outside the layers (embeddings, head, projector) are the root's.
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
    """How models are cut up."""

    mesh: DeviceMesh
    """Of the processes that share a model; with two dimensions, the first is of whole copies."""
    compute: torch.dtype | None
    """What gathered weights are cast to; gradients are added up in float32 then. None leaves them as they are."""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that loads."""
        return dist.get_rank() == 0

    def hand_out(self, models: Sequence[VLM]) -> None:
        """Cut models into slices, with the first process's weights.

        Args:
            models: with the same names; those of the first process have their weights on the CPU, and those of the
                others are on the `meta` device.
        """
        weights = dict(models[0].state_dict()) if self.is_first else {}
        for model in models:
            buffers = {name: buffer for name, buffer in model.named_buffers()} if self.is_first else {}
            self._cut(model)
            if not self.is_first:
                model.to_empty(device=self.mesh.device_type)
            options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
            set_model_state_dict(model, dict(weights), options=options)  # It is written into.
            for name, buffer in model.named_buffers():
                if self.is_first:
                    buffer.copy_(buffers[name])
                dist.broadcast(buffer, src=0)

    def _cut(self, model: VLM) -> None:
        precision = (
            MixedPrecisionPolicy(self.compute, torch.float32) if self.compute else MixedPrecisionPolicy()
        )
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        if not layers:
            raise PolicyError(
                f"trainer.strategy cuts models layer by layer, and none of {type(model.model).__name__}'s modules is a "
                "layer of transformers' (GradientCheckpointingLayer). Set trainer.strategy: ddp."
            )
        # The root's weights are given up after the forward pass too: a reference has no backward pass to do it.
        for module in (*layers, model):
            fully_shard(module, mesh=self.mesh, mp_policy=precision, reshard_after_forward=True)
        model.compute = self.compute
        # A layer that is called before its root was, by `generate` for instance, would take itself for a root.
        model.wake = MethodType(lambda _self: None, model)
        register_fsdp_forward_method(model, "wake")


def full_tensor(value: Tensor) -> Tensor:
    """A weight out of its slices; all processes must ask. One that is whole is itself."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def on_rank_zero(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with whole tensors on the CPU of the first process, and nothing on the others; all must ask."""
    found = {}
    for name, value in values.items():
        gathered_value = full_tensor(value.detach()).cpu() if isinstance(value, Tensor) else value
        if not dist.is_initialized() or dist.get_rank() == 0:
            found[name] = gathered_value
    return found


def local_tensor(value: Tensor) -> Tensor:
    """What this process holds of a weight."""
    return value.to_local() if isinstance(value, DTensor) else value


def shard_like(value: Tensor, like: Tensor) -> Tensor:
    """This process's slice of a whole tensor that all of them have, cut like another."""
    if not isinstance(like, DTensor):
        return value
    # From no other process: each cuts its own.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


@contextmanager
def gather_parameters(model: VLM) -> Iterator[None]:
    """All weights of a model on each process, for as many calls as each likes; all processes must enter."""
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
