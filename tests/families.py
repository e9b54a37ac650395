"""Tiny random models of the supported families, with processors that behave like the public checkpoints'.

`build("llava", path)` saves model, processor, chat template and generation config; the Auto classes load them
back. Decoders have two layers of width 32; an image becomes 2 to a few dozen tokens.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import PreTrainedModel

from tests import family_models
from tests.torchvision_shim import install_torchvision_shim

__all__ = ["FAMILIES", "build", "install_torchvision_shim", "needs_torchvision", "unsupported_reason"]

FAMILIES = ("llava", "llava_next", "qwen2_5_vl", "qwen3_vl", "gemma3", "idefics3", "smolvlm", "internvl")

_VIDEO_FAMILIES = ("qwen2_5_vl", "qwen3_vl", "smolvlm", "internvl")
_STD = 0.2  # spreads log-ps by nats over positions; another image moves them by 0.2 to 1.2


def needs_torchvision(family: str) -> bool:
    """Whether the processor owns a video processor, which transformers builds with torchvision only."""
    return family in _VIDEO_FAMILIES


def unsupported_reason(family: str) -> str | None:
    """What has to be installed before the family can be built, or None: the reason for a test to skip."""
    if needs_torchvision(family) and find_spec("torchvision") is None:
        return f"the {family} processor needs torchvision: see tests/torchvision_shim.py"
    if family == "smolvlm" and find_spec("num2words") is None:
        return "the smolvlm processor needs num2words"
    return None


def build(family: str, path: Path, seed: int = 0) -> Path:
    """Saves a model with weights drawn from `seed`, and its processor, under `path`; returns `path`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # Of what the model draws for itself, which vectors keep.
        model, processor = getattr(family_models, family)()
    _draw(model, seed)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return Path(path)


def _draw(model: PreTrainedModel, seed: int) -> None:
    """Draws matrices wide; vectors (norms, biases, layer scales) stay near where they start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(_STD * noise)
            else:
                parameter.add_(0.1 * _STD * noise)
