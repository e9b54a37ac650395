"""Both sides of a step of DPO on a device: ours with every backend, and TRL's trainer."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest.mock import patch

import torch
from lightning.fabric.utilities import move_data_to_device
from transformers import LlavaForConditionalGeneration, PreTrainedModel

from benchmarks.flops import Lengths
from benchmarks.shapes import SHAPES, make_config, make_processor
from rlaifv_pl.models import loading, policy
from rlaifv_pl.models.policy import LoRA, PolicySpec
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives import DPOModule
from rlaifv_pl.records import Sample

RATE = 1e-6


class Setting(NamedTuple):
    """What trains, against what."""

    lora: LoRA | None
    checkpointing: bool
    reference: Literal["live", "adapter_off", "cached"]


@dataclass(frozen=True)
class Bench:
    """What all settings share."""

    shape: str
    device: torch.device
    drawn: Sequence[list[Sample]]
    """Batches of pairs."""
    steps: int
    """That are timed."""

    @property
    def dtype(self) -> torch.dtype:
        """Of all weights."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    def processor(self) -> Any:
        """Of the model."""
        return make_processor(SHAPES[self.shape])

    def model(self) -> PreTrainedModel:
        """The same random one each time, made on the device."""
        torch.manual_seed(0)
        config = make_config(SHAPES[self.shape], self.processor())
        with self.device:
            return LlavaForConditionalGeneration._from_config(config, dtype=self.dtype)


class Way(NamedTuple):
    """One way to take a step; both take the number of a batch."""

    backward: Callable[[int], tuple[float, float]]
    """Loss, and norm of the gradients before they are clipped; leaves no gradient."""
    step: Callable[[int], object]


class OurSide:
    """DPO as configured by a setting, whose backend changes from way to way."""

    def __init__(self, bench: Bench, setting: Setting) -> None:
        spec = PolicySpec(
            path="made on the device", lora=setting.lora, gradient_checkpointing=setting.checkpointing
        )
        adamw = partial(torch.optim.AdamW, lr=RATE, weight_decay=0.0, fused=bench.device.type == "cuda")
        self.module = module = DPOModule(policy=spec, optimizer=adamw, reference=setting.reference)
        module.processor = bench.processor()
        made = patch.object(policy, "read_model", lambda *_inputs, **_options: bench.model())
        with made, patch.object(loading, "validate_checkpoint", lambda *_inputs, **_options: True):
            module.configure_model()
        self.adapters = module.policy.model.peft_config["default"] if setting.lora else None
        self.optimizer, collate = module.configure_optimizers(), module.collator("raise")
        self.batches: list[Batch] = [
            move_data_to_device(collate(pairs), bench.device) for pairs in bench.drawn
        ]
        if setting.reference == "cached":
            for batch in self.batches:
                with torch.no_grad():
                    batch.precomputed.reference_logps = self._with("rows").policy(batch)
        leave(module.policy.model)

    def way(self, attention: str) -> Way:
        """With a backend, or rows."""

        def backward(number: int) -> tuple[float, float]:
            found = self._backward(number, attention)
            self.optimizer.zero_grad()
            return found

        def step(number: int) -> None:
            self._backward(number, attention)
            self.optimizer.step()
            self.optimizer.zero_grad()

        return Way(backward, step)

    def _backward(self, number: int, attention: str) -> tuple[float, float]:
        module = self._with(attention)
        self.optimizer.zero_grad()  # Of a way that failed half-way.
        loss = module.objective(self.batches[number]).loss
        loss.backward()
        return loss.item(), torch.nn.utils.clip_grad_norm_(module.policy.parameters(), 1.0).item()

    def _with(self, attention: str) -> DPOModule:
        self.module.policy.attention = attention
        if self.module.reference is not None and self.module.reference.copy is not None:
            self.module.reference.copy.attention = attention
        return self.module

    @property
    def lengths(self) -> list[Lengths]:
        """Of all pairs."""
        return [pair for batch in self.batches for pair in _lengths(batch)]


def their_side(bench: Bench, setting: Setting, adapters: Any | None, folder: Path) -> Way | None:
    """TRL's trainer at the same; None where TRL is not installed, or cannot do it."""
    if importlib.util.find_spec("trl") is None or setting.reference == "cached":
        return None
    from benchmarks.trl_side import TRLSide, settings

    models = [bench.model() for _ in range(1 if setting.lora else 2)]
    args = settings(len(bench.drawn[0]), RATE, folder, setting.checkpointing, bench.device.type)
    side = TRLSide.around(models, bench.processor(), args, bench.drawn[0], adapters)
    leave(side.trainer.model)
    batches = [side.collate(pairs) for pairs in bench.drawn]

    def backward(number: int) -> tuple[float, float]:
        found = side.backward(batches[number], answers_only=True)
        side.trainer.model.zero_grad()
        return found

    return Way(backward, lambda number: side.step(batches[number], answers_only=True))


@torch.no_grad()
def leave(model: torch.nn.Module) -> None:
    """Move what trains away from the reference, where all losses are ln 2; equal models stay equal."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.normal_(std=0.02)  # Drawn anew in every model.
        elif parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter), alpha=0.002)


def _lengths(batch: Batch) -> list[Lengths]:
    branches, trees = batch.layout.branches, batch.layout.num_trees
    answered = zip(branches[:trees], branches[trees:], strict=True)
    return [
        Lengths(second.start, first.stop - second.start, second.stop - second.start)
        for first, second in answered
    ]
