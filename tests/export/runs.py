"""Directories of runs, as training leaves them, without training."""

from dataclasses import asdict
from pathlib import Path

import torch
import yaml

from rlaifv_pl.models.policy import LoRA, PolicySpec
from rlaifv_pl.objectives import SFTModule


def save_run(run: Path, base: str, lora: LoRA | None = None, *, by: float, step: int = 1) -> Path:
    """A run that has a config and a checkpoint, in which all that trains has moved.

    Args:
        run: directory.
        base: what it started from.
        lora: adapters, if it trains them.
        by: standard deviation of the move, of each value.
        step: of the checkpoint, which becomes `last`.
    """
    torch.manual_seed(0)
    spec = PolicySpec(path=base, lora=lora)
    module = SFTModule(policy=spec, optimizer=None)
    module.configure_model()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += by * torch.randn_like(parameter)
    checkpoint = {"state_dict": module.state_dict(), "global_step": step}
    module.on_save_checkpoint(checkpoint)
    directory = run / "checkpoints"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"epoch0-step{step}.ckpt"
    torch.save(checkpoint, path)
    (directory / "last.ckpt").unlink(missing_ok=True)
    (directory / "last.ckpt").symlink_to(path.name)
    settings = {"class_path": "rlaifv_pl.objectives.SFTModule", "init_args": {"policy": asdict(spec)}}
    (run / "config.yaml").write_text(yaml.safe_dump({"model": settings}))
    return run
