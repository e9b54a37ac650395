"""FSDP2 as a strategy: models sharded over all processes, and checkpoints that any number of processes can read."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import Optimizer

from rlaifv_pl.lightning_compat import set_device_mesh
from rlaifv_pl.models.sharding import Sharding, on_rank_zero
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.objectives.checks import RunError
from rlaifv_pl.training.checkpoint_io import read_checked
from rlaifv_pl.training.sharded_checkpoint import read_file, read_slices, write_slices


class FSDP2Strategy(ModelParallelStrategy):
    """Shards models: each process holds and trains one slice, and has batches of its own.

    Lightning's stock strategy treats the devices of a node as one that computes each batch together, so all of them get
    the same samples; here each process is a data-parallel rank.

    Args:
        compute: dtype in which weights are gathered and multiplied; slices, reduced gradients and optimiser states
            keep the dtype of the weights. Set `trainer.precision: 32-true` with it.
        devices_per_copy: number of processes that share one copy of the model; all of them if None. The number of
            devices of a node keeps gathering inside the node, at the cost of memory.
        distributed_checkpoint: whether each process writes its slices into a directory; otherwise the first one writes
            a single file, for which it needs host memory for all weights and optimiser states.
        timeout: longest time that processes wait for each other.
        process_group_backend: nccl on GPUs and gloo on CPUs if None.
    """

    def __init__(
        self,
        compute: Literal["bfloat16"] | None = None,
        devices_per_copy: int | None = None,
        distributed_checkpoint: bool = True,
        timeout: timedelta = timedelta(hours=1),
        process_group_backend: str | None = None,
    ) -> None:
        super().__init__(
            save_distributed_checkpoint=distributed_checkpoint,
            timeout=timeout,
            process_group_backend=process_group_backend,
        )
        self.compute = compute and getattr(torch, compute)
        self.devices_per_copy = devices_per_copy

    @property
    def slicing(self) -> Sharding:
        """How models are sharded."""
        return Sharding(self.device_mesh, self.compute)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup_environment(self) -> None:
        """Initialise the process group and the device mesh.

        Raises:
            ValueError: the number of processes is no multiple of `devices_per_copy`.
        """
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()
        together = self.devices_per_copy or self.world_size
        if self.world_size % together:
            raise ValueError(
                f"trainer.strategy.devices_per_copy is {together}, expected a divisor of the number of processes, "
                f"{self.world_size}"
            )
        mesh = init_device_mesh(
            self.root_device.type, (self.world_size // together, together), mesh_dim_names=("copy", "slice")
        )
        self._device_mesh = mesh if self.devices_per_copy else mesh["slice"]
        set_device_mesh(self._module, self._device_mesh)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Trained weights, as slices, or whole on the first process if a single file is written."""
        return self._gathered(self._module.trained_state())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """State of the optimiser, as slices, or whole on the first process if a single file is written."""
        own = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        state = own.state_dict()
        return state | {
            "state": {number: self._gathered(tensors) for number, tensors in state["state"].items()}
        }

    @property
    def _module(self) -> AlignmentModule:
        module = self.lightning_module
        if not isinstance(module, AlignmentModule):
            raise TypeError(f"FSDP2Strategy trains an AlignmentModule, got {type(module).__name__}")
        return module

    def _gathered(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return tensors if self._save_distributed_checkpoint else on_rank_zero(tensors)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None
    ) -> None:
        path = Path(self.broadcast(str(filepath)))
        if self._save_distributed_checkpoint:
            write_slices(checkpoint, path)
        else:
            Strategy.save_checkpoint(self, checkpoint, path, storage_options)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read this process's slices of a checkpoint, from a directory or a file, of any number of processes.

        Raises:
            RunError: a weight has another shape than the one in training.
        """
        path = Path(self.broadcast(str(checkpoint_path)))
        targets = self._targets()

        def like(place: str, shape: Sequence[int]) -> Tensor | None:
            target = targets.get(place, targets.get(place.rpartition("/")[0]))
            if target is not None and target.shape != torch.Size(shape):
                raise RunError(
                    f"{path}: {place} has shape {tuple(shape)}, expected {tuple(target.shape)}. Resume with the "
                    "config that the run was started with (config.yaml in its directory)."
                )
            return target

        read = read_slices if path.is_dir() else read_file
        return read_checked(path, lambda: read(path, like))

    def _targets(self) -> dict[str, Tensor]:
        """Trained tensors by their place in a checkpoint; states of an optimiser are sharded as their parameters."""
        weights = {f"weights/{name}": value for name, value in self._module.trained_state().items()}
        for number, optimizer in enumerate(self.optimizers):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            weights |= {f"optimizer {number}/{place}": value for place, value in enumerate(parameters)}
        return weights

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        self._module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        Strategy.load_optimizer_state_dict(self, checkpoint)
