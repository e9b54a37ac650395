"""FSDP2 as a strategy: models in slices over all processes, and checkpoints that any number of processes can read."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import Optimizer

from rlaifv_pl.models.sharding import Sharding, on_rank_zero
from rlaifv_pl.objectives.checks import RunError
from rlaifv_pl.training.checkpoint_io import checked
from rlaifv_pl.training.sharded_checkpoint import read_file, read_slices, write_slices


class FSDP2Strategy(ModelParallelStrategy):
    """Cuts policy and reference into slices: each process holds one, trains it, and has batches of its own.

    Lightning's stock strategy takes the devices of a node for one that computes each batch together, so that all of
    them get the same samples; here each process counts for itself.

    Args:
        compute: type in which weights are gathered and multiplied, while slices, gradients' sums and the optimiser
            keep the weights' own. Set `trainer.precision: 32-true` with it.
        devices_per_copy: processes that share one copy of the model; all of them unless given. The devices of a node
            keep gathering inside the node, and cost memory.
        distributed_checkpoint: each process writes its slices into a directory; else the first one writes a file as
            a single process does, for which it needs memory of the host for all weights and optimiser states.
        timeout: of processes waiting for each other.
        process_group_backend: nccl on GPUs and gloo on CPUs unless given.
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
        """How models are cut up."""
        return Sharding(self.device_mesh, self.compute)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup_environment(self) -> None:
        """Let the processes find each other, and lay out which of them share a copy.

        Raises:
            ValueError: copies of that size do not come out even.
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
        self.lightning_module._device_mesh = self._device_mesh

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """What trains, as slices, or whole on the first process if a file is written."""
        return self._kept(self._trained())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """As the optimiser says it, with its slices as they are, or whole on the first process."""
        stated = getattr(optimizer, "_optimizer", optimizer).state_dict()
        state = {number: self._kept(of_parameter) for number, of_parameter in stated["state"].items()}
        return stated | {"state": state}

    def _trained(self) -> dict[str, Tensor]:
        module: Any = self.lightning_module
        return module.trained_state()

    def _kept(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
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
        """A checkpoint with this process's slices, out of a directory or a file, whoever wrote it.

        Raises:
            RunError: a weight has another shape than the one in training.
        """
        path = Path(self.broadcast(str(checkpoint_path)))
        targets = self._targets()

        def like(place: str, shape: Sequence[int]) -> Tensor | None:
            target = targets.get(place, targets.get(place.rpartition("/")[0]))
            if target is not None and target.shape != torch.Size(shape):
                raise RunError(
                    f"{path}: {place} has shape {tuple(shape)}, and {tuple(target.shape)} trains here. Resume with the "
                    "config that the run was started with (config.yaml in its directory)."
                )
            return target

        read = read_slices if path.is_dir() else read_file
        return checked(path, lambda: read(path, like))

    def _targets(self) -> dict[str, Tensor]:
        """What trains, by its place in a checkpoint; that of an optimiser's states is their parameter's."""
        weights = {f"weights/{name}": value for name, value in self._trained().items()}
        for number, optimizer in enumerate(self.optimizers):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            weights |= {f"optimizer {number}/{place}": value for place, value in enumerate(parameters)}
        return weights

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        Strategy.load_optimizer_state_dict(self, checkpoint)
